package charts_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/restmapper"

	"github.com/postern-dev/postern/test/apiserver"
	"github.com/postern-dev/postern/test/build"
	"github.com/postern-dev/postern/test/charts"
)

// TestAPIServer has a real API server look at everything that is rendered, as
// strictly as it can: no unknown field, no value that its validation refuses.
func TestAPIServer(t *testing.T) {
	t.Parallel()
	server := startServer(t)
	referee := newReferee(t, server)
	t.Run("CRDs", func(t *testing.T) {
		crds := renderWith(t, charts.Options{Chart: charts.CRDs})
		for _, crd := range crds {
			if crd.GetAnnotations()["helm.sh/resource-policy"] != "keep" {
				t.Errorf("%s goes with its chart", crd.GetName())
			}
			referee.check(t, crd)
		}
		gone := renderWith(t, charts.Options{Chart: charts.CRDs, Values: []string{"{keep: false, labels: {a: b}, annotations: {c: d}}"}})
		for _, crd := range gone {
			if crd.GetAnnotations()["helm.sh/resource-policy"] != "" || crd.GetLabels()["a"] != "b" || crd.GetAnnotations()["c"] != "d" {
				t.Errorf("%s: labels %v, annotations %v", crd.GetName(), crd.GetLabels(), crd.GetAnnotations())
			}
			referee.check(t, crd)
		}
	})
	if err := server.ApplyCRDs(t.Context(), filepath.Join(repository(t), "charts", charts.CRDs, "files")); err != nil {
		t.Fatal(err)
	}
	referee.mapper.Reset()
	for name, values := range map[string]string{
		"default":       "",
		"all providers": allProviders,
		"everything":    everything,
		"upstream":      "driver:\n" + strings.ReplaceAll(upstream, "\n", "\n  "),
		"volumes": `
provider-file: {enabled: true, root: {volume: {configMap: {name: files}}}}
provider-vault: {enabled: true, vault: {tls: {caConfigMap: vault-ca}}}
tests: {provider: vault, parameters: {roleName: test, objects: "[]"}}`,
	} {
		t.Run(name, func(t *testing.T) {
			for _, object := range renderWith(t, charts.Options{Chart: charts.Umbrella, Values: []string{values}, KubeVersion: "1.35.4", Tests: true}) {
				referee.check(t, object)
			}
		})
	}
	t.Run("deploy", func(t *testing.T) {
		files, err := newHelm(t).Deploy(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for name, text := range files {
			objects, err := charts.Decode([]byte(text))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			for _, object := range objects {
				referee.check(t, object)
			}
		}
	})
	// What users change of a CSIDriver has to be possible without deleting it.
	t.Run("CSIDriver can be changed", func(t *testing.T) {
		for _, step := range []struct{ version, values string }{
			{"1.35.4", ""},
			{"1.35.4", "provider-vault: {enabled: true}"},
			{"1.35.4", "{provider-vault: {enabled: true}, driver: {tokenRequests: [{audience: a, expirationSeconds: 900}]}}"},
			{"1.34.0", "provider-vault: {enabled: true}"},
			{"1.35.4", ""},
		} {
			objects := renderWith(t, charts.Options{Chart: charts.Umbrella, Values: []string{step.values}, KubeVersion: step.version})
			encoded, err := objects.Kind("CSIDriver")[0].MarshalJSON()
			if err != nil {
				t.Fatal(err)
			}
			if err := server.Apply(t.Context(), string(encoded)); err != nil {
				t.Errorf("with %q: %v", step.values, err)
			}
		}
	})
}

// The referee finds faults: or else it would prove nothing.
func TestReferee(t *testing.T) {
	t.Parallel()
	referee := newReferee(t, startServer(t))
	for name, test := range map[string]struct{ kind, object, want string }{
		"unknown field": {"DaemonSet", "{spec: {template: {spec: {containerz: []}}}}", "unknown field"},
		"bad value":     {"CSIDriver", "{spec: {fsGroupPolicy: Never}}", "Unsupported value"},
	} {
		objects := render(t)
		object := objects.Kind(test.kind)[0]
		broken, err := charts.Decode([]byte(test.object))
		if err != nil {
			t.Fatal(err)
		}
		merge(object.Object, broken[0].Object)
		if err := referee.dryRun(t, object); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want an error with %q", name, err, test.want)
		}
	}
}

func merge(base, over map[string]any) {
	for key, value := range over {
		under, ok := base[key].(map[string]any)
		inner, both := value.(map[string]any)
		if ok && both {
			merge(under, inner)
			continue
		}
		base[key] = value
	}
}

type referee struct {
	client dynamic.Interface
	mapper meta.ResettableRESTMapper
}

func newReferee(t *testing.T, server *apiserver.Server) *referee {
	t.Helper()
	if err := server.EnsureNamespace(t.Context(), charts.Namespace); err != nil {
		t.Fatal(err)
	}
	return &referee{
		client: server.Dynamic,
		mapper: restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(server.Client.Discovery())),
	}
}

// check fails the test unless the API server would take the object.
func (r *referee) check(t *testing.T, object *unstructured.Unstructured) {
	t.Helper()
	// The operator's resources are not in this server; TestAlerts looks at them.
	if strings.HasPrefix(object.GetAPIVersion(), "monitoring.coreos.com/") {
		return
	}
	if err := r.dryRun(t, object); err != nil {
		t.Errorf("%s %s: %v", object.GetKind(), object.GetName(), err)
	}
}

func (r *referee) dryRun(t *testing.T, object *unstructured.Unstructured) error {
	t.Helper()
	kind := object.GroupVersionKind()
	mapping, err := r.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	if err != nil {
		return err
	}
	var resource dynamic.ResourceInterface = r.client.Resource(mapping.Resource)
	if mapping.Scope.Name() == meta.RESTScopeNameNamespace {
		if object.GetNamespace() != charts.Namespace {
			return fmt.Errorf("its namespace is %q", object.GetNamespace())
		}
		resource = r.client.Resource(mapping.Resource).Namespace(charts.Namespace)
	} else if object.GetNamespace() != "" {
		return errors.New("it has a namespace, but its kind has none")
	}
	_, err = resource.Create(t.Context(), object, metav1.CreateOptions{
		DryRun: []string{metav1.DryRunAll}, FieldValidation: metav1.FieldValidationStrict,
	})
	if apierrors.IsAlreadyExists(err) { // the namespace, and what other steps made
		return nil
	}
	return err
}

func startServer(t *testing.T) *apiserver.Server {
	t.Helper()
	kube, err := newBuilder(t).Server(t.Context(), build.Kube())
	if err != nil {
		t.Fatal(err)
	}
	server, err := apiserver.Start(t.Context(), apiserver.Config{Kube: kube, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	return server
}
