package vault

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	metricnoop "go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
	"go.uber.org/goleak"

	"github.com/postern-dev/postern/providers/sdk"
)

// baoEnv names an OpenBao 2.4 binary.
const baoEnv = "POSTERN_TEST_BAO"

// rootToken may do everything. It tells the server of this process from others.
var rootToken = rand.Text() //nolint:gochecknoglobals // it does not change

// testServer is the real server that all tests of the package share; each
// works in mounts and with roles of its own. Nil: there is no binary.
var testServer *bao

func TestMain(m *testing.M) {
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	if binary := os.Getenv(baoEnv); binary != "" {
		server, err := startBao(binary)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		testServer = server
	}
	code := m.Run()
	if testServer != nil {
		testServer.stop()
	}
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return code
}

// bao is a running OpenBao server.
type bao struct {
	address string
	client  *http.Client
	command *exec.Cmd
	key     *ecdsa.PrivateKey
}

// startBao starts a server. Its port may be taken by another process between
// the choice and the start: then it tries another.
func startBao(binary string) (b *bao, err error) {
	for range 3 {
		if b, err = tryBao(binary); err == nil {
			return b, nil
		}
	}
	return nil, err
}

func tryBao(binary string) (*bao, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	address := listener.Addr().String()
	if err := listener.Close(); err != nil {
		return nil, err
	}
	command := exec.Command(binary, "server", "-dev", "-dev-root-token-id="+rootToken,
		"-dev-listen-address="+address, "-dev-no-store-token")
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // also when a test times out
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", binary, err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	b := &bao{address: "http://" + address, client: &http.Client{Timeout: 10 * time.Second}, command: command, key: key}
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		if b.ready() {
			return b, nil
		}
		<-time.After(50 * time.Millisecond) // it cannot be waited for otherwise
	}
	b.stop()
	return nil, fmt.Errorf("%s does not get ready at %s", binary, b.address)
}

// ready asks with the server's own token: another that has its port knows it
// not.
func (b *bao) ready() bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, b.address+"/v1/auth/token/lookup-self", http.NoBody)
	if err != nil {
		return false
	}
	req.Header.Set("X-Vault-Token", rootToken)
	resp, err := b.client.Do(req)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

func (b *bao) stop() {
	_ = b.command.Process.Kill()
	_ = b.command.Wait()
	b.client.CloseIdleConnections()
}

// server returns the real server.
func server(t *testing.T) *bao {
	t.Helper()
	if testServer == nil {
		t.Fatalf("%s is not set: `make test` builds the OpenBao binary and sets it; by hand, run "+
			"`go build -o bao github.com/openbao/openbao` in test/servers/openbao and set %s to its path", baoEnv, baoEnv)
	}
	return testServer
}

// call does a request as root.
func (b *bao) call(t *testing.T, method, path string, body any) map[string]any {
	t.Helper()
	status, answer := b.try(t, method, path, body)
	if status >= 300 {
		t.Fatalf("%s %s: status %d: %v", method, path, status, answer)
	}
	return answer
}

func (b *bao) try(t *testing.T, method, path string, body any) (int, map[string]any) {
	t.Helper()
	encoded, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, b.address+"/v1/"+path, bytes.NewReader(encoded))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Vault-Token", rootToken)
	resp, err := b.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var answer map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	return resp.StatusCode, answer
}

// tenant is what one test has on the server: a kv mount, a jwt auth method, a
// role and its policy.
type tenant struct {
	*bao
	name string
}

func newTenant(t *testing.T, policy string) *tenant {
	t.Helper()
	b := server(t)
	n := &tenant{bao: b, name: "t" + strings.ToLower(rand.Text()[:10])}
	der, err := x509.MarshalPKIXPublicKey(&b.key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	b.call(t, "POST", "sys/mounts/"+n.name, map[string]any{"type": "kv", "options": map[string]string{"version": "2"}})
	eventually(t, "the kv mount is versioned", func() bool {
		status, _ := b.try(t, "GET", n.name+"/config", nil)
		return status == http.StatusOK
	})
	b.call(t, "POST", "sys/auth/"+n.name, map[string]any{"type": "jwt"})
	b.call(t, "POST", "auth/"+n.name+"/config", map[string]any{"jwt_validation_pubkeys": []string{string(public)}})
	b.call(t, "PUT", "sys/policies/acl/"+n.name, map[string]any{"policy": strings.ReplaceAll(policy, "KV", n.name)})
	n.role(t, "app", map[string]any{})
	return n
}

const readAll = `path "KV/data/*" { capabilities = ["read"] }`

func (n *tenant) role(t *testing.T, name string, change map[string]any) {
	t.Helper()
	role := map[string]any{
		"role_type": "jwt", "bound_audiences": []string{"vault"}, "user_claim": "sub",
		"bound_subject":  "system:serviceaccount:shop:cart",
		"token_policies": []string{n.name}, "token_ttl": "20m",
	}
	maps.Copy(role, change)
	n.call(t, "POST", "auth/"+n.name+"/role/"+name, role)
}

func (n *tenant) put(t *testing.T, path string, data map[string]any) {
	t.Helper()
	n.call(t, "POST", n.name+"/data/"+path, map[string]any{"data": data})
}

// alive reports whether the server knows a token.
func (n *tenant) alive(t *testing.T, token string) bool {
	t.Helper()
	status, _ := n.try(t, "POST", "auth/token/lookup", map[string]string{"token": token})
	return status == http.StatusOK
}

// jwt makes a token of the pod's service account.
func (b *bao) jwt(t *testing.T, change map[string]any) string {
	t.Helper()
	claims := map[string]any{
		"iss": "https://kubernetes.default.svc", "aud": []string{"vault"}, "sub": "system:serviceaccount:shop:cart",
		"iat": time.Now().Unix(), "nbf": time.Now().Add(-time.Minute).Unix(), "exp": time.Now().Add(time.Hour).Unix(),
	}
	maps.Copy(claims, change)
	return signJWT(t, b.key, claims)
}

func signJWT(t *testing.T, key *ecdsa.PrivateKey, claims map[string]any) string {
	t.Helper()
	part := func(v any) string {
		encoded, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(encoded)
	}
	signed := part(map[string]string{"alg": "ES256", "typ": "JWT"}) + "." + part(claims)
	sum := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	signature := append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// request is a valid one of the service account shop/cart.
func (n *tenant) request(t *testing.T, address, objects string) *sdk.Request {
	t.Helper()
	return &sdk.Request{
		VolumeID: "volume-1",
		Pod:      sdk.Pod{Namespace: "shop", Name: "cart-1", UID: "uid-1", ServiceAccount: sdk.ServiceAccount{Name: "cart"}},
		Parameters: sdk.Parameters{
			"roleName": "app", "vaultAddress": address, "vaultAuthMountPath": n.name,
			"objects": strings.ReplaceAll(objects, "KV", n.name),
		},
		Tokens:          sdk.Tokens{{Audience: "vault", Token: sdk.NewSecretString(n.jwt(t, nil)), Expiry: time.Now().Add(time.Hour)}},
		DefaultFileMode: 0o644,
	}
}

func environment() sdk.Environment {
	return sdk.Environment{
		Logger:         slog.New(slog.DiscardHandler),
		TracerProvider: tracenoop.NewTracerProvider(),
		MeterProvider:  metricnoop.NewMeterProvider(),
		Getenv:         func(string) string { return "" },
	}
}

// start makes a provider whose background work runs until the test ends.
func start(t *testing.T, change func(*options, *sdk.Environment)) *provider {
	t.Helper()
	o, env := options{mount: "kubernetes", maxSessions: 100, idle: time.Hour}, environment()
	if change != nil {
		change(&o, &env)
	}
	p, err := newProvider(o, env)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		p.pool.Close()
	})
	return p
}

// files are a response's, by path.
func files(resp *sdk.Response) map[string]string {
	all := make(map[string]string)
	for _, f := range resp.Files {
		all[f.Path] = string(f.Contents.Reveal())
	}
	return all
}

func versions(resp *sdk.Response) map[string]string {
	all := make(map[string]string)
	for _, o := range resp.Objects {
		all[o.ID] = o.Version
	}
	return all
}

func fetchOK(t *testing.T, p *provider, req *sdk.Request) *sdk.Response {
	t.Helper()
	resp, err := p.Fetch(t.Context(), req)
	if err != nil {
		t.Fatalf("Fetch: %v", err)
	}
	return resp
}

// eventually waits for what the background does.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for range 1000 {
		if condition() {
			return
		}
		<-time.After(20 * time.Millisecond)
	}
	t.Fatalf("%s: not after 20 s", what)
}

func base64URL(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
