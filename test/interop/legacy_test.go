package interop_test

import (
	"context"
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/postern-dev/postern/test/kubelet"
)

// A provider made for the upstream driver, on a socket that only root can
// connect to, serves through a gateway without privileges.
func TestProviderOfTheUpstreamDriver(t *testing.T) {
	t.Parallel()
	n := startPosternNode(t)
	p := startLegacy(t, n.etc, "upstream")
	for name, test := range map[string]func(*testing.T, *posternNode, *legacyProvider){
		"request":                  testRequest,
		"request without tokens":   testRequestWithoutTokens,
		"node publish secret":      testNodePublishSecret,
		"answers that are refused": testRefusedAnswers,
		"failures":                 testFailures,
		"one call for each mount":  testOneCall,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, n, p)
		})
	}
}

// testRequest holds all that the provider is sent against what the upstream
// driver would send.
func testRequest(t *testing.T, n *posternNode, p *legacyProvider) {
	shop := newTenant(t)
	must(t, shop.Class(t.Context(), "app", "upstream", map[string]string{"greeting": "hello", "objects": "- {a: 1}\n"}))
	v := newPod(t, shop, "web", "app", "vault", "sts.amazonaws.com")
	n.publish(t, v)
	got := contents(t, n.Kubelet, v)
	if diff := cmp.Diff(wantAttributes(v, map[string]string{"greeting": "hello", "objects": "- {a: 1}\n"}),
		decode[map[string]string](t, got["request/attributes"]), compareTokens(t)); diff != "" {
		t.Errorf("attributes (-want +got):\n%s", diff)
	}
	for name, want := range map[string]string{
		"authority":              "localhost",
		"secrets":                "null",
		"permission":             "420",
		"target_path":            n.Kubelet.Target(v),
		"current_object_version": "0",
		"socket":                 p.cfg.Args[0],
	} {
		if got := got["request/"+name]; got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	files, err := n.Kubelet.Files(v)
	must(t, err)
	if mode := files["greeting"].Mode; mode != 0o644 || files["greeting"].Contents != "hello" {
		t.Errorf("file greeting is %q with mode %v, want hello with the mode of the permission", files["greeting"].Contents, mode)
	}
}

// wantAttributes are the class's parameters and kubelet's volume context.
func wantAttributes(v kubelet.Volume, parameters map[string]string) map[string]string {
	want := map[string]string{
		"csi.storage.k8s.io/pod.name":            v.Pod,
		"csi.storage.k8s.io/pod.namespace":       v.Namespace,
		"csi.storage.k8s.io/pod.uid":             v.UID,
		"csi.storage.k8s.io/serviceAccount.name": v.ServiceAccount,
		"csi.storage.k8s.io/ephemeral":           "true",
		"secretProviderClass":                    v.SecretProviderClass,
	}
	if v.Tokens != "" {
		want[kubelet.TokensKey] = v.Tokens
	}
	for name, value := range parameters {
		want[name] = value
	}
	return want
}

// compareTokens compares the tokens as JSON: field by field.
func compareTokens(t *testing.T) cmp.Option {
	return cmp.FilterPath(func(p cmp.Path) bool {
		index, ok := p.Last().(cmp.MapIndex)
		return ok && index.Key().String() == kubelet.TokensKey
	}, cmp.Comparer(func(a, b string) bool {
		type tokens map[string]struct {
			Token               string
			ExpirationTimestamp time.Time
		}
		return cmp.Equal(decode[tokens](t, a), decode[tokens](t, b))
	}))
}

func decode[T any](t *testing.T, text string) (value T) {
	t.Helper()
	must(t, json.Unmarshal([]byte(text), &value))
	return value
}

// testRequestWithoutTokens: a provider with an identity of its own needs none.
func testRequestWithoutTokens(t *testing.T, n *posternNode, _ *legacyProvider) {
	shop := newTenant(t)
	must(t, shop.Class(t.Context(), "app", "upstream", map[string]string{"greeting": "hello"}))
	v := newPod(t, shop, "web", "app")
	n.publish(t, v)
	got := decode[map[string]string](t, contents(t, n.Kubelet, v)["request/attributes"])
	if diff := cmp.Diff(wantAttributes(v, map[string]string{"greeting": "hello"}), got); diff != "" {
		t.Errorf("attributes (-want +got):\n%s", diff)
	}
}

// testNodePublishSecret: the secrets are the pod's alone, also where kubelet
// puts the tokens beside them, which providers know as an attribute.
func testNodePublishSecret(t *testing.T, n *posternNode, _ *legacyProvider) {
	shop := newTenant(t)
	must(t, shop.Class(t.Context(), "app", "upstream", map[string]string{"greeting": "hello"}))
	v := newPod(t, shop, "web", "app", "vault")
	v.TokensInSecrets = true
	req := n.Kubelet.Request(v)
	req.Secrets["clientid"], req.Secrets["clientsecret"] = "me", `"quoted"`
	t.Cleanup(func() { n.unpublish(t, v) })
	must(t, n.Kubelet.PublishRequest(t.Context(), req))
	got := contents(t, n.Kubelet, v)
	want := map[string]string{"clientid": "me", "clientsecret": `"quoted"`}
	if diff := cmp.Diff(want, decode[map[string]string](t, got["request/secrets"])); diff != "" {
		t.Errorf("secrets (-want +got):\n%s", diff)
	}
	attributes := decode[map[string]string](t, got["request/attributes"])
	if diff := cmp.Diff(wantAttributes(v, map[string]string{"greeting": "hello"}), attributes, compareTokens(t)); diff != "" {
		t.Errorf("attributes (-want +got):\n%s", diff)
	}
}

// testRefusedAnswers: an answer that is no volume is an error that says what to
// do, and never a volume without files.
func testRefusedAnswers(t *testing.T, n *posternNode, _ *legacyProvider) {
	for name, test := range map[string]refusal{
		"no-files": {
			map[string]string{"answer": "no files"},
			codes.Internal,
			"the answer has no files, so the provider wrote them into the volume itself, which is not supported: " +
				"turn on driver-writes-secrets in the provider (for AWS: --driver-writes-secrets=true)",
		},
		"no-objects": {
			map[string]string{"answer": "no objects"}, codes.Internal, "the answer has no object versions",
		},
		"error-code": {
			map[string]string{"answer": "error", "code": "SecretsStoreProviderError"},
			codes.Internal,
			`the provider failed with error code "SecretsStoreProviderError": see its log`,
		},
		"file-outside": {
			map[string]string{"file": "../../etc/cron.d/x"}, codes.Internal, `file "../../etc/cron.d/x": its path starts with ".."`,
		},
		"file-absolute": {
			map[string]string{"file": "/etc/cron.d/x"}, codes.Internal, `file "/etc/cron.d/x": its path is absolute`,
		},
		"file-of-the-writer": {
			map[string]string{"file": "..data"}, codes.Internal, `file "..data": its path starts with ".."`,
		},
	} {
		t.Run(name, func(t *testing.T) { t.Parallel(); test.run(t, n) })
	}
}

// testFailures: what the provider says reaches the pod's user, with the code
// that tells kubelet whether anything is under way.
func testFailures(t *testing.T, n *posternNode, _ *legacyProvider) {
	const said = "the vault shop-kv says no"
	for code, want := range map[string]codes.Code{
		"NOT_FOUND":           codes.NotFound,
		"PERMISSION_DENIED":   codes.PermissionDenied,
		"UNAUTHENTICATED":     codes.Unauthenticated,
		"INVALID_ARGUMENT":    codes.InvalidArgument,
		"RESOURCE_EXHAUSTED":  codes.ResourceExhausted,
		"UNAVAILABLE":         codes.Unavailable,
		"INTERNAL":            codes.Internal,
		"UNKNOWN":             codes.Internal,
		"FAILED_PRECONDITION": codes.Internal,
	} {
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			refusal{map[string]string{"answer": "status", "code": code, "message": said}, want, said}.run(t, n)
		})
	}
}

// refusal is a class whose mount fails.
type refusal struct {
	parameters map[string]string
	wantCode   codes.Code
	wantText   string
}

func (r refusal) run(t *testing.T, n *posternNode) {
	shop := newTenant(t)
	must(t, shop.Class(t.Context(), "app", "upstream", r.parameters))
	v := newPod(t, shop, "web", "app")
	answer := n.publishFails(t, v)
	if got := status.Code(answer); got != r.wantCode {
		t.Errorf("code %s, want %s", got, r.wantCode)
	}
	want := "{…}failed to mount secrets store objects for pod " + v.Namespace + `/web, secretproviderclass app: provider "upstream": {…}` + r.wantText + "{…}"
	if !matches(want, answer.Error()) {
		t.Errorf("text\n%s\nwant\n%s", answer, want)
	}
}

// testOneCall: the provider may issue credentials, so a call that fails as
// unavailable is made again by kubelet and by nobody else; the upstream driver
// makes it three times.
func testOneCall(t *testing.T, n *posternNode, p *legacyProvider) {
	shop := newTenant(t)
	must(t, shop.Class(t.Context(), "app", "upstream", map[string]string{"answer": "status", "code": "UNAVAILABLE", "message": "later"}))
	v := newPod(t, shop, "only-once", "app")
	if answer := n.publishFails(t, v); status.Code(answer) != codes.Unavailable {
		t.Errorf("%v, want Unavailable", answer)
	}
	if got := p.mounts("only-once"); got != 1 {
		t.Errorf("Mount was called %d times for one mount that failed, want 1", got)
	}
}

// The mount waits for a provider that comes later, in either directory.
func TestLegacyProviderComesLater(t *testing.T) {
	t.Parallel()
	n := startPosternNode(t)
	shop := newTenant(t)
	for name, dir := range map[string]string{"in-run": n.run, "in-etc": n.etc} {
		must(t, shop.Class(t.Context(), name, name, map[string]string{"greeting": "hello"}))
		v := newPod(t, shop, name, name)
		answer := make(chan error, 1)
		go func() { answer <- n.Kubelet.Publish(t.Context(), v) }()
		t.Cleanup(func() { n.unpublish(t, v) })
		n.awaitEvent(t, v, "WaitingForProvider")
		startLegacy(t, dir, name)
		must(t, <-answer)
		if got := contents(t, n.Kubelet, v)["greeting"]; got != "hello" {
			t.Errorf("greeting is %q, want hello", got)
		}
	}
}

// Of two providers of one name, the one in the first directory serves; when it
// goes, the other does.
func TestLegacyDirectories(t *testing.T) {
	t.Parallel()
	n := startPosternNode(t)
	shop := newTenant(t)
	must(t, shop.Class(t.Context(), "app", "upstream", map[string]string{"greeting": "hello"}))
	second := startLegacy(t, n.run, "upstream")
	servedBy := func(pod string, want *legacyProvider) {
		t.Helper()
		v := newPod(t, shop, pod, "app")
		n.publish(t, v)
		if got := contents(t, n.Kubelet, v)["request/socket"]; got != want.cfg.Args[0] {
			t.Errorf("pod %s was served at %s, want %s", pod, got, want.cfg.Args[0])
		}
	}
	servedBy("only-second", second)
	first := startLegacy(t, n.etc, "upstream")
	n.awaitServing(t, first)
	servedBy("both", first)
	must(t, first.Stop(15*time.Second))
	_ = os.Remove(first.cfg.Args[0]) // gone already, if it ended as it should
	servedBy("first-gone", second)
}

// A provider that is killed and started again serves what waits for it. A call
// that it was killed in is an error which kubelet's next attempt cures.
func TestLegacyProviderRestarts(t *testing.T) {
	t.Parallel()
	n := startPosternNode(t)
	p := startLegacy(t, n.etc, "upstream")
	shop := newTenant(t)
	must(t, shop.Class(t.Context(), "app", "upstream", map[string]string{"greeting": "hello"}))
	must(t, shop.Class(t.Context(), "slow", "upstream", map[string]string{"delay": "1h"}))
	n.publish(t, newPod(t, shop, "before", "app"))

	during := newPod(t, shop, "during", "slow")
	answer := make(chan error, 1)
	go func() { answer <- n.Kubelet.Publish(t.Context(), during) }()
	p.called(t, "during", 1)
	p.Kill()
	err := <-answer
	t.Cleanup(func() { n.unpublish(t, during) })
	if want := `{…}provider "upstream": the connection broke during the call{…}`; status.Code(err) != codes.Unavailable || !matches(want, err.Error()) {
		t.Errorf("the call in which the provider was killed: %v\nwant Unavailable and %s", err, want)
	}

	waiting := newPod(t, shop, "waiting", "app")
	go func() { answer <- n.Kubelet.Publish(t.Context(), waiting) }()
	t.Cleanup(func() { n.unpublish(t, waiting) })
	n.awaitEvent(t, waiting, "WaitingForProvider")
	p.start(t)
	must(t, <-answer)
	must(t, shop.Class(t.Context(), "slow", "upstream", map[string]string{"greeting": "hello"}))
	eventually(t, n.Gateway.Process, func(ctx context.Context) error { return n.Kubelet.Publish(ctx, during) })
	if got := contents(t, n.Kubelet, during)["greeting"]; got != "hello" {
		t.Errorf("greeting is %q, want hello", got)
	}
}
