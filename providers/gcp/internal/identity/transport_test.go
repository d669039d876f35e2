package identity

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"go.uber.org/goleak"

	"github.com/postern-dev/postern/providers/sdk"
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	// Google's package looks once in a process whether there is a metadata server.
	if err := os.Setenv("GCE_METADATA_HOST", "127.0.0.1:1"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if code := m.Run(); code != 0 {
		return code
	}
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// asked is one request that a transport got.
type asked struct {
	method, url, contentType, authorization string
	// fields are those of the body, be it JSON or a form.
	fields map[string]any
}

// transport answers requests as a script says, instead of Google.
type transport struct {
	// answer makes the answer to the request of this number, from 1.
	answer func(number int, req asked) scripted
	// takes is how long an answer takes.
	takes time.Duration

	mu       sync.Mutex
	requests []asked
	open     int // answers that were not closed
}

// scripted is what a transport says. Status zero: nothing, because of err.
type scripted struct {
	status int
	body   string
	header []string
	err    error
	// cut ends the connection within the body.
	cut bool
}

// body counts those that are open.
type body struct {
	io.Reader
	of *transport
}

func (b body) Close() error {
	b.of.mu.Lock()
	defer b.of.mu.Unlock()
	b.of.open--
	return nil
}

func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	one, err := readRequest(req)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	t.requests = append(t.requests, one)
	script, number := t.answer, len(t.requests)
	t.mu.Unlock()
	if t.takes > 0 {
		select {
		case <-time.After(t.takes):
		case <-req.Context().Done():
			return nil, req.Context().Err()
		}
	}
	answer := script(number, one)
	if answer.status == 0 {
		return nil, answer.err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open++
	return answer.response(req, t), nil
}

func readRequest(req *http.Request) (asked, error) {
	one := asked{
		method: req.Method, url: req.URL.String(),
		contentType: req.Header.Get("Content-Type"), authorization: req.Header.Get("Authorization"),
	}
	if req.Body == nil {
		return one, nil
	}
	sent, err := io.ReadAll(req.Body)
	_ = req.Body.Close()
	if err != nil {
		return one, err
	}
	if one.contentType == "application/json" {
		return one, json.Unmarshal(sent, &one.fields)
	}
	form, err := url.ParseQuery(string(sent))
	one.fields = make(map[string]any)
	for name := range form {
		one.fields[name] = form.Get(name)
	}
	return one, err
}

func (a scripted) response(req *http.Request, t *transport) *http.Response {
	resp := &http.Response{
		Status: fmt.Sprintf("%d %s", a.status, http.StatusText(a.status)), StatusCode: a.status,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: body{strings.NewReader(a.body), t}, ContentLength: -1,
		ProtoMajor: 1, ProtoMinor: 1, Request: req,
	}
	if a.cut {
		resp.Body = body{iotest.ErrReader(io.ErrUnexpectedEOF), t}
	}
	for i := 0; i+1 < len(a.header); i += 2 {
		resp.Header.Set(a.header[i], a.header[i+1])
	}
	return resp
}

func (t *transport) all() []asked {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]asked(nil), t.requests...)
}

func (t *transport) count() int { return len(t.all()) }

// become changes how it answers from now on.
func (t *transport) become(script func(int, asked) scripted) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.answer = script
}

// always gives one answer to every request.
func always(one scripted) func(int, asked) scripted {
	return func(int, asked) scripted { return one }
}

// denies answers the token exchange as google does, and impersonation with this.
func denies(one scripted) func(int, asked) scripted {
	return func(number int, req asked) scripted {
		if strings.HasSuffix(req.url, ":generateAccessToken") {
			return one
		}
		return issued(number, req)
	}
}

// issued is an answer with a token of this number, for an hour.
func issued(number int, req asked) scripted {
	if strings.HasSuffix(req.url, ":generateAccessToken") {
		return scripted{status: http.StatusOK, body: fmt.Sprintf(`{"accessToken": %q, "expireTime": %q}`,
			accessToken(number), time.Now().Add(time.Hour).UTC().Format(time.RFC3339Nano))}
	}
	return scripted{status: http.StatusOK, body: fmt.Sprintf(
		`{"access_token": %q, "issued_token_type": "urn:ietf:params:oauth:token-type:access_token", "token_type": "Bearer", "expires_in": 3600}`,
		accessToken(number))}
}

func accessToken(number int) string { return fmt.Sprintf("canary.access-%d~/+=", number) }

// googles answers as Google does, with tokens for an hour.
func googles() *transport { return &transport{answer: issued} }

// jwtOf is a token with these claims, whose signature is the canary.
func jwtOf(claims map[string]any, name string) string {
	payload, err := json.Marshal(claims)
	if err != nil {
		panic(err)
	}
	part := base64.RawURLEncoding.EncodeToString
	return part([]byte(`{"alg":"RS256"}`)) + "." + part(payload) + ".canary-" + name
}

const (
	cluster  = "https://container.googleapis.com/v1/projects/shop-1/locations/europe-west1/clusters/prod"
	gkePool  = "shop-1.svc.id.goog"
	wifPool  = "//iam.googleapis.com/projects/123/locations/global/workloadIdentityPools/corp"
	googleSA = "cart@shop-1.iam.gserviceaccount.com"
)

// gke is the federation of a GKE cluster, and wif one of another cluster.
func gke() Federation {
	audience := "identitynamespace:" + gkePool + ":" + cluster
	return Federation{Audience: audience, TokenAudiences: []string{gkePool, audience}, TokenURL: GKETokenURL}
}

func wif() Federation {
	audience := wifPool + "/providers/k8s"
	return Federation{Audience: audience, TokenAudiences: []string{audience, "https:" + audience}, TokenURL: STSTokenURL}
}

// of is a pod's wish, by the kind. A pod with workload identity is in a GKE cluster,
// and impersonates nobody.
func of(kind Kind, pod string) Use {
	u := Use{Kind: kind, Subject: Subject{Namespace: "shop", ServiceAccount: "cart"}}
	switch kind {
	case WorkloadIdentity:
		u.Federation, u.Token = gke(), podToken(pod)
	case ServiceAccountKey:
		u.Key = keyJSON(nil)
	case Provider:
	}
	return u
}

// impersonating is a pod with workload identity that impersonates a service account.
func impersonating(delegates ...string) Use {
	u := of(WorkloadIdentity, "a")
	u.ServiceAccount, u.Delegates = googleSA, delegates
	return u
}

func podToken(pod string) sdk.SecretString {
	return sdk.NewSecretString(jwtOf(map[string]any{
		"iss": "https://oidc.example/cluster", "sub": "system:serviceaccount:shop:cart", "aud": []string{gkePool},
	}, "jwt-"+pod))
}

// signingKey is one for all tests: making one takes long.
var signingKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

func pkcs8(key any) string {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		panic(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// keyJSON is a service account's key, with changes; nil takes a member out.
func keyJSON(changes map[string]any) sdk.SecretString {
	all := map[string]any{
		"type": "service_account", "project_id": "shop-1", "client_email": googleSA, "client_id": "1", "private_key_id": "k-1",
		"private_key": pkcs8(signingKey()), "token_uri": DefaultTokenURI, "universe_domain": "googleapis.com", "note": "canary",
	}
	maps.Copy(all, changes)
	maps.DeleteFunc(all, func(_ string, value any) bool { return value == nil })
	text, err := json.Marshal(all)
	if err != nil {
		panic(err)
	}
	return sdk.NewSecretString(string(text))
}

// manager returns a Manager whose requests go to the transport.
func manager(t *transport, change func(*Config)) *Manager {
	cfg := Config{HTTPClient: &http.Client{Transport: t}, Logger: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&cfg)
	}
	return New(cfg)
}

// acquire acquires, and fails the test if it cannot.
func acquire(t *testing.T, m *Manager, use Use) *Token {
	t.Helper()
	token, err := m.Acquire(t.Context(), use)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// failure is the *Error of a login that failed.
func failure(t *testing.T, err error) *Error {
	t.Helper()
	e, ok := errors.AsType[*Error](err)
	if !ok {
		t.Fatalf("error %v (%T), want an *Error", err, err)
	}
	return e
}

// pass lets time pass.
func pass(d time.Duration) { <-time.After(d) }
