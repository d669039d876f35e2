package charts_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/postern-dev/postern/test/charts"
)

// The names are the upstream chart's.
const (
	syncRole    = "secretprovidersyncing-role"
	syncBinding = "secretprovidersyncing-rolebinding"
)

// TestSyncSecret: the driver is told the same namespaces as its rights cover.
func TestSyncSecret(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		values string
		// flag is the driver's, roles where it has rights; "" is everywhere.
		flag  string
		roles []string
	}{
		"default":                 {"", "", nil},
		"upstream's switch":       {"{enabled: true}", "*", []string{""}},
		"namespaces":              {"{namespaces: [shop, billing]}", "shop,billing", []string{"billing", "shop"}},
		"the switch, narrowed":    {"{enabled: true, namespaces: [shop]}", "shop", []string{"shop"}},
		"all namespaces":          {"{namespaces: ['*']}", "*", []string{""}},
		"all and one":             {"{namespaces: [shop, '*']}", "*", []string{""}},
		"one, twice":              {"{namespaces: [shop, shop]}", "shop", []string{"shop"}},
		"off, though there is no": {"{enabled: false, namespaces: []}", "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			values := ""
			if test.values != "" {
				values = "driver: {syncSecret: " + test.values + "}"
			}
			objects := render(t, values)
			args := decode[appsv1.DaemonSet](t, objects, "DaemonSet", "postern-driver").Spec.Template.Spec.Containers[1].Args
			flag := slices.IndexFunc(args, func(arg string) bool { return strings.HasPrefix(arg, "--sync-secret-namespaces=") })
			switch {
			case test.flag == "" && flag >= 0, test.flag != "" && (flag < 0 || args[flag] != "--sync-secret-namespaces="+test.flag):
				t.Errorf("flags %q, want the namespaces %q", args, test.flag)
			}
			if diff := cmp.Diff(test.roles, syncRoles(t, objects)); diff != "" {
				t.Errorf("rights in namespaces (-want +got):\n%s", diff)
			}
		})
	}
	off := render(t, "driver: {rbac: {install: false}, syncSecret: {namespaces: [shop]}}")
	if roles := syncRoles(t, off); len(roles) > 0 {
		t.Errorf("rbac.install: false: rights in %q", roles)
	}
}

// syncRoles returns the namespaces that the driver may write Secrets in, sorted,
// and checks that it may do there what it has to and no more.
func syncRoles(t *testing.T, objects charts.Objects) []string {
	t.Helper()
	var namespaces, bound []string
	for _, object := range slices.Concat(objects.Kind("Role"), objects.Kind("ClusterRole")) {
		one := charts.Objects{object}
		var rules []rbacv1.PolicyRule
		if object.GetKind() == "Role" {
			rules = decode[rbacv1.Role](t, one, "Role", object.GetName()).Rules
		} else {
			rules = decode[rbacv1.ClusterRole](t, one, "ClusterRole", object.GetName()).Rules
		}
		if object.GetName() != syncRole {
			for _, right := range rights(rules) {
				if strings.HasSuffix(right, "/secrets") {
					t.Errorf("%s %s: %s", object.GetKind(), object.GetName(), right)
				}
			}
			continue
		}
		want := []string{"create /secrets", "delete /secrets", "get /secrets", "list /secrets", "patch /secrets"}
		if diff := cmp.Diff(want, rights(rules)); diff != "" {
			t.Errorf("rights in %q (-want +got):\n%s", object.GetNamespace(), diff)
		}
		namespaces = append(namespaces, object.GetNamespace())
	}
	for _, object := range slices.Concat(objects.Kind("RoleBinding"), objects.Kind("ClusterRoleBinding")) {
		if object.GetName() != syncBinding {
			continue
		}
		bound = append(bound, object.GetNamespace())
		kind := "Role"
		binding := rbacv1.RoleBinding{}
		if object.GetKind() == "ClusterRoleBinding" {
			cluster := decode[rbacv1.ClusterRoleBinding](t, charts.Objects{object}, object.GetKind(), syncBinding)
			kind, binding.RoleRef, binding.Subjects = "ClusterRole", cluster.RoleRef, cluster.Subjects
		} else {
			binding = decode[rbacv1.RoleBinding](t, charts.Objects{object}, object.GetKind(), syncBinding)
		}
		if binding.RoleRef.Kind != kind || binding.RoleRef.Name != syncRole {
			t.Errorf("the binding in %q is of %s %s", object.GetNamespace(), binding.RoleRef.Kind, binding.RoleRef.Name)
		}
		driver := []rbacv1.Subject{{Kind: "ServiceAccount", Name: "secrets-store-csi-driver", Namespace: charts.Namespace}}
		if diff := cmp.Diff(driver, binding.Subjects); diff != "" {
			t.Errorf("the binding in %q is for (-want +got):\n%s", object.GetNamespace(), diff)
		}
	}
	slices.Sort(namespaces)
	slices.Sort(bound)
	if diff := cmp.Diff(namespaces, bound); diff != "" {
		t.Errorf("roles and bindings (-roles +bindings):\n%s", diff)
	}
	return namespaces
}

// TestSyncSecret_Authorizer asks a real API server what the driver's account may
// do.
func TestSyncSecret_Authorizer(t *testing.T) {
	t.Parallel()
	server := startServer(t)
	for _, namespace := range []string{charts.Namespace, "shop", "billing", "other"} {
		if err := server.EnsureNamespace(t.Context(), namespace); err != nil {
			t.Fatal(err)
		}
	}
	for _, object := range render(t, "driver: {syncSecret: {namespaces: [shop, billing]}}") {
		switch object.GetKind() {
		case "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding":
			encoded, err := object.MarshalJSON()
			if err != nil {
				t.Fatal(err)
			}
			if err := server.Apply(t.Context(), string(encoded)); err != nil {
				t.Fatal(err)
			}
		}
	}
	config := rest.CopyConfig(server.Rest)
	config.Impersonate = rest.ImpersonationConfig{
		UserName: "system:serviceaccount:" + charts.Namespace + ":secrets-store-csi-driver",
		Groups:   []string{"system:serviceaccounts", "system:authenticated"},
	}
	driver, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	may := func(verb, namespace string) bool {
		t.Helper()
		review, err := driver.AuthorizationV1().SelfSubjectAccessReviews().Create(t.Context(), &authorizationv1.SelfSubjectAccessReview{
			Spec: authorizationv1.SelfSubjectAccessReviewSpec{
				ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: verb, Resource: "secrets", Namespace: namespace},
			},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return review.Status.Allowed
	}
	needed := []string{"get", "list", "create", "patch", "delete"}
	for namespace, open := range map[string]bool{"shop": true, "billing": true, "other": false, charts.Namespace: false, "kube-system": false, "": false} {
		for _, verb := range []string{"get", "list", "create", "patch", "delete", "watch", "update", "deletecollection"} {
			if got, want := may(verb, namespace), open && slices.Contains(needed, verb); got != want {
				t.Errorf("%s Secrets in namespace %q: %t, want %t", verb, namespace, got, want)
			}
		}
	}
}
