package charts_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/pod-security-admission/api"
	"sigs.k8s.io/yaml"

	"github.com/postern-dev/postern/test/charts"
)

const (
	gatewayName = charts.Release + "-gateway"
	policyFlag  = "--policy-file=/etc/postern/policy/policy.yaml"
	// twoRules have what YAML and templates may trip over.
	twoRules = `
gateway:
  policy:
    rules:
      - name: own-role
        match: provider == 'vault'
        require: |
          parameters.roleName.startsWith(pod.namespace + '-') && # as all do
          !parameters.roleName.contains("{{ .Values.x }}")
        messageExpression: "'use a role that begins with ' + pod.namespace"
      - name: few-objects
        action: audit
        require: objects.size() < 50
`
)

// policyVolume is what the gateway's pods have at the place of the rules, "" for
// nothing.
func policyVolume(t *testing.T, spec corev1.PodSpec) string {
	t.Helper()
	container := spec.Containers[0]
	i := slices.IndexFunc(container.VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == "/etc/postern/policy" })
	if i < 0 {
		return ""
	}
	if !container.VolumeMounts[i].ReadOnly || container.VolumeMounts[i].SubPath != "" {
		t.Errorf("%s: the rules are mounted as %+v: nothing may write there, and a subPath never changes", container.Name, container.VolumeMounts[i])
	}
	name := container.VolumeMounts[i].Name
	volume := spec.Volumes[slices.IndexFunc(spec.Volumes, func(v corev1.Volume) bool { return v.Name == name })]
	return volume.ConfigMap.Name
}

// TestPolicy_None: without rules there is nothing of them.
func TestPolicy_None(t *testing.T) {
	t.Parallel()
	objects := renderWith(t, charts.Options{Chart: charts.Umbrella, Values: []string{allProviders}, Tests: true})
	for _, object := range objects {
		if strings.Contains(object.GetName(), "policy") {
			t.Errorf("there is a %s %s", object.GetKind(), object.GetName())
		}
	}
	set := decode[appsv1.DaemonSet](t, objects, "DaemonSet", gatewayName)
	if spec := set.Spec.Template.Spec; has(spec.Containers[0].Args, policyFlag) || policyVolume(t, spec) != "" {
		t.Errorf("the gateway looks for rules: %v", spec.Containers[0].Args)
	}
}

// TestPolicy_Rules: the gateway and the check before an upgrade get the same
// rules, those of the values.
func TestPolicy_Rules(t *testing.T) {
	t.Parallel()
	objects := render(t, twoRules)
	var values struct {
		Gateway struct{ Policy map[string]any }
	}
	if err := yaml.Unmarshal([]byte(twoRules), &values); err != nil {
		t.Fatal(err)
	}
	// The Job's weight is 0: what it reads comes before it.
	for name, weight := range map[string]string{gatewayName + "-policy": "", gatewayName + "-policy-check": "-1"} {
		kept := decode[corev1.ConfigMap](t, objects, "ConfigMap", name)
		var got map[string]any
		if err := yaml.Unmarshal([]byte(kept.Data["policy.yaml"]), &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(values.Gateway.Policy, got); diff != "" || len(kept.Data) != 1 {
			t.Errorf("%s has %d files, rules (-want +got):\n%s", name, len(kept.Data), diff)
		}
		if got := kept.Annotations["helm.sh/hook-weight"]; got != weight {
			t.Errorf("%s is made by a hook of weight %q, want %q", name, got, weight)
		}
	}
	set := decode[appsv1.DaemonSet](t, objects, "DaemonSet", gatewayName)
	spec := set.Spec.Template.Spec
	if !has(spec.Containers[0].Args, policyFlag) || policyVolume(t, spec) != gatewayName+"-policy" {
		t.Errorf("the gateway has the arguments %v and the rules of %q", spec.Containers[0].Args, policyVolume(t, spec))
	}
}

// TestPolicy_NoRestart: other rules change no pod.
func TestPolicy_NoRestart(t *testing.T) {
	t.Parallel()
	first := decode[appsv1.DaemonSet](t, render(t, twoRules), "DaemonSet", gatewayName)
	second := decode[appsv1.DaemonSet](t, render(t, "gateway: {policy: {rules: [{name: a, require: 'true'}]}}"), "DaemonSet", gatewayName)
	if diff := cmp.Diff(first.Spec, second.Spec); diff != "" {
		t.Errorf("pods with other rules (-first +second):\n%s", diff)
	}
}

// TestPolicy_Check: the Job that ends an upgrade with a broken rule runs before
// anything else, with nothing that is not there yet, and with no rights.
func TestPolicy_Check(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ values, configMap string }{
		"rules":    {twoRules, gatewayName + "-policy-check"},
		"existing": {"gateway: {policy: {existingConfigMap: ours}}", "ours"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			objects := render(t, test.values, "gateway: {commonLabels: {team: platform}, tolerations: [{key: a, operator: Exists}]}")
			job := decode[batchv1.Job](t, objects, "Job", gatewayName+"-policy-check")
			wanted := map[string]string{
				"helm.sh/hook": "pre-install,pre-upgrade", "helm.sh/hook-weight": "0",
				"helm.sh/hook-delete-policy": "before-hook-creation,hook-succeeded", "helm.sh/hook-output-log-policy": "hook-failed",
			}
			if diff := cmp.Diff(wanted, job.Annotations); diff != "" {
				t.Errorf("annotations (-want +got):\n%s", diff)
			}
			spec, container := job.Spec.Template.Spec, job.Spec.Template.Spec.Containers[0]
			gateway := decode[appsv1.DaemonSet](t, objects, "DaemonSet", gatewayName)
			if got := policyVolume(t, spec); got != test.configMap {
				t.Errorf("it checks the rules of %q, want %q", got, test.configMap)
			}
			if diff := cmp.Diff([]string{"policy", "check", "/etc/postern/policy/policy.yaml"}, container.Args); diff != "" {
				t.Errorf("arguments (-want +got):\n%s", diff)
			}
			if want := gateway.Spec.Template.Spec.Containers[0]; container.Image != want.Image || container.ImagePullPolicy != want.ImagePullPolicy {
				t.Errorf("its image is %s, the gateway's %s", container.Image, want.Image)
			}
			if spec.ServiceAccountName != "" || spec.PriorityClassName != "" || spec.AutomountServiceAccountToken == nil || *spec.AutomountServiceAccountToken {
				t.Errorf("it needs what is not there before an installation: %+v", spec)
			}
			if got := violations(t, api.LevelRestricted, job.Spec.Template); len(got) > 0 {
				t.Errorf("against \"restricted\": %v", got)
			}
			checkContainer(t, "policy-check", container)
			if len(spec.Volumes) != 1 || len(spec.Tolerations) != 1 || spec.RestartPolicy != corev1.RestartPolicyNever {
				t.Errorf("volumes %v, tolerations %v, restarts %s", spec.Volumes, spec.Tolerations, spec.RestartPolicy)
			}
			rule := job.Spec.PodFailurePolicy.Rules[0]
			if rule.Action != batchv1.PodFailurePolicyActionFailJob || !slices.Equal(rule.OnExitCodes.Values, []int32{1, 2}) {
				t.Errorf("what the check says is tried again: %+v", rule)
			}
			// No selector of the gateway takes its pod for one of the gateway's.
			labels := maps.Clone(job.Spec.Template.Labels)
			maps.DeleteFunc(labels, func(key, value string) bool { return gateway.Spec.Selector.MatchLabels[key] != value })
			if len(labels) == len(gateway.Spec.Selector.MatchLabels) || job.Spec.Template.Labels["team"] != "platform" {
				t.Errorf("its labels are %v", job.Spec.Template.Labels)
			}
		})
	}
}

// TestPolicy_Existing: rules from elsewhere are mounted, and none are made.
func TestPolicy_Existing(t *testing.T) {
	t.Parallel()
	objects := render(t, "gateway: {policy: {existingConfigMap: ours}}")
	set := decode[appsv1.DaemonSet](t, objects, "DaemonSet", gatewayName)
	spec := set.Spec.Template.Spec
	if !has(spec.Containers[0].Args, policyFlag) || policyVolume(t, spec) != "ours" {
		t.Errorf("the gateway has the arguments %v and the rules of %q", spec.Containers[0].Args, policyVolume(t, spec))
	}
	for _, object := range objects.Kind("ConfigMap") {
		if strings.Contains(object.GetName(), "policy") {
			t.Errorf("there is a ConfigMap %s", object.GetName())
		}
	}
}
