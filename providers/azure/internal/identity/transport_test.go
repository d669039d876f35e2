package identity

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"go.uber.org/goleak"

	"github.com/postern-dev/postern/providers/azure/internal/params"
	"github.com/postern-dev/postern/providers/sdk"
)

func TestMain(m *testing.M) {
	if code := m.Run(); code != 0 {
		os.Exit(code)
	}
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// asked is one request that a transport got.
type asked struct {
	method, url string // without a query
	query, form url.Values
	header      http.Header
}

// transport answers requests as a script says, instead of Entra and the node.
type transport struct {
	// answer makes the answer to the request for a token of this number, from 1.
	answer func(number int, req asked) scripted
	// metadata is the answer to requests for a tenant's metadata, if it is not that
	// of a tenant as it should be.
	metadata func(req asked) scripted
	// takes is how long an answer takes.
	takes time.Duration

	mu       sync.Mutex
	requests []asked
	tokens   int // requests for a token
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
	one, err := read(req)
	if err != nil {
		return nil, err
	}
	script, number := t.record(one)
	if t.takes > 0 {
		select {
		case <-time.After(t.takes):
		case <-req.Context().Done():
			return nil, req.Context().Err()
		}
	}
	answer := scripted{status: http.StatusOK, body: metadataOf(one.url)}
	switch {
	case !isMetadata(one.url):
		answer = script(number, one)
	case t.metadata != nil:
		answer = t.metadata(one)
	}
	if answer.status == 0 {
		return nil, answer.err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open++
	return answer.response(req, t), nil
}

func read(req *http.Request) (asked, error) {
	bare := *req.URL
	bare.RawQuery, bare.ForceQuery = "", false
	one := asked{method: req.Method, url: bare.String(), query: req.URL.Query(), header: req.Header}
	if req.Body == nil {
		return one, nil
	}
	form, err := io.ReadAll(req.Body)
	if err != nil {
		return one, err
	}
	one.form, err = url.ParseQuery(string(form))
	return one, err
}

func (t *transport) record(one asked) (script func(int, asked) scripted, number int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.requests = append(t.requests, one)
	if !isMetadata(one.url) {
		t.tokens++
	}
	return t.answer, t.tokens
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

func isMetadata(address string) bool {
	return strings.HasSuffix(address, "/.well-known/openid-configuration")
}

// metadataOf is what Entra and ADFS say of their endpoints.
func metadataOf(address string) string {
	tenant := strings.TrimSuffix(strings.TrimSuffix(address, "/.well-known/openid-configuration"), "/v2.0")
	return fmt.Sprintf(`{"authorization_endpoint": "%[1]s/oauth2/v2.0/authorize", "token_endpoint": "%[1]s/oauth2/v2.0/token",
		"issuer": "%[1]s/v2.0"}`, tenant)
}

func (t *transport) all() []asked {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]asked(nil), t.requests...)
}

// logins counts the requests for a token.
func (t *transport) logins() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.tokens
}

// become changes how it answers from now on.
func (t *transport) become(script func(int, asked) scripted) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.answer = script
}

// always gives one answer to every request.
func always(status int, body string, header ...string) func(int, asked) scripted {
	return func(int, asked) scripted { return scripted{status: status, body: body, header: header} }
}

// issued is an answer with the token of this number, for this life.
func issued(number int, life time.Duration) string {
	return fmt.Sprintf(`{"token_type": "Bearer", "expires_in": %d, "access_token": %q}`,
		int(life.Seconds()), access(number, tenantA))
}

// access is an access token.
func access(number int, tenant string) string {
	return jwtOf(map[string]any{"aud": "https://vault.azure.net", "tid": tenant}, fmt.Sprintf("access-%d", number))
}

// jwtOf is a token with these claims, whose signature is the canary.
func jwtOf(claims map[string]any, name string) string {
	payload, err := json.Marshal(claims)
	if err != nil {
		panic(err)
	}
	part := base64.RawURLEncoding.EncodeToString
	return part([]byte(`{"alg":"RS256"}`)) + "." + part(payload) + ".canary-" + name
}

// refusal is how Entra says no.
func refusal(code, number int, text string) scripted {
	body, err := json.Marshal(map[string]any{
		"error": "invalid_client", "error_codes": []int{number}, "error_uri": "https://login.microsoftonline.com/error",
		"error_description": fmt.Sprintf("AADSTS%d: %s Trace ID: t-1 Correlation ID: c-1 Timestamp: 2026-01-01 00:00:00Z", number, text),
		"trace_id":          "t-1", "correlation_id": "c-1", "timestamp": "2026-01-01 00:00:00Z",
	})
	if err != nil {
		panic(err)
	}
	return scripted{status: code, body: string(body)}
}

// entra answers as Entra does, with tokens for an hour.
func entra() *transport {
	return &transport{answer: func(number int, _ asked) scripted {
		return scripted{status: http.StatusOK, body: issued(number, time.Hour)}
	}}
}

const (
	tenantA = "11111111-1111-1111-1111-111111111111"
	tenantB = "22222222-2222-2222-2222-222222222222"
	clientA = "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa"
)

func public() params.Cloud {
	return params.Cloud{
		Name: "AzurePublicCloud", AuthorityHost: "https://login.microsoftonline.com/",
		VaultDNSSuffix: "vault.azure.net", VaultScope: "https://vault.azure.net/.default",
	}
}

// of is a pod's wish, by the kind.
func of(kind Kind, pod string) Use {
	u := Use{
		Kind: kind, Cloud: public(), TenantID: tenantA, ClientID: clientA,
		Subject: Subject{Namespace: "shop", ServiceAccount: "cart"}, PodName: "pod-" + pod,
	}
	switch kind {
	case WorkloadIdentity, IdentityBinding:
		u.Token = podToken(pod)
	case ServicePrincipal:
		u.Secret = sdk.NewSecretString(canarySecret)
	case ManagedIdentity, PodIdentity:
	}
	return u
}

// canarySecret is a client secret with what is written otherwise in URLs and HTML.
const canarySecret = "canary~secret/+&<8Q>"

func podToken(pod string) sdk.SecretString {
	return sdk.NewSecretString(jwtOf(map[string]any{
		"iss": "https://oidc.example/cluster", "sub": "system:serviceaccount:shop:cart", "aud": []string{"api://AzureADTokenExchange"},
	}, "jwt-"+pod))
}

// manager returns a Manager whose requests go to the transport.
func manager(t *transport, change func(*Config)) *Manager {
	client := &http.Client{Transport: t}
	cfg := Config{
		ClientOptions: azcore.ClientOptions{Transport: client}, LocalHTTPClient: client, Logger: slog.New(slog.DiscardHandler),
	}
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

// text is the access token as a client of the cloud's vaults has it.
func text(t *testing.T, token *Token) string {
	t.Helper()
	got, err := token.GetToken(context.Background(), policy.TokenRequestOptions{Scopes: []string{token.grant.key.cloud.VaultScope}})
	if err != nil {
		t.Fatal(err)
	}
	return got.Token
}
