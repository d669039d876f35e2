package interop_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/postern-dev/postern/test/kubelet"
	"github.com/postern-dev/postern/test/openbao"
	"github.com/postern-dev/postern/test/tenant"
)

// The upstream driver 1.6.0 mounts through Postern's providers: what a cluster
// runs that moves over provider by provider.
func TestUpstreamDriverWithPosternsProviders(t *testing.T) {
	t.Parallel()
	n := startUpstreamNode(t)
	for name, test := range map[string]func(*testing.T, *upstreamNode){
		"walk-through":         testWalkThrough,
		"files and modes":      testFilesAndModes,
		"status":               testStatus,
		"tokens in secrets":    testTokensInSecrets,
		"without tokens":       testWithoutTokens,
		"two pods":             testTwoPods,
		"two service accounts": testTwoServiceAccounts,
		"file provider":        testFileProvider,
		"synced secret":        testSyncedSecret,
		"errors":               testErrors,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, n)
		})
	}
}

// walkThroughClass is the class of the walk-through that users of the Vault
// provider find; %s is Vault's address.
const walkThroughClass = `
apiVersion: secrets-store.csi.x-k8s.io/v1
kind: SecretProviderClass
metadata:
  name: mycsispc
spec:
  provider: vault
  parameters:
    roleName: mycsirole
    vaultAddress: %s
    objects: |
      - objectName: "myUsername"
        secretPath: "secret/data/app"
        secretKey: "username"
      - objectName: "myPassword"
        secretPath: "secret/data/app"
        secretKey: "password"
`

// testWalkThrough does what the walk-through's reader does, whose role in Vault
// names no audience.
func testWalkThrough(t *testing.T, n *upstreamNode) {
	ctx := t.Context()
	const account = "mycsiserviceaccount"
	must(t, servers.Bao.PutSecret(ctx, "app", map[string]any{"username": "admin", "password": "p4ssw0rd"}))
	must(t, servers.Bao.PutPolicy(ctx, "mycsipolicy", `path "secret/data/app" { capabilities = ["read"] }`))
	must(t, servers.Bao.PutRole(ctx, openbao.Role{
		Name: "mycsirole", Namespace: "default", ServiceAccount: account, Policies: []string{"mycsipolicy"},
	}))
	must(t, servers.API.EnsureServiceAccount(ctx, "default", account))
	must(t, servers.API.Apply(ctx, fmt.Sprintf(walkThroughClass, servers.Bao.Address)))
	v := newPod(t, tenant.Of(servers.Stack, "default", account), "mycsiapp", "mycsispc", "vault")
	n.publish(t, v)
	if diff := cmp.Diff(map[string]string{"myUsername": "admin", "myPassword": "p4ssw0rd"}, contents(t, n.Kubelet, v)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	for _, name := range []string{"myUsername", "myPassword"} {
		if link, err := os.Readlink(filepath.Join(n.Kubelet.Target(v), name)); err != nil || link != "..data/"+name {
			t.Errorf("%s is a link to %q (%v), want ..data/%s", name, link, err, name)
		}
	}
}

func testFilesAndModes(t *testing.T, n *upstreamNode) {
	shop := newTenant(t)
	must(t, shop.PutSecret(t.Context(), "app", map[string]any{"username": "bob", "key": "AAH/", "limits": map[string]any{"calls": 7}}))
	must(t, shop.VaultClass(t.Context(), "app", shop.Object("username", "app", "username")+
		shop.Object("tls/tls.key", "app", "key", "filePermission: 0400", "encoding: base64")+
		shop.Object("limits.json", "app", "limits", `filePermission: "0640"`), nil))
	v := newPod(t, shop, "web", "app", tenant.Audience)
	n.publish(t, v)
	files, err := n.Kubelet.Files(v)
	must(t, err)
	want := map[string]kubelet.File{
		"username":    {Mode: 0o644, Contents: "bob"},
		"tls/tls.key": {Mode: 0o400, Contents: "\x00\x01\xff"},
		"limits.json": {Mode: 0o640, Contents: `{"calls":7}`},
	}
	if diff := cmp.Diff(want, files); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

func testStatus(t *testing.T, n *upstreamNode) {
	shop := newTenant(t)
	oneSecret(t, shop, "hunter2")
	v := newPod(t, shop, "web", "app", tenant.Audience)
	n.publish(t, v)
	got := n.status(t, v, func(podStatus) bool { return true })
	version := got.version("password")
	if version == "" || strings.Contains(version, "hunter2") {
		t.Errorf("the version of the object is %q, want one that says nothing of its content", version)
	}
	want := podStatus{
		PodName: "web", SecretProviderClassName: "app", TargetPath: n.Kubelet.Target(v), Mounted: true,
		Objects: []struct{ ID, Version string }{{"password", version}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
}

// With serviceAccountTokenInSecrets the upstream driver passes the tokens on
// twice: among the attributes and as a secret.
func testTokensInSecrets(t *testing.T, n *upstreamNode) {
	shop := newTenant(t)
	oneSecret(t, shop, "hunter2")
	v := newPod(t, shop, "web", "app", tenant.Audience, "elsewhere")
	v.TokensInSecrets = true
	n.publish(t, v)
	n.wantPassword(t, v, "hunter2")
}

// Two pods of a service account at once have the same content, each with a
// token of its own.
func testTwoPods(t *testing.T, n *upstreamNode) {
	shop := newTenant(t)
	oneSecret(t, shop, "hunter2")
	one, two := newPod(t, shop, "one", "app", tenant.Audience), newPod(t, shop, "two", "app", tenant.Audience)
	n.publish(t, one)
	n.publish(t, two)
	n.wantPassword(t, one, "hunter2")
	n.unpublish(t, one)
	n.wantPassword(t, two, "hunter2")
}

// The upstream driver is installed without tokenRequests as a rule: the provider
// says what to add.
func testWithoutTokens(t *testing.T, n *upstreamNode) {
	shop := newTenant(t)
	oneSecret(t, shop, "hunter2")
	answer := n.publishFails(t, newPod(t, shop, "web", "app"))
	want := `{…}no service account token for audience "vault": add the audience to the tokenRequests of the CSIDriver object ` +
		`secrets-store.csi.k8s.io{…}`
	if status.Code(answer) != codes.FailedPrecondition || !matches(want, answer.Error()) {
		t.Errorf("%v\nwant FailedPrecondition and %s", answer, want)
	}
}

// What one service account may read, another gets by no class.
func testTwoServiceAccounts(t *testing.T, n *upstreamNode) {
	web := newTenant(t)
	oneSecret(t, web, "of web")
	worker, err := tenant.New(t.Context(), servers.Stack, web.Namespace, "worker")
	must(t, err)
	must(t, worker.PutSecret(t.Context(), "app", map[string]any{"password": "of worker"}))
	must(t, worker.VaultClass(t.Context(), "workers", worker.Object("password", "app", "password"), nil))
	first, second := newPod(t, web, "web", "app", tenant.Audience), newPod(t, worker, "worker", "workers", tenant.Audience)
	n.publish(t, first)
	n.publish(t, second)
	n.wantPassword(t, first, "of web")
	n.wantPassword(t, second, "of worker")
	thief := newPod(t, worker, "thief", "app", tenant.Audience)
	if answer := n.publishFails(t, thief); status.Code(answer) != codes.Unauthenticated {
		t.Errorf("another service account's class: %v, want Unauthenticated", answer)
	}
}

func testFileProvider(t *testing.T, n *upstreamNode) {
	shop := newTenant(t)
	dir := filepath.Join(n.store, shop.Namespace)
	must(t, os.MkdirAll(dir, 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "password"), []byte("hunter2"), 0o600))
	must(t, shop.Class(t.Context(), "app", "file", map[string]string{"objects": `- {objectName: password, filePermission: "0440"}`}))
	v := newPod(t, shop, "web", "app")
	n.publish(t, v)
	files, err := n.Kubelet.Files(v)
	must(t, err)
	if diff := cmp.Diff(map[string]kubelet.File{"password": {Mode: 0o440, Contents: "hunter2"}}, files); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

// testSyncedSecret: the upstream driver makes a Kubernetes Secret of what
// Postern's provider gave it.
func testSyncedSecret(t *testing.T, n *upstreamNode) {
	shop := newTenant(t)
	must(t, shop.PutSecret(t.Context(), "app", map[string]any{"password": "hunter2"}))
	class, err := yaml.Marshal(map[string]any{
		"apiVersion": "secrets-store.csi.x-k8s.io/v1", "kind": "SecretProviderClass",
		"metadata": map[string]any{"name": "app", "namespace": shop.Namespace},
		"spec": map[string]any{
			"provider": "vault",
			"parameters": map[string]any{
				"roleName": shop.Role(), "vaultAddress": servers.Bao.Address, "objects": shop.Object("password", "app", "password"),
			},
			"secretObjects": []any{map[string]any{
				"secretName": "synced", "type": "Opaque", "data": []any{map[string]any{"objectName": "password", "key": "pw"}},
			}},
		},
	})
	must(t, err)
	must(t, servers.API.Apply(t.Context(), string(class)))
	n.publish(t, newPod(t, shop, "web", "app", tenant.Audience))
	eventually(t, n.Process, func(ctx context.Context) error {
		secret, err := servers.API.Client.CoreV1().Secrets(shop.Namespace).Get(ctx, "synced", metav1.GetOptions{})
		if err == nil && string(secret.Data["pw"]) != "hunter2" {
			err = fmt.Errorf("its keys are %q", slices.Sorted(maps.Keys(secret.Data)))
		}
		return err
	})
}

// testErrors finds the code and the text of Postern's provider in the upstream
// driver's error, and nothing mounted.
func testErrors(t *testing.T, n *upstreamNode) {
	shop := newTenant(t)
	must(t, shop.PutSecret(t.Context(), "app", map[string]any{"password": "hunter2"}))
	own := shop.Object("password", "app", "password")
	for name, test := range map[string]struct {
		objects    string
		parameters map[string]string
		wantCode   codes.Code
		wantText   string
	}{
		"no-such-role": {
			own,
			map[string]string{"roleName": "nobody"},
			codes.Unauthenticated, `failed to login to {…} at auth/kubernetes with role "nobody" as service account {…}/web: {…}Check that`,
		},
		"path-denied": {
			strings.ReplaceAll(own, shop.Role(), "others"), nil,
			codes.PermissionDenied, `object "password": couldn't read secret "secret/data/others/app": HTTP status 403: {…}must allow "read" on`,
		},
		"key-missing": {
			shop.Object("password", "app", "none"), nil,
			codes.NotFound, `key "none" does not exist at the secret path`,
		},
		"objects-broken": {
			"- objectName: [", nil,
			codes.InvalidArgument, `objects: is not valid YAML`,
		},
		"store-down": {
			own,
			map[string]string{"vaultAddress": "http://127.0.0.1:1"},
			codes.Unavailable, `http://127.0.0.1:1 cannot be reached`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			must(t, shop.VaultClass(t.Context(), name, test.objects, test.parameters))
			v := newPod(t, shop, name, name, tenant.Audience)
			answer := n.publishFails(t, v)
			if got := status.Code(answer); got != test.wantCode {
				t.Errorf("code %s, want %s", got, test.wantCode)
			}
			if want := "{…}" + test.wantText + "{…}"; !matches(want, answer.Error()) {
				t.Errorf("text\n%s\nwant\n%s", answer, want)
			}
			if mounts, err := kubelet.Mounts(n.Kubelet.Target(v)); err != nil || len(mounts) > 0 {
				t.Errorf("mounted: %v (%v), want nothing", mounts, err)
			}
		})
	}
}

// With rotation on, what changes in the store reaches a mounted volume and its
// status with a republish, and a failure leaves the volume as it was.
func TestUpstreamDriverRotatesThroughPosternsProvider(t *testing.T) {
	t.Parallel()
	// The interval is counted from the volume's last change.
	n := startUpstreamNode(t, "--enable-secret-rotation=true", "--rotation-poll-interval=1ms")
	shop := newTenant(t)
	oneSecret(t, shop, "first")
	v := newPod(t, shop, "web", "app", tenant.Audience)
	n.publish(t, v)
	n.wantPassword(t, v, "first")
	before := n.status(t, v, func(podStatus) bool { return true })

	oneSecret(t, shop, "second")
	n.republish(t, v, "second")
	after := n.status(t, v, func(s podStatus) bool { return s.version("password") != before.version("password") })
	if after.version("password") == "" {
		t.Errorf("status %+v has no version of the new content", after)
	}

	// A provider that is started anew serves a volume that it has not mounted.
	n.vault.Kill()
	n.vault.start(t)
	oneSecret(t, shop, "third")
	n.republish(t, v, "third")

	must(t, shop.VaultClass(t.Context(), "app", shop.Object("password", "app", "password"), map[string]string{"roleName": "nobody"}))
	eventually(t, n.Process, func(ctx context.Context) error {
		if err := n.Kubelet.Publish(ctx, v); err != nil {
			t.Errorf("republish: %v", err)
		}
		metrics, err := n.ReadMetrics(ctx)
		if err == nil && !regexp.MustCompile(`(?m)^rotation_reconcile_error_total\{.*provider="vault".*\} [1-9]`).MatchString(metrics) {
			err = fmt.Errorf("rotation_reconcile_error_total does not count the failure")
		}
		return err
	})
	n.wantPassword(t, v, "third")
}

// oneSecret writes the tenant's secret and the class "app" of it.
func oneSecret(t *testing.T, of *tenant.Tenant, password string) {
	t.Helper()
	must(t, of.PutSecret(t.Context(), "app", map[string]any{"password": password}))
	must(t, of.VaultClass(t.Context(), "app", of.Object("password", "app", "password"), nil))
}

// republish publishes the mounted volume, as kubelet does about every minute,
// until it has this password.
func (n *upstreamNode) republish(t *testing.T, v kubelet.Volume, password string) {
	t.Helper()
	eventually(t, n.Process, func(ctx context.Context) error {
		if err := n.Kubelet.Publish(ctx, v); err != nil {
			return err
		}
		got, err := readFiles(n.Kubelet, v)
		if err == nil && got["password"] != password {
			err = fmt.Errorf("the password is still %q", got["password"])
		}
		return err
	})
	mounts, err := kubelet.Mounts(n.Kubelet.Target(v))
	must(t, err)
	if len(mounts) != 1 {
		t.Errorf("%d mounts at the target, want 1", len(mounts))
	}
}

func (n *upstreamNode) wantPassword(t *testing.T, v kubelet.Volume, want string) {
	t.Helper()
	if diff := cmp.Diff(map[string]string{"password": want}, contents(t, n.Kubelet, v)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

// matches compares the texts, where {…} in want stands for anything.
func matches(want, got string) bool {
	parts := strings.Split(want, "{…}")
	for i, part := range parts {
		parts[i] = regexp.QuoteMeta(part)
	}
	return regexp.MustCompile(`(?s)\A` + strings.Join(parts, ".*") + `\z`).MatchString(got)
}
