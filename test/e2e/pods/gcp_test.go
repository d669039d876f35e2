package pods_test

import (
	"context"
	_ "embed" // a manifest
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/postern-dev/postern/test/cluster"
	"github.com/postern-dev/postern/test/gcp/control"
	gcpcluster "github.com/postern-dev/postern/test/gcp/incluster"
)

// What there is in Google Cloud: a project with a GKE cluster, as which this one
// passes, and a service account that may do anything. The provider has its key in
// its environment, and its node's metadata server hands out its tokens.
const (
	gcpProject       = "shop-prod"
	gcpProjectNumber = "123456789012"
	gcpLocation      = "europe-west3"
	gcpCluster       = "https://container.googleapis.com/v1/projects/" + gcpProject + "/locations/" + gcpLocation + "/clusters/prod"
	gcpPool          = gcpProject + ".svc.id.goog"
	gcpPools         = "//iam.googleapis.com/projects/" + gcpProjectNumber + "/locations/global/workloadIdentityPools/"
	gcpAdmin         = "admin@" + gcpProject + ".iam.gserviceaccount.com"

	gcpAccessor = "roles/secretmanager.secretAccessor"
	gcpViewer   = "roles/secretmanager.viewer"
)

// gcpManifest is what users have from the GCP provider's documentation.
//
//go:embed testdata/gcp.yaml
var gcpManifest string

// gcpImage makes the image of the double of Google Cloud.
func (e *environment) gcpImage(ctx context.Context) (string, error) {
	programs, err := e.builder.Programs(ctx, "gcp", "./test/cmd/postern-gcp")
	if err != nil {
		return "", err
	}
	tarball := filepath.Join(e.dir, "gcp.tar")
	return tarball, gcpcluster.Image(filepath.Join(programs, "postern-gcp"), tarball)
}

// testGCP installs the provider for Google Cloud, which reaches it by a proxy.
func testGCP(t *testing.T) {
	dumpIfFailed(t, system)
	double := deployGCP(t)
	must(t, shared.postern.Upgrade(t.Context(), "provider-gcp.enabled=true"))
	t.Cleanup(func() {
		if err := shared.postern.Upgrade(context.WithoutCancel(t.Context()),
			"provider-gcp.enabled=false", "provider-gcp.gcp.workloadIdentity.audience="); err != nil {
			t.Error(err)
		}
	})
	t.Run("Together", func(t *testing.T) {
		for _, test := range []struct {
			name string
			run  func(*testing.T, *gcpcluster.Server)
		}{
			{"WalkThrough", testGCPWalkThrough},
			{"Docs", testGCPDocs},
			{"Annotation", testGCPAnnotation},
			{"OneTrace", testGCPOneTrace},
			{"RoleMissing", testGCPRoleMissing},
			{"NotImpersonated", testGCPNotImpersonated},
			{"KeyIsOff", testGCPKeyIsOff},
			{"ProviderIdentityIsOff", testGCPProviderIdentityIsOff},
		} {
			t.Run(test.name, func(t *testing.T) {
				t.Parallel()
				test.run(t, double)
			})
		}
	})
	t.Run("OtherCluster", func(t *testing.T) { testGCPOtherCluster(t, double) })
	wantNoAdministrator(t, double)
	violations, err := double.Violations(t.Context())
	must(t, err)
	for _, violation := range violations {
		t.Errorf("against Google's protocols: %+v", violation)
	}
}

// deployGCP runs the double of Google Cloud until the test ends, and gives Postern's
// namespace the certificate authority of its proxy and the administrator's key.
func deployGCP(t *testing.T) *gcpcluster.Server {
	t.Helper()
	double, err := gcpcluster.Deploy(t.Context(), shared.cluster, cluster.Issuer)
	must(t, err)
	t.Cleanup(func() {
		if err := gcpcluster.Delete(context.WithoutCancel(t.Context()), shared.cluster); err != nil {
			t.Error(err)
		}
	})
	dumpIfFailed(t, gcpcluster.Namespace)
	applied, err := double.Apply(t.Context(), control.Document{
		Projects:        []control.Project{{ID: gcpProject, Number: gcpProjectNumber}},
		ServiceAccounts: []control.ServiceAccount{{Email: gcpAdmin, Keys: []string{"key"}}},
		Pools: []control.Pool{{
			Project: gcpProject, ID: gcpPool, Providers: []control.Provider{{ID: gcpCluster, Issuer: cluster.Issuer}},
		}},
		Metadata: &control.Metadata{Project: gcpProject, ClusterName: "prod", ClusterLocation: gcpLocation, ServiceAccount: gcpAdmin},
		Bindings: []control.Binding{{
			Resource: "projects/" + gcpProject, Role: "roles/secretmanager.admin", Members: []string{"serviceAccount:" + gcpAdmin},
		}},
	})
	must(t, err)
	ca, err := double.CA(t.Context())
	must(t, err)
	secrets := shared.client.CoreV1().Secrets(system)
	_, err = secrets.Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "gcp"},
		Data:       map[string][]byte{"ca.crt": []byte(ca), "key.json": applied.ServiceAccounts[0].Keys[0]},
	}, metav1.CreateOptions{})
	must(t, err)
	t.Cleanup(func() {
		if err := secrets.Delete(context.WithoutCancel(t.Context()), "gcp", metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	return double
}

// wantNoAdministrator wants nobody to have used what the provider could: the key in
// its environment, and its node's identity.
func wantNoAdministrator(t *testing.T, double *gcpcluster.Server) {
	t.Helper()
	all, err := double.Requests(t.Context())
	must(t, err)
	asked := 0
	for _, request := range all {
		switch {
		case request.Principal == gcpAdmin || request.Service == control.OAuth2:
			t.Errorf("the provider used the credentials of its environment: %+v", request)
		case request.Service == control.MetadataServer:
			asked++
			if !slices.Contains([]string{"instance/attributes/cluster-name", "instance/attributes/cluster-location"}, request.Operation) {
				t.Errorf("the metadata server was asked for more than the cluster's name and location: %+v", request)
			}
		}
	}
	if asked != 2 {
		t.Errorf("%d requests to the metadata server, want one for the cluster's name and one for its location", asked)
	}
}

// gcpTenant is a tenant whose secrets have its namespace before their names. The
// secret db is one.
type gcpTenant struct {
	*tenant

	double *gcpcluster.Server
}

// newGCPTenant makes one whose service account may read its secret db.
func newGCPTenant(t *testing.T, double *gcpcluster.Server) *gcpTenant {
	t.Helper()
	g := &gcpTenant{tenant: newNamespace(t), double: double}
	g.put(g.named("db"), "hunter2")
	g.grant(g.named("db"), gcpAccessor, g.member(account))
	return g
}

// named is the resource of a secret of the tenant's own.
func (g *gcpTenant) named(name string) string {
	return "projects/" + gcpProject + "/secrets/" + g.namespace + "-" + name
}

// member is what IAM calls one of the tenant's service accounts.
func (g *gcpTenant) member(account string) string {
	return "principal:" + gcpPools + gcpPool + "/subject/ns/" + g.namespace + "/sa/" + account
}

// googleAccount is the email of a service account of Google's for the tenant.
func (g *gcpTenant) googleAccount() string {
	return g.namespace + "@" + gcpProject + ".iam.gserviceaccount.com"
}

func (g *gcpTenant) put(resource, value string) {
	g.t.Helper()
	g.putAll(control.Document{Secrets: []control.Secret{{Name: resource, Value: &value}}})
}

// grant gives a role on a resource to these members, and to nobody else.
func (g *gcpTenant) grant(resource, role string, members ...string) {
	g.t.Helper()
	g.putAll(control.Document{Bindings: []control.Binding{{Resource: resource, Role: role, Members: members}}})
}

func (g *gcpTenant) putAll(document control.Document) control.Applied {
	g.t.Helper()
	applied, err := g.double.Apply(g.t.Context(), document)
	must(g.t, err)
	return applied
}

// annotate gives the service account one of Google's, which may read its secrets in
// its place.
func (g *gcpTenant) annotate() {
	g.t.Helper()
	g.putAll(control.Document{ServiceAccounts: []control.ServiceAccount{{Email: g.googleAccount()}}})
	g.grant(g.named("db"), gcpAccessor, "serviceAccount:"+g.googleAccount())
	patch := fmt.Appendf(nil, `{"metadata":{"annotations":{"iam.gke.io/gcp-service-account":%q}}}`, g.googleAccount())
	_, err := shared.client.CoreV1().ServiceAccounts(g.namespace).Patch(g.t.Context(), account, types.MergePatchType, patch, metav1.PatchOptions{})
	must(g.t, err)
}

// dbClass makes a class of the secret db for a provider's name, with further
// parameters as names and values.
func (g *gcpTenant) dbClass(provider string, parameters ...string) {
	g.t.Helper()
	all := map[string]any{"secrets": "- {resourceName: " + g.named("db") + "/versions/latest, path: db}"}
	for i := 0; i < len(parameters); i += 2 {
		all[parameters[i]] = parameters[i+1]
	}
	g.apply("v1", "app", map[string]any{"provider": provider, "parameters": all})
}

// requests are those of a principal that the double has answered.
func (g *gcpTenant) requests(principal string) []control.Request {
	g.t.Helper()
	all, err := g.double.Requests(g.t.Context())
	must(g.t, err)
	return slices.DeleteFunc(all, func(r control.Request) bool { return r.Principal != principal })
}

// count is how often a principal has done something.
func (g *gcpTenant) count(principal, operation string) int {
	g.t.Helper()
	count := 0
	for _, request := range g.requests(principal) {
		if request.Operation == operation && request.Code == "" {
			count++
		}
	}
	return count
}
