package pods_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/postern-dev/postern/test/azure/control"
	azurecluster "github.com/postern-dev/postern/test/azure/incluster"
	"github.com/postern-dev/postern/test/otlp"
)

// Users of the Azure provider keep their YAML: what it mounts, what a change in
// the vault becomes, and what Azure sees of it.
func testAzureWalkThrough(t *testing.T, double *azurecluster.Server) {
	a := newAzureTenant(t, double, "secrets/get", "keys/get", "certificates/get")
	a.trust(a.namespace, "workload-identity-sa")
	a.put("secret1", "hunter2")
	first := a.issue()
	apply := shared.cluster.Command(t.Context(), "kubectl", "-n", a.namespace, "apply", "-f", "-")
	apply.Stdin = strings.NewReader(strings.NewReplacer(
		"${CLIENT_ID}", a.application.ClientID, "${TENANT_ID}", azureTenantID, "${VAULT}", a.vault.Name,
	).Replace(azureManifest))
	if _, err := output(apply); err != nil {
		t.Fatal(err)
	}
	kubectl(t, "-n", a.namespace, "rollout", "status", "deployment/busybox-secrets-store-inline", "--timeout=150s")

	a.wantMounted("the YAML's files", "hunter2", first)
	a.wantVersions("cert/web", "key/web", "secret/secret1", "secret/web")
	a.put("secret1", "hunter3")
	second := a.issue()
	a.wantMounted("what is new", "hunter3", second)

	logins := 0
	for _, request := range a.requests(a.application.ClientID) {
		if request.Service == control.Entra && request.Operation == control.Token {
			logins++
		}
		if request.Operation == control.ListVersions || request.Operation == control.List {
			t.Errorf("nobody asked for a list: %+v", request)
		}
	}
	if logins != 1 {
		t.Errorf("%d logins for two pods of one service account, want one", logins)
	}
}

// wantMounted waits until the Deployment's pods read this secret, and the files of
// this certificate, which belong together.
func (a *azureTenant) wantMounted(what, secret string, certificate control.AppliedCertificate) {
	a.t.Helper()
	read := func(ctx context.Context, name string) string {
		out, err := output(shared.cluster.Command(ctx, "kubectl", "-n", a.namespace, "exec", "deploy/busybox-secrets-store-inline", "--",
			"cat", "/mnt/secrets-store/"+name))
		if err != nil {
			return err.Error()
		}
		return out
	}
	eventually(a.t, time.Minute, what, func(ctx context.Context) error {
		if got := read(ctx, "secret1"); got != secret {
			return fmt.Errorf("the pod reads %q, want %q", got, secret)
		}
		web := []byte(read(ctx, "web.pem"))
		pair, err := tls.X509KeyPair(web, web)
		switch {
		case err != nil:
			return fmt.Errorf("web.pem: %w", err)
		case !bytes.HasPrefix(web, []byte("-----BEGIN PRIVATE KEY-----\n")):
			return errors.New("web.pem does not begin with the key")
		case len(pair.Certificate) != 3 || !bytes.Equal(pair.Certificate[0], certificate.CER):
			return fmt.Errorf("web.pem has %d certificates, want three, the new one first", len(pair.Certificate))
		}
		leaf, rest := pem.Decode([]byte(read(ctx, "web-cert")))
		if leaf == nil || !bytes.Equal(leaf.Bytes, certificate.CER) || len(bytes.TrimSpace(rest)) > 0 {
			return errors.New("web-cert is not that certificate alone")
		}
		return belongsTo(read(ctx, "web-key"), pair.Leaf)
	})
}

// belongsTo tells whether a public key in PEM is that of a certificate.
func belongsTo(text string, certificate *x509.Certificate) error {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return fmt.Errorf("the key is %q", text)
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return err
	}
	if !certificate.PublicKey.(interface{ Equal(crypto.PublicKey) bool }).Equal(key) {
		return errors.New("the key is another one's")
	}
	return nil
}

// wantVersions holds the statuses to these objects, and their versions to the
// documented form.
func (a *azureTenant) wantVersions(want ...string) {
	a.t.Helper()
	eventually(a.t, time.Minute, "versions in the statuses", func(ctx context.Context) error {
		list, err := shared.dynamic.Resource(podStatuses()).Namespace(a.namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		if len(list.Items) != 2 {
			return fmt.Errorf("there are %d statuses", len(list.Items))
		}
		for _, item := range list.Items {
			objects, _, err := unstructured.NestedSlice(item.Object, "status", "objects")
			if err != nil {
				return err
			}
			var ids []string
			for _, each := range objects {
				object := each.(map[string]any)
				ids = append(ids, fmt.Sprint(object["id"]))
				if !regexp.MustCompile(`^[0-9a-f]{32}\+[0-9a-f]{8}$`).MatchString(fmt.Sprint(object["version"])) {
					return fmt.Errorf("the version of %s is %s", object["id"], object["version"])
				}
			}
			slices.Sort(ids)
			if !slices.Equal(ids, want) {
				return fmt.Errorf("the objects are %v, want %v", ids, want)
			}
		}
		return nil
	})
}

// A certificate of the vault becomes a Secret that a server can use, and a new
// certificate a new one.
func testAzureTLS(t *testing.T, a *azureTenant) {
	n := *a.tenant
	n.t = t
	a = &azureTenant{tenant: &n, double: a.double, application: a.application, vault: a.vault}
	first := a.issue()
	a.apply("v1", "app", map[string]any{
		"provider": "azure",
		"parameters": map[string]any{
			"keyvaultName": a.vault.Name, "tenantID": azureTenantID, "clientID": a.application.ClientID,
			"objects": "array:\n- |\n  objectName: web\n  objectType: secret\n",
		},
		"secretObjects": []any{map[string]any{
			"secretName": "web-tls", "type": "kubernetes.io/tls",
			"data": []any{map[string]any{"objectName": "web", "key": "tls.crt"}, map[string]any{"objectName": "web", "key": "tls.key"}},
		}},
	})
	a.start(a.pod("web", "app"))
	secret := a.secret("web-tls")
	if secret.Type != corev1.SecretTypeTLS {
		t.Errorf("the Secret is of type %s", secret.Type)
	}
	must(t, serves(t, secret, first))
	second := a.issue()
	eventually(t, time.Minute, "the new certificate", func(context.Context) error {
		return serves(t, a.secret("web-tls"), second)
	})
}

// serves tells whether a server with a Secret of type kubernetes.io/tls shows a
// certificate, which a client verifies by its root.
func serves(t *testing.T, secret *corev1.Secret, certificate control.AppliedCertificate) (err error) {
	t.Helper()
	pair, err := tls.X509KeyPair(secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey])
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	chain := certificate.ChainPEM
	roots.AppendCertsFromPEM([]byte(chain[strings.LastIndex(chain, "-----BEGIN"):]))
	client, server := net.Pipe()
	defer func() { err = errors.Join(err, client.Close(), server.Close()) }()
	served := make(chan error, 1)
	go func() {
		served <- tls.Server(server, &tls.Config{Certificates: []tls.Certificate{pair}}).HandshakeContext(t.Context())
	}()
	conn := tls.Client(client, &tls.Config{RootCAs: roots, ServerName: "web.example"})
	shaken := conn.HandshakeContext(t.Context())
	if shaken != nil {
		must(t, client.Close())
	}
	if err := errors.Join(shaken, <-served); err != nil {
		return err
	}
	if shown := conn.ConnectionState().PeerCertificates[0]; !bytes.Equal(shown.Raw, certificate.CER) {
		return fmt.Errorf("the server shows the certificate %s, want the new one", shown.SerialNumber)
	}
	return nil
}

// A service account's annotations say what a class does not.
func testAzureAnnotation(t *testing.T, double *azurecluster.Server) {
	a := newAzureTenant(t, double, "secrets/get")
	a.annotate()
	a.dbClass()
	a.wantFiles(a.start(a.pod("web", "app")), "app", map[string]string{"db": "hunter2"})
}

// A volume's nodePublishSecretRef names a service principal.
func testAzureServicePrincipal(t *testing.T, double *azurecluster.Server) {
	a := newAzureTenant(t, double, "secrets/get")
	a.application.FederatedCredentials = nil
	a.application.Secrets = []control.ClientSecret{{Value: "s3cret-of-" + a.namespace}}
	_, err := double.Apply(t.Context(), control.Document{Applications: []control.Application{a.application}})
	must(t, err)
	_, err = shared.client.CoreV1().Secrets(a.namespace).Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "principal"},
		StringData: map[string]string{"clientid": a.application.ClientID, "clientsecret": "s3cret-of-" + a.namespace},
	}, metav1.CreateOptions{})
	must(t, err)
	a.dbClass("tenantID", azureTenantID)
	pod := a.pod("web", "app")
	pod.Spec.Volumes[0].CSI.NodePublishSecretRef = &corev1.LocalObjectReference{Name: "principal"}
	a.wantFiles(a.start(pod), "app", map[string]string{"db": "hunter2"})
}

// Spans of the provider's requests.
const (
	readSpan  = "azure get secrets"
	loginSpan = "azure login"
)

// One mount is one trace, from kubelet's call to the requests to Entra and to the
// vault.
func testAzureOneTrace(t *testing.T, double *azurecluster.Server) {
	a := newAzureTenant(t, double, "secrets/get")
	a.ownClass()
	a.start(a.pod("web", "app"))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	trace, err := shared.traces.Wait(ctx, func(trace otlp.Trace) bool {
		root, ok := trace.Find("csi.NodePublishVolume")
		return ok && root.Attributes["k8s.namespace.name"] == a.namespace && trace.Has(readSpan)
	})
	must(t, err)
	t.Logf("\n%s", trace.Tree())
	for _, name := range []string{readSpan, loginSpan} {
		span, ok := trace.Find(name)
		if !ok {
			t.Errorf("the trace has no span %s", name)
			continue
		}
		if ancestors := trace.Ancestors(span); !slices.Contains(ancestors, "provider.Fetch") || !slices.Contains(ancestors, "gateway.Fetch") {
			t.Errorf("%s is below %v", name, ancestors)
		}
	}
	for _, span := range trace.Spans {
		if strings.Contains(span.Text(), "hunter2") || strings.Contains(span.Text(), "eyJ") {
			t.Errorf("span %s holds the secret or a token", span.Name)
		}
	}
}

// Who may write a class gets no identity by it that does not trust its service
// account. What is registered then is enough.
func testAzureNotTrusted(t *testing.T, double *azurecluster.Server) {
	a := newAzureTenant(t, double, "secrets/get")
	a.trust(a.namespace, "somebody-else")
	a.ownClass()
	a.refused("AADSTS700213", "api://AzureADTokenExchange", "system:serviceaccount:"+a.namespace+":"+account, a.application.ClientID)
	a.trust(a.namespace, account)
	a.wantFiles(a.ready("web"), "app", map[string]string{"db": "hunter2"})
}

// What the vault denies is in the pod's event, and what is granted then is enough.
func testAzureRoleMissing(t *testing.T, double *azurecluster.Server) {
	a := newAzureTenant(t, double)
	a.ownClass()
	a.refused("ForbiddenByRbac", "Key Vault Secrets User", "db", a.vault.Name, a.application.ClientID)
	a.mayDo("secrets/get")
	a.wantFiles(a.ready("web"), "app", map[string]string{"db": "hunter2"})
}

// A pod without an identity gets nothing, although the provider could read its
// secret with the credentials in its own environment.
func testAzureNoIdentity(t *testing.T, double *azurecluster.Server) {
	a := newAzureTenant(t, double, "secrets/get")
	a.dbClass("tenantID", azureTenantID)
	a.refused(clientIDLabel, account)
	if requests := a.requests(adminClientID); len(requests) > 0 {
		t.Errorf("the provider used the credentials of its environment: %+v", requests)
	}
}

// The node's identity is nobody's who is not named.
func testAzureNodeIdentity(t *testing.T, double *azurecluster.Server) {
	a := newAzureTenant(t, double, "secrets/get")
	_, err := double.Apply(t.Context(), control.Document{Identities: []control.Identity{{
		Tenant: azureTenantID, ClientID: adminClientID, System: true,
	}}})
	must(t, err)
	a.dbClass("tenantID", azureTenantID, "useVMManagedIdentity", "true")
	a.refused("useVMManagedIdentity", a.namespace, "azure.managedIdentity.namespaces")
	all, err := double.Requests(t.Context())
	must(t, err)
	for _, request := range all {
		if request.Service == control.IMDS {
			t.Errorf("the node's metadata service was asked: %+v", request)
		}
	}
}
