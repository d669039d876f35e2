package charts_test

import (
	"regexp"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"

	"github.com/postern-dev/postern/test/apiserver"
	"github.com/postern-dev/postern/test/charts"
)

// daemonSets are all there are, by their names without the release's.
func daemonSets(t *testing.T, values ...string) map[string]appsv1.DaemonSet {
	t.Helper()
	objects := render(t, values...)
	sets := map[string]appsv1.DaemonSet{}
	for _, object := range objects.Kind("DaemonSet") {
		sets[object.GetName()[len(charts.Release)+1:]] = decode[appsv1.DaemonSet](t, objects, "DaemonSet", object.GetName())
	}
	if len(sets) < 4 {
		t.Fatalf("DaemonSets: %d, want driver, gateway and at least two providers", len(sets))
	}
	return sets
}

// TestPodSecurity asks Kubernetes' own implementation of the pod security
// standards.
func TestPodSecurity(t *testing.T) {
	t.Parallel()
	for name, set := range daemonSets(t, everything) {
		// Sockets between pods need a directory of the node, of which neither
		// standard knows a harmless form.
		baseline := []string{"hostPath volumes"}
		restricted := []string{`restricted volume type "hostPath"`}
		if name == "driver" {
			baseline = []string{"hostPath volumes", "privileged"}
			restricted = []string{
				"allowPrivilegeEscalation != false", "privileged", `restricted volume type "hostPath"`,
				"runAsNonRoot != true", "runAsUser=0", "unrestricted capabilities",
			}
		}
		if diff := cmp.Diff(baseline, violations(t, api.LevelBaseline, set.Spec.Template)); diff != "" {
			t.Errorf("%s: against \"baseline\" (-want +got):\n%s", name, diff)
		}
		if diff := cmp.Diff(restricted, violations(t, api.LevelRestricted, set.Spec.Template)); diff != "" {
			t.Errorf("%s: against \"restricted\" (-want +got):\n%s", name, diff)
		}
	}
	objects := renderWith(t, charts.Options{Chart: charts.Umbrella, Values: []string{allProviders}, Tests: true})
	pod := decode[corev1.Pod](t, objects, "Pod", "postern-test")
	template := corev1.PodTemplateSpec{ObjectMeta: pod.ObjectMeta, Spec: pod.Spec}
	if got := violations(t, api.LevelRestricted, template); len(got) > 0 {
		t.Errorf("helm test's pod: against \"restricted\": %v", got)
	}
}

// violations are what the standard complains of, sorted.
func violations(t *testing.T, level api.Level, pod corev1.PodTemplateSpec) []string {
	t.Helper()
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var reasons []string
	for _, result := range evaluator.EvaluatePod(api.LevelVersion{Level: level, Version: api.LatestVersion()}, &pod.ObjectMeta, &pod.Spec) {
		reason := result.ForbiddenReason
		if match := regexp.MustCompile(`restricted volume types? .*$`).FindString(result.ForbiddenDetail); match != "" {
			reason = match
		}
		if !result.Allowed {
			reasons = append(reasons, reason)
		}
	}
	slices.Sort(reasons)
	return reasons
}

// TestPrivileges looks at what pod security does not.
func TestPrivileges(t *testing.T) {
	t.Parallel()
	users := map[int64]string{}
	for name, set := range daemonSets(t, everything) {
		spec := set.Spec.Template.Spec
		if spec.HostNetwork || spec.HostPID || spec.HostIPC || spec.ShareProcessNamespace != nil {
			t.Errorf("%s shares namespaces with the node", name)
		}
		if spec.AutomountServiceAccountToken == nil || *spec.AutomountServiceAccountToken {
			t.Errorf("%s: all its containers get a token for the API", name)
		}
		if spec.EnableServiceLinks == nil || *spec.EnableServiceLinks {
			t.Errorf("%s: Services become environment variables", name)
		}
		for _, container := range spec.Containers {
			checkContainer(t, name, container)
		}
		if name == "driver" {
			continue
		}
		user := *spec.SecurityContext.RunAsUser
		if other, taken := users[user]; taken || user != *spec.SecurityContext.RunAsGroup {
			t.Errorf("%s runs as %d:%d, and so does %q", name, user, *spec.SecurityContext.RunAsGroup, other)
		}
		users[user] = name
	}
}

func checkContainer(t *testing.T, set string, container corev1.Container) {
	t.Helper()
	who := set + "/" + container.Name
	security := container.SecurityContext
	if security.ReadOnlyRootFilesystem == nil || !*security.ReadOnlyRootFilesystem {
		t.Errorf("%s may write to its root filesystem", who)
	}
	if privileged := security.Privileged != nil && *security.Privileged; privileged != (container.Name == "secrets-store") {
		t.Errorf("%s: privileged is %t", who, privileged)
	}
	if container.Resources.Limits.Memory().IsZero() || container.Resources.Requests.Cpu().IsZero() {
		t.Errorf("%s has no limit of memory, or requests no CPU", who)
	}
	token := slices.ContainsFunc(container.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == "api-token" })
	if token != (container.Name == "secrets-store") {
		t.Errorf("%s: gets a token for the API: %t", who, token)
	}
	for _, mount := range container.VolumeMounts {
		propagates := mount.MountPropagation != nil && *mount.MountPropagation != corev1.MountPropagationNone
		if propagates && (container.Name != "secrets-store" || mount.MountPath != "/var/lib/kubelet/pods") {
			t.Errorf("%s: mounts in %s propagate", who, mount.MountPath)
		}
	}
}

// TestHostPaths holds the directories of the node that each part gets.
func TestHostPaths(t *testing.T) {
	t.Parallel()
	legacy := []string{"/etc/kubernetes/secrets-store-csi-providers", "/var/run/secrets-store-csi-providers"}
	want := map[string][]string{
		"driver": append([]string{
			"/run/postern", "/var/lib/kubelet/plugins/csi-secrets-store", "/var/lib/kubelet/plugins_registry", "/var/lib/kubelet/pods",
		}, legacy...),
		"gateway":        append([]string{"/run/postern/gateway", "/run/postern/providers"}, legacy...),
		"provider-aws":   {"/run/postern/providers/aws"},
		"provider-azure": {"/run/postern/providers/azure"},
		"provider-file":  {"/run/postern/providers/file"},
		"provider-gcp":   {"/run/postern/providers/gcp"},
		"provider-vault": {"/run/postern/providers/vault"},
	}
	for name, set := range daemonSets(t, everything) {
		var got []string
		for _, volume := range set.Spec.Template.Spec.Volumes {
			if volume.HostPath != nil {
				got = append(got, volume.HostPath.Path)
			}
		}
		slices.Sort(got)
		slices.Sort(want[name])
		if diff := cmp.Diff(want[name], got); diff != "" {
			t.Errorf("%s: directories of the node (-want +got):\n%s", name, diff)
		}
	}
}

// TestRBAC holds the driver's rights to those that the end-to-end tests run
// with, and everybody else to none.
func TestRBAC(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		values string
		extra  []rbacv1.PolicyRule
	}{
		"default": {allProviders, nil},
		"startup taint": {
			allProviders + "global: {startupTaint: {enabled: true}}",
			[]rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"nodes"}, Verbs: []string{"patch"}}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			objects := render(t, test.values)
			role := decode[rbacv1.ClusterRole](t, objects, "ClusterRole", "secretproviderclasses-role")
			want := rights(append(apiserver.DriverRules(), test.extra...))
			if diff := cmp.Diff(want, rights(role.Rules)); diff != "" {
				t.Errorf("the driver's rights (-wanted +given):\n%s", diff)
			}
			if bindings := objects.Kind("RoleBinding"); len(bindings) > 0 {
				t.Errorf("role bindings: %d, want none", len(bindings))
			}
			if bindings := objects.Kind("ClusterRoleBinding"); len(bindings) != 1 {
				t.Errorf("cluster role bindings: %d, want one", len(bindings))
			}
			binding := decode[rbacv1.ClusterRoleBinding](t, objects, "ClusterRoleBinding", "secretproviderclasses-rolebinding")
			driver := []rbacv1.Subject{{Kind: "ServiceAccount", Name: "secrets-store-csi-driver", Namespace: charts.Namespace}}
			if diff := cmp.Diff(driver, binding.Subjects); diff != "" || binding.RoleRef.Name != role.Name {
				t.Errorf("role %s is bound to (-want +got):\n%s", binding.RoleRef.Name, diff)
			}
		})
	}
}

// rights are rules taken apart into "verb group/resource", sorted.
func rights(rules []rbacv1.PolicyRule) []string {
	var all []string
	for _, rule := range rules {
		for _, group := range rule.APIGroups {
			for _, resource := range rule.Resources {
				for _, verb := range rule.Verbs {
					all = append(all, verb+" "+group+"/"+resource)
				}
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// TestPeopleRoles holds the roles for people to the kinds that are theirs.
func TestPeopleRoles(t *testing.T) {
	t.Parallel()
	objects := render(t)
	const group = "secrets-store.csi.x-k8s.io/"
	for name, want := range map[string][]string{
		"secretproviderclasses-admin-role": {
			"create " + group + "secretproviderclasses", "delete " + group + "secretproviderclasses", "get " + group + "secretproviderclasses",
			"list " + group + "secretproviderclasses", "patch " + group + "secretproviderclasses", "update " + group + "secretproviderclasses",
			"watch " + group + "secretproviderclasses",
		},
		"secretproviderclasses-viewer-role": {
			"get " + group + "secretproviderclasses", "list " + group + "secretproviderclasses", "watch " + group + "secretproviderclasses",
		},
		"secretproviderclasspodstatuses-viewer-role": {
			"get " + group + "secretproviderclasspodstatuses", "list " + group + "secretproviderclasspodstatuses",
			"watch " + group + "secretproviderclasspodstatuses",
		},
	} {
		if diff := cmp.Diff(want, rights(decode[rbacv1.ClusterRole](t, objects, "ClusterRole", name).Rules)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if roles := objects.Kind("ClusterRole"); len(roles) != 4 {
		t.Errorf("cluster roles: %d, want the driver's and three for people", len(roles))
	}
}
