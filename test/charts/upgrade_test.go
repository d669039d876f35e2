package charts_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/postern-dev/postern/test/charts"
)

// TestUpgradeTouchesOnly renders an installation before and after a change, and
// holds what differs to what has to.
func TestUpgradeTouchesOnly(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		before, after string
		want          []string
	}{
		"vault's tag": {
			allProviders, "provider-vault: {image: {tag: v9}}",
			[]string{"DaemonSet postern-provider-vault"},
		},
		"file's tag": {
			allProviders, "provider-file: {image: {tag: v9}}",
			[]string{"DaemonSet postern-provider-file"},
		},
		"aws' tag": {
			allProviders, "provider-aws: {image: {tag: v9}}",
			[]string{"DaemonSet postern-provider-aws"},
		},
		"azure's tag": {
			allProviders, "provider-azure: {image: {tag: v9}}",
			[]string{"DaemonSet postern-provider-azure"},
		},
		"gcp's tag": {
			allProviders, "provider-gcp: {image: {tag: v9}}",
			[]string{"DaemonSet postern-provider-gcp"},
		},
		// kubelet is asked for the tokens that the place takes.
		"gcp's project": {
			allProviders, "provider-gcp: {gcp: {project: shop-prod}}",
			[]string{"CSIDriver secrets-store.csi.k8s.io", "DaemonSet postern-provider-gcp"},
		},
		"gateway's tag": {
			allProviders, "gateway: {image: {tag: v9}}",
			[]string{"DaemonSet postern-gateway"},
		},
		"driver's tag": {
			allProviders, "driver: {linux: {image: {tag: v9}}}",
			[]string{"DaemonSet postern-driver"},
		},
		// No daemon that is there is restarted.
		"a provider more": {
			"", "provider-vault: {enabled: true}",
			[]string{
				"CSIDriver secrets-store.csi.k8s.io", "DaemonSet postern-provider-vault",
				"NetworkPolicy postern-provider-vault", "ServiceAccount postern-provider-vault",
			},
		},
		"a store's address": {
			allProviders, "provider-vault: {vault: {address: 'https://vault:8200'}}",
			[]string{"DaemonSet postern-provider-vault"},
		},
		// The Secret's files change in the pods that are there; which files there
		// are is a part of the pod.
		"a file's content": {
			"provider-file: {enabled: true, files: {shop: {a: '1'}}}", "provider-file: {files: {shop: {a: '2'}}}",
			[]string{"Secret postern-provider-file"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			before, after := render(t, test.before), render(t, test.before, test.after)
			if diff := cmp.Diff(test.want, changed(t, before, after)); diff != "" {
				t.Errorf("what the upgrade touches (-want +got):\n%s", diff)
			}
		})
	}
}

func changed(t *testing.T, before, after charts.Objects) []string {
	t.Helper()
	index := func(objects charts.Objects) map[string]string {
		all := map[string]string{}
		for _, object := range objects {
			encoded, err := json.Marshal(object.Object)
			if err != nil {
				t.Fatal(err)
			}
			all[object.GetKind()+" "+object.GetName()] = string(encoded)
		}
		return all
	}
	old, current := index(before), index(after)
	var names []string
	for name := range old {
		if old[name] != current[name] {
			names = append(names, name)
		}
	}
	for name := range current {
		if _, ok := old[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// TestPodsOutliveCharts: a new version of a chart alone replaces no pod, and a
// DaemonSet's selector never changes.
func TestPodsOutliveCharts(t *testing.T) {
	t.Parallel()
	for name, set := range daemonSets(t, everything) {
		for label, value := range set.Spec.Template.Labels {
			if strings.Contains(label, "version") || strings.HasPrefix(label, "helm.sh/") {
				t.Errorf("%s: pods have the label %s=%s", name, label, value)
			}
		}
		want := map[string]string{"app.kubernetes.io/name": "postern-" + name, "app.kubernetes.io/instance": charts.Release}
		if diff := cmp.Diff(want, set.Spec.Selector.MatchLabels); diff != "" {
			t.Errorf("%s: selector (-want +got):\n%s", name, diff)
		}
	}
}

// TestRollout holds how each part is replaced and where it runs.
func TestRollout(t *testing.T) {
	t.Parallel()
	everywhere := []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
	want := map[string]struct {
		surge, unavailable, priority string
		tolerations                  []corev1.Toleration
	}{
		"driver":         {"", "1", "system-node-critical", everywhere},
		"gateway":        {"1", "0", "system-node-critical", everywhere},
		"provider-aws":   {"1", "0", "system-cluster-critical", nil},
		"provider-azure": {"1", "0", "system-cluster-critical", nil},
		"provider-file":  {"1", "0", "system-cluster-critical", nil},
		"provider-gcp":   {"1", "0", "system-cluster-critical", nil},
		"provider-vault": {"1", "0", "system-cluster-critical", nil},
	}
	for name, set := range daemonSets(t, allProviders) {
		spec := set.Spec.Template.Spec
		update := set.Spec.UpdateStrategy
		if update.Type != appsv1.RollingUpdateDaemonSetStrategyType || update.RollingUpdate == nil {
			t.Errorf("%s: update strategy %+v", name, update)
			continue
		}
		surge := ""
		if update.RollingUpdate.MaxSurge != nil {
			surge = update.RollingUpdate.MaxSurge.String()
		}
		if unavailable := update.RollingUpdate.MaxUnavailable.String(); surge != want[name].surge || unavailable != want[name].unavailable {
			t.Errorf("%s: maxSurge %q, maxUnavailable %q", name, surge, unavailable)
		}
		if spec.PriorityClassName != want[name].priority {
			t.Errorf("%s: priority class %q", name, spec.PriorityClassName)
		}
		if diff := cmp.Diff(want[name].tolerations, spec.Tolerations); diff != "" {
			t.Errorf("%s: tolerations (-want +got):\n%s", name, diff)
		}
		for _, container := range spec.Containers {
			if main := len(container.Ports) > 0; main && (container.ReadinessProbe == nil || container.LivenessProbe == nil) {
				t.Errorf("%s/%s: no readiness or liveness probe", name, container.Name)
			}
		}
	}
	// Or else a provider could not start on the nodes that wait for it.
	taint := []corev1.Toleration{{Key: "secrets-store.csi.k8s.io/agent-not-ready", Operator: corev1.TolerationOpExists}}
	for name, set := range daemonSets(t, allProviders, "global: {startupTaint: {enabled: true}}") {
		if strings.HasPrefix(name, "provider-") {
			if diff := cmp.Diff(taint, set.Spec.Template.Spec.Tolerations); diff != "" {
				t.Errorf("%s: tolerations with a startup taint (-want +got):\n%s", name, diff)
			}
		}
	}
}
