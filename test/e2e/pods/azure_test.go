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
	"k8s.io/apimachinery/pkg/util/uuid"

	"github.com/postern-dev/postern/test/azure/control"
	azurecluster "github.com/postern-dev/postern/test/azure/incluster"
	"github.com/postern-dev/postern/test/cluster"
)

// What there is in Entra: a tenant, and an application that may do anything. The
// provider has its credentials in its environment.
const (
	azureTenantID = "72f988bf-86f1-41af-91ab-2d7cd011db47"
	adminClientID = "00000000-1111-2222-3333-444444444444"
	adminSecret   = "an-administrators-client-secret"
	clientIDLabel = "azure.workload.identity/client-id"
	tenantIDLabel = "azure.workload.identity/tenant-id"
)

// azureManifest is what users have from the Azure provider's documentation.
//
//go:embed testdata/azure.yaml
var azureManifest string

// azureImage makes the image of the double of Azure.
func (e *environment) azureImage(ctx context.Context) (string, error) {
	programs, err := e.builder.Programs(ctx, "azure", "./test/cmd/postern-azure")
	if err != nil {
		return "", err
	}
	tarball := filepath.Join(e.dir, "azure.tar")
	return tarball, azurecluster.Image(filepath.Join(programs, "postern-azure"), tarball)
}

// testAzure installs the provider for Azure, which reaches Azure by a proxy. One
// namespace is open for Kubernetes Secrets.
func testAzure(t *testing.T) {
	dumpIfFailed(t, system)
	double := deployAzure(t)
	open := newAzureTenant(t, double, "secrets/get")
	openForSecrets(t, open.namespace)
	must(t, shared.postern.Upgrade(t.Context(), "provider-azure.enabled=true"))
	t.Cleanup(func() {
		if err := shared.postern.Upgrade(context.WithoutCancel(t.Context()), "provider-azure.enabled=false"); err != nil {
			t.Error(err)
		}
	})
	t.Run("Together", func(t *testing.T) {
		for _, test := range []struct {
			name string
			run  func(*testing.T, *azurecluster.Server)
		}{
			{"WalkThrough", testAzureWalkThrough},
			{"TLS", func(t *testing.T, _ *azurecluster.Server) { testAzureTLS(t, open) }},
			{"Docs", testAzureDocs},
			{"Annotation", testAzureAnnotation},
			{"ServicePrincipal", testAzureServicePrincipal},
			{"OneTrace", testAzureOneTrace},
			{"NotTrusted", testAzureNotTrusted},
			{"RoleMissing", testAzureRoleMissing},
			{"NoIdentity", testAzureNoIdentity},
			{"NodeIdentity", testAzureNodeIdentity},
		} {
			t.Run(test.name, func(t *testing.T) {
				t.Parallel()
				test.run(t, double)
			})
		}
	})
	violations, err := double.Violations(t.Context())
	must(t, err)
	for _, violation := range violations {
		t.Errorf("against Azure's protocols: %+v", violation)
	}
}

// deployAzure runs the double of Azure until the test ends, and gives Postern's
// namespace the certificate authority of its proxy.
func deployAzure(t *testing.T) *azurecluster.Server {
	t.Helper()
	double, err := azurecluster.Deploy(t.Context(), shared.cluster, cluster.Issuer)
	must(t, err)
	t.Cleanup(func() {
		if err := azurecluster.Delete(context.WithoutCancel(t.Context()), shared.cluster); err != nil {
			t.Error(err)
		}
	})
	dumpIfFailed(t, azurecluster.Namespace)
	ca, err := double.CA(t.Context())
	must(t, err)
	const name = "azure-ca"
	maps := shared.client.CoreV1().ConfigMaps(system)
	_, err = maps.Create(t.Context(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"ca.crt": ca},
	}, metav1.CreateOptions{})
	must(t, err)
	t.Cleanup(func() {
		if err := maps.Delete(context.WithoutCancel(t.Context()), name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	_, err = double.Apply(t.Context(), control.Document{Applications: []control.Application{{
		Tenant: azureTenantID, ClientID: adminClientID, Secrets: []control.ClientSecret{{Value: adminSecret}},
	}}})
	must(t, err)
	return double
}

// azureTenant is a tenant with an application that trusts its service account, and
// a vault with the secret db.
type azureTenant struct {
	*tenant

	double      *azurecluster.Server
	application control.Application
	vault       control.Vault
}

// newAzureTenant makes one whose application may do this in its vault, and
// administrators anything.
func newAzureTenant(t *testing.T, double *azurecluster.Server, operations ...string) *azureTenant {
	t.Helper()
	n := newNamespace(t)
	client := string(uuid.NewUUID())
	a := &azureTenant{
		tenant: n, double: double,
		application: control.Application{Tenant: azureTenantID, ClientID: client},
		vault:       control.Vault{Name: "kv-" + client[:8], Tenant: azureTenantID},
	}
	a.trust(n.namespace, account)
	a.mayDo(operations...)
	a.put("db", "hunter2")
	return a
}

// trust has the application trust a service account, and no other.
func (a *azureTenant) trust(namespace, account string) {
	a.t.Helper()
	a.application.FederatedCredentials = []control.FederatedCredential{{
		Issuer: cluster.Issuer, Subject: "system:serviceaccount:" + namespace + ":" + account,
	}}
	_, err := a.double.Apply(a.t.Context(), control.Document{Applications: []control.Application{a.application}})
	must(a.t, err)
}

// mayDo says what the application may do in the vault.
func (a *azureTenant) mayDo(operations ...string) {
	a.t.Helper()
	a.vault.Grants = []control.Grant{{ClientID: adminClientID, Operations: []string{"*"}}}
	if len(operations) > 0 {
		a.vault.Grants = append(a.vault.Grants, control.Grant{ClientID: a.application.ClientID, Operations: operations})
	}
	_, err := a.double.Apply(a.t.Context(), control.Document{Vaults: []control.Vault{a.vault}})
	must(a.t, err)
}

// put writes a new version of a secret.
func (a *azureTenant) put(name, value string) {
	a.t.Helper()
	_, err := a.double.Apply(a.t.Context(), control.Document{Secrets: []control.Secret{{
		Version: control.Version{Vault: a.vault.Name, Name: name}, Value: &value,
	}}})
	must(a.t, err)
}

// issue makes a new version of the certificate web, which has a chain and, as its
// secret, a PFX.
func (a *azureTenant) issue() control.AppliedCertificate {
	a.t.Helper()
	applied, err := a.double.Apply(a.t.Context(), control.Document{Certificates: []control.Certificate{{
		Version: control.Version{Vault: a.vault.Name, Name: "web"},
		Subject: "CN=web.example", DNSNames: []string{"web.example"}, KeyType: "RSA", ContentType: control.PKCS12,
	}}})
	must(a.t, err)
	return applied.Certificates[0]
}

// annotate gives the service account an identity.
func (a *azureTenant) annotate() {
	a.t.Helper()
	patch := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%q,%q:%q}}}`, clientIDLabel, a.application.ClientID, tenantIDLabel, azureTenantID)
	_, err := shared.client.CoreV1().ServiceAccounts(a.namespace).Patch(a.t.Context(), account, types.MergePatchType, patch, metav1.PatchOptions{})
	must(a.t, err)
}

// dbClass makes a class of the secret db, with further parameters as names and
// values.
func (a *azureTenant) dbClass(parameters ...string) {
	a.t.Helper()
	all := map[string]any{"keyvaultName": a.vault.Name, "objects": "array:\n- |\n  objectName: db\n  objectType: secret\n"}
	for i := 0; i < len(parameters); i += 2 {
		all[parameters[i]] = parameters[i+1]
	}
	a.apply("v1", "app", map[string]any{"provider": "azure", "parameters": all})
}

// ownClass makes a class of the secret db that names the application.
func (a *azureTenant) ownClass() {
	a.t.Helper()
	a.dbClass("tenantID", azureTenantID, "clientID", a.application.ClientID)
}

// requests are those that the double has answered for a client.
func (a *azureTenant) requests(client string) []control.Request {
	a.t.Helper()
	all, err := a.double.Requests(a.t.Context())
	must(a.t, err)
	return slices.DeleteFunc(all, func(r control.Request) bool { return r.ClientID != client })
}
