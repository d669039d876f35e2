package pods_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
)

// eventSecretFailed is what a pod is told when a Secret could not be made.
const eventSecretFailed = "FailedToCreateSecret"

// testSync is about Kubernetes Secrets that are made of a class's files, in
// namespaces that are open for them.
func testSync(t *testing.T) {
	dumpIfFailed(t, system)
	tests := []struct {
		name   string
		secret map[string]any
		run    func(*tenant)
		closed bool
	}{
		{name: "Unchanged", secret: map[string]any{"password": "old"}, run: testSyncUnchanged},
		{name: "Types", secret: syncedTypes(t), run: testSyncTypes},
		{name: "SomebodyElses", secret: map[string]any{"password": "hunter2"}, run: testSyncSomebodyElses},
		{name: "NotAskedForAnyMore", secret: map[string]any{"password": "hunter2"}, run: testSyncNotAskedForAnyMore},
		{name: "ClosedNamespace", secret: map[string]any{"password": "hunter2"}, run: testSyncClosedNamespace, closed: true},
		{name: "Deployment", secret: map[string]any{"password": "hunter2"}, run: testSyncDeployment},
	}
	tenants := map[string]*tenant{}
	var open []string
	for _, test := range tests {
		n := newTenant(t, test.secret)
		tenants[test.name] = n
		if !test.closed {
			open = append(open, n.namespace)
		}
	}
	openForSecrets(t, open...)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			n := *tenants[test.name]
			n.t = t
			dumpIfFailed(t, n.namespace)
			test.run(&n)
		})
	}
}

// openForSecrets opens namespaces until the test ends.
func openForSecrets(t *testing.T, namespaces ...string) {
	t.Helper()
	t.Cleanup(func() { // before the namespaces go: a Role cannot be without one
		if err := shared.postern.Upgrade(context.WithoutCancel(t.Context()), "driver.syncSecret.namespaces=null"); err != nil {
			t.Errorf("close the namespaces: %v", err)
		}
	})
	must(t, shared.postern.Upgrade(t.Context(), "driver.syncSecret.namespaces={"+strings.Join(namespaces, ",")+"}"))
}

// syncedClass makes a class of all keys of the tenant's secret, which is
// refreshed so often and asks for these Secrets.
func (n *tenant) syncedClass(interval string, keys []string, objects ...map[string]any) {
	n.t.Helper()
	spec := n.vaultSpec(keys...)
	spec["parameters"].(map[string]any)["rotationPollInterval"] = interval
	if len(objects) > 0 {
		spec["secretObjects"] = objects
	}
	n.apply("v1", "app", spec)
}

// dbSecret is a secretObject of the file password.
func dbSecret() map[string]any {
	return map[string]any{
		"secretName": "db", "labels": map[string]any{"team": "blue"},
		"data": []map[string]any{{"objectName": "password", "key": "password"}},
	}
}

func (n *tenant) secret(name string) *corev1.Secret {
	n.t.Helper()
	secret, err := shared.client.CoreV1().Secrets(n.namespace).Get(n.t.Context(), name, metav1.GetOptions{})
	must(n.t, err)
	return secret
}

func (n *tenant) eventuallyNoSecret(name string) {
	n.t.Helper()
	eventually(n.t, time.Minute, "Secret "+name+" to be gone", func(ctx context.Context) error {
		_, err := shared.client.CoreV1().Secrets(n.namespace).Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return errors.Join(errors.New("it is there"), err)
	})
}

// history is what becomes of a Secret while a test runs.
type history struct {
	n *tenant

	mu     sync.Mutex
	events []watch.EventType
}

// watchSecret notes what becomes of a Secret from now on.
func (n *tenant) watchSecret(name string) *history {
	n.t.Helper()
	list, err := shared.client.CoreV1().Secrets(n.namespace).List(n.t.Context(), metav1.ListOptions{})
	must(n.t, err)
	anHour := int64(3600)
	watcher, err := shared.client.CoreV1().Secrets(n.namespace).Watch(n.t.Context(), metav1.ListOptions{
		ResourceVersion: list.ResourceVersion, TimeoutSeconds: &anHour,
		FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, name).String(),
	})
	must(n.t, err)
	h := &history{n: n}
	var done sync.WaitGroup
	done.Go(func() {
		for event := range watcher.ResultChan() {
			h.mu.Lock()
			h.events = append(h.events, event.Type)
			h.mu.Unlock()
		}
	})
	n.t.Cleanup(func() {
		watcher.Stop()
		done.Wait()
	})
	return h
}

// want waits until just these things have become of the Secret.
func (h *history) want(events ...watch.EventType) {
	h.n.t.Helper()
	eventually(h.n.t, time.Minute, "what becomes of the Secret", func(context.Context) error {
		h.mu.Lock()
		defer h.mu.Unlock()
		if !slices.Equal(h.events, events) {
			return fmt.Errorf("it was %v, want %v", h.events, events)
		}
		return nil
	})
}

// refreshed waits until the tenant's volumes were refreshed so many times more.
func (n *tenant) refreshed(times int) {
	n.t.Helper()
	count := func() (count int) {
		for _, trace := range shared.traces.Traces() {
			span, ok := trace.Find("driver.RefreshVolume")
			if ok && span.Attributes["k8s.namespace.name"] == n.namespace && trace.Complete() {
				count++
			}
		}
		return count
	}
	before := count()
	eventually(n.t, 5*time.Minute, "refreshes", func(context.Context) error {
		if made := count() - before; made < times {
			return fmt.Errorf("there were %d, want %d", made, times)
		}
		return nil
	})
}

// What does not change in the store is not written, however often it is fetched,
// and what changes is written once.
func testSyncUnchanged(n *tenant) {
	const rounds = 20
	n.syncedClass("2s", []string{"password"}, dbSecret())
	pod := n.start(n.pod("web", "app"))
	n.refreshed(1)
	before, revisions, statuses := n.secret("db"), n.revisions([]*corev1.Pod{pod}), n.statusVersions()
	became := n.watchSecret("db")
	n.refreshed(rounds)
	became.want()
	if now := n.secret("db"); now.ResourceVersion != before.ResourceVersion {
		n.t.Errorf("after %d refreshes that changed nothing the Secret's resourceVersion went from %s to %s", rounds, before.ResourceVersion, now.ResourceVersion)
	}
	if now := n.statusVersions(); !maps.Equal(now, statuses) {
		n.t.Errorf("after %d refreshes that changed nothing the statuses' resourceVersions went from %v to %v", rounds, statuses, now)
	}
	if now := n.revisions([]*corev1.Pod{pod}); !maps.Equal(now, revisions) {
		n.t.Errorf("after %d refreshes that changed nothing the volume was written", rounds)
	}

	n.putSecret(map[string]any{"password": "new"})
	n.eventuallyFiles(pod, "app", map[string]string{"password": "new"})
	n.refreshed(3)
	became.want(watch.Modified)
	if got := string(n.secret("db").Data["password"]); got != "new" {
		n.t.Errorf("the Secret holds %q, want what is new", got)
	}
	if event := eventOf(n.t, pod, "SecretRotationComplete"); !strings.Contains(event.Message, "db") {
		n.t.Errorf("event %q, want it to name the Secret", event.Message)
	}
}

// syncedTypes is a secret of what Secrets of all types need. Its certificates
// are in the wrong order.
func syncedTypes(t *testing.T) map[string]any {
	t.Helper()
	sign := func(name string, ca *x509.Certificate, signer ed25519.PrivateKey) (*x509.Certificate, ed25519.PrivateKey) {
		public, key, err := ed25519.GenerateKey(rand.Reader)
		must(t, err)
		template := &x509.Certificate{
			SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: ca == nil, BasicConstraintsValid: true,
		}
		if ca == nil {
			ca, signer = template, key
		}
		der, err := x509.CreateCertificate(rand.Reader, template, ca, public, signer)
		must(t, err)
		certificate, err := x509.ParseCertificate(der)
		must(t, err)
		return certificate, key
	}
	ca, caKey := sign("ca", nil, nil)
	leaf, key := sign("shop.example", ca, caKey)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	text := func(label string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: label, Bytes: der}))
	}
	return map[string]any{
		"web.pem": text("PRIVATE KEY", keyDER) + text("CERTIFICATE", ca.Raw) + text("CERTIFICATE", leaf.Raw),
		"docker":  `{"auths":{}}`, "username": "bob", "password": "hunter2", "ssh": "a key",
	}
}

// The real API server takes Secrets of all types that it checks.
func testSyncTypes(n *tenant) {
	data := func(secretType string, pairs ...string) map[string]any {
		var entries []map[string]any
		for i := 0; i < len(pairs); i += 2 {
			entries = append(entries, map[string]any{"objectName": pairs[i], "key": pairs[i+1]})
		}
		name := strings.ToLower(secretType[strings.LastIndex(secretType, "/")+1:])
		return map[string]any{"secretName": name, "type": secretType, "data": entries}
	}
	n.syncedClass("1m", []string{"web.pem", "docker", "username", "password", "ssh"},
		data("kubernetes.io/tls", "web.pem", "tls.crt", "web.pem", "tls.key", "web.pem", "ca.crt"),
		data("kubernetes.io/dockerconfigjson", "docker", ".dockerconfigjson"),
		data("kubernetes.io/basic-auth", "username", "username", "password", "password"),
		data("kubernetes.io/ssh-auth", "ssh", "ssh-privatekey"),
		map[string]any{"secretName": "everything", "dataFrom": []map[string]any{{}}},
		map[string]any{"secretName": "login", "dataFrom": []map[string]any{{"files": "*word", "keyPrefix": "app."}}},
	)
	n.start(n.pod("web", "app"))
	for name, want := range map[string]corev1.SecretType{
		"dockerconfigjson": corev1.SecretTypeDockerConfigJson, "basic-auth": corev1.SecretTypeBasicAuth, "ssh-auth": corev1.SecretTypeSSHAuth,
		"everything": corev1.SecretTypeOpaque, "login": corev1.SecretTypeOpaque, "tls": corev1.SecretTypeTLS,
	} {
		if got := n.secret(name).Type; got != want {
			n.t.Errorf("Secret %s is of type %s, want %s", name, got, want)
		}
	}
	web := n.secret("tls")
	pair, err := tls.X509KeyPair(web.Data["tls.crt"], web.Data["tls.key"])
	must(n.t, err)
	if len(pair.Certificate) != 2 || pair.Leaf.Subject.CommonName != "shop.example" {
		n.t.Errorf("tls.crt has %d certificates, the first of %s, want 2, that of shop.example first", len(pair.Certificate), pair.Leaf.Subject)
	}
	if got := slices.Sorted(maps.Keys(n.secret("everything").Data)); !slices.Equal(got, []string{"docker", "password", "ssh", "username", "web.pem"}) {
		n.t.Errorf("Secret everything has the keys %v", got)
	}
	if got := n.secret("login").Data; len(got) != 1 || string(got["app.password"]) != "hunter2" {
		n.t.Errorf("Secret login has %d keys and %q", len(got), got["app.password"])
	}
}

// A Secret that is somebody else's stays as it is, and the pod is told. When it
// is gone, the driver makes its own.
func testSyncSomebodyElses(n *tenant) {
	secrets := shared.client.CoreV1().Secrets(n.namespace)
	_, err := secrets.Create(n.t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "db"}, StringData: map[string]string{"password": "mine"},
	}, metav1.CreateOptions{})
	must(n.t, err)
	before := n.secret("db")
	n.syncedClass("2s", []string{"password"}, dbSecret())
	pod := n.start(n.pod("web", "app"))
	n.wantFiles(pod, "app", map[string]string{"password": "hunter2"})
	if event := eventOf(n.t, pod, eventSecretFailed); event.Type != corev1.EventTypeWarning ||
		!strings.Contains(event.Message, "Secret db: it exists and is someone else's") {
		n.t.Errorf("event %s %q, want a warning that the Secret is someone else's", event.Type, event.Message)
	}
	n.refreshed(3)
	if now := n.secret("db"); now.ResourceVersion != before.ResourceVersion {
		n.t.Errorf("the Secret of somebody else was written: %v", now.ManagedFields)
	}
	must(n.t, secrets.Delete(n.t.Context(), "db", metav1.DeleteOptions{}))
	eventually(n.t, time.Minute, "a Secret of the driver's", func(ctx context.Context) error {
		secret, err := secrets.Get(ctx, "db", metav1.GetOptions{})
		if err == nil && string(secret.Data["password"]) != "hunter2" {
			err = errors.New("it holds something else")
		}
		return err
	})
}

// A Secret that the class does not ask for any more is deleted, others stay.
func testSyncNotAskedForAnyMore(n *tenant) {
	other := dbSecret()
	other["secretName"] = "other"
	n.syncedClass("2s", []string{"password"}, dbSecret(), other)
	n.start(n.pod("web", "app"))
	before := n.secret("db")
	n.syncedClass("2s", []string{"password"}, dbSecret())
	n.eventuallyNoSecret("other")
	if now := n.secret("db"); now.UID != before.UID {
		n.t.Error("the Secret that the class still asks for is another")
	}
	n.syncedClass("2s", []string{"password"})
	n.eventuallyNoSecret("db")
}

// In a namespace that is not open the pod starts, and is told what to do; the
// driver has no right on Secrets there.
func testSyncClosedNamespace(n *tenant) {
	n.syncedClass("2s", []string{"password"}, dbSecret())
	pod := n.start(n.pod("web", "app"))
	n.wantFiles(pod, "app", map[string]string{"password": "hunter2"})
	event := eventOf(n.t, pod, eventSecretFailed)
	for _, want := range []string{"namespace " + n.namespace, "driver.syncSecret.namespaces"} {
		if !strings.Contains(event.Message, want) {
			n.t.Errorf("event %q, want it to name %q", event.Message, want)
		}
	}
	n.refreshed(3)
	list, err := shared.client.CoreV1().Secrets(n.namespace).List(n.t.Context(), metav1.ListOptions{})
	must(n.t, err)
	if len(list.Items) > 0 {
		n.t.Errorf("there is a Secret %s", list.Items[0].Name)
	}
	for _, verb := range []string{"get", "list", "watch", "create", "update", "patch", "delete"} {
		review, err := shared.client.AuthorizationV1().SubjectAccessReviews().Create(n.t.Context(), &authorizationv1.SubjectAccessReview{
			Spec: authorizationv1.SubjectAccessReviewSpec{
				User: "system:serviceaccount:" + system + ":" + driverAccount(n.t),
				ResourceAttributes: &authorizationv1.ResourceAttributes{
					Namespace: n.namespace, Verb: verb, Resource: "secrets",
				},
			},
		}, metav1.CreateOptions{})
		must(n.t, err)
		if review.Status.Allowed {
			n.t.Errorf("the driver may %s Secrets in a namespace that is not open: %s", verb, review.Status.Reason)
		}
	}
}

// driverAccount is the service account of the driver's pods.
func driverAccount(t *testing.T) string {
	t.Helper()
	list, err := shared.client.CoreV1().Pods(system).List(t.Context(), metav1.ListOptions{LabelSelector: "app=secrets-store-csi-driver"})
	must(t, err)
	if len(list.Items) == 0 {
		t.Fatal("the driver has no pod")
	}
	return list.Items[0].Spec.ServiceAccountName
}
