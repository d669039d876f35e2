package identity

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/postern-dev/postern/providers/sdk"
)

// ids is how a message ends that Entra's is in.
const ids = " Trace ID: t-1 Correlation ID: c-1 Timestamp: 2026-01-01 00:00:00Z"

// TestEntraCodes: what each of Entra's codes means, and what is to be done.
func TestEntraCodes(t *testing.T) {
	t.Parallel()
	federate := "Add a federated identity credential to client " + clientA + " in tenant " + tenantA + " with exactly this: " +
		"issuer https://oidc.example/cluster, subject system:serviceaccount:shop:cart, audience api://AzureADTokenExchange"
	for number, test := range map[int]struct {
		kind   Kind // if not WorkloadIdentity
		status int  // if not 401
		want   ErrorKind
		fix    string // what it begins with
	}{
		70021:   {want: Denied, fix: federate},
		70025:   {want: Denied, fix: federate},
		700211:  {want: Denied, fix: federate},
		700212:  {want: Denied, fix: federate},
		700213:  {want: Denied, fix: federate},
		700016:  {status: 400, want: Denied, fix: "Check that " + clientA + " is the client ID of an application"},
		90002:   {status: 400, want: Denied, fix: "Check the tenant ID " + tenantA + ", and that cloud AzurePublicCloud"},
		900023:  {status: 400, want: Denied, fix: "Check the tenant ID"},
		700024:  {want: TokenExpired, fix: "kubelet sends another token"},
		700027:  {want: Denied, fix: "Check that the issuer https://oidc.example/cluster serves its discovery document"},
		50027:   {want: Denied, fix: "Check that the issuer https://oidc.example/cluster"},
		50166:   {want: Unavailable, fix: "Check that the issuer https://oidc.example/cluster"},
		7000215: {kind: ServicePrincipal, want: Denied, fix: "Check the client secret of application " + clientA},
		7000222: {kind: ServicePrincipal, want: Denied, fix: "Make a new client secret for application " + clientA},
		7000112: {want: Denied, fix: "Check that application " + clientA + " is enabled"},
		500011:  {status: 400, want: Denied, fix: "Check that application " + clientA + " is enabled and has a service principal"},
		53003:   {status: 400, want: Denied, fix: "A Conditional Access policy of tenant " + tenantA},
		65001:   {status: 400, want: Denied, fix: "An administrator of tenant " + tenantA},
		50034:   {status: 400, want: Denied},
		90055:   {status: 400, want: Throttled},
	} {
		t.Run(fmt.Sprint(number), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				kind, status := WorkloadIdentity, http.StatusUnauthorized
				if test.kind != "" {
					kind = test.kind
				}
				if test.status != 0 {
					status = test.status
				}
				s := &transport{answer: func(int, asked) scripted { return refusal(status, number, "No.") }}
				_, err := manager(s, nil).Acquire(t.Context(), of(kind, "a"))
				e := failure(t, err)
				want := Error{Operation: OperationEntra, Kind: test.want, Code: fmt.Sprint("AADSTS", number), Message: "No." + ids, Status: status}
				if diff := cmp.Diff(want, *e, cmpopts.IgnoreFields(Error{}, "Fix")); diff != "" {
					t.Errorf("error (-want +got):\n%s", diff)
				}
				if !strings.HasPrefix(e.Fix, test.fix) || test.fix == "" && e.Fix != "" {
					t.Errorf("fix %q, want %q", e.Fix, test.fix)
				}
				if want := fmt.Sprintf("Entra ID: AADSTS%d: No.%s (HTTP status %d)", number, ids, status); e.Error() != want {
					t.Errorf("text %q, want %q", e.Error(), want)
				}
				if s.logins() != 1 {
					t.Errorf("asked %d times", s.logins())
				}
				noCanary(t, err)
			})
		})
	}
}

// TestTenantIsNotThere: the metadata say so already.
func TestTenantIsNotThere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := entra()
		s.metadata = func(asked) scripted { return refusal(400, 90002, "Tenant 'x' not found.") }
		_, err := manager(s, nil).Acquire(t.Context(), of(WorkloadIdentity, "a"))
		if e := failure(t, err); e.Kind != Denied || e.Code != "AADSTS90002" || e.Message != "Tenant 'x' not found."+ids || s.logins() != 0 {
			t.Errorf("error %v, %d requests for a token", err, s.logins())
		}
	})
}

// described is an answer's body with a description.
func described(t *testing.T, description string) string {
	t.Helper()
	body, err := json.Marshal(map[string]string{"error": "invalid_request", "error_description": description})
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

const retried = maxRetries + 1

// TestAnswers: what all kinds of answers come to, however they are made.
func TestAnswers(t *testing.T) {
	t.Parallel()
	const notTheirs = "what login.microsoftonline.com answers is not what is to be there: check the address, and whether a proxy is in between"
	const noToken = "the answer holds no access token for https://vault.azure.net/.default with an expiry"
	type test struct {
		answer   scripted
		want     Error
		attempts int // if not one
	}
	for name, test := range map[string]test{
		"OAuth's error": {
			answer: scripted{status: 400, body: `{"error": "invalid_scope", "error_description": "bad"}`},
			want:   Error{Kind: Denied, Code: "invalid_scope", Message: "bad", Status: 400},
		},
		"number without a text": {
			answer: scripted{status: 400, body: `{"error": "invalid_request", "error_codes": [70011], "trace_id": "t", "correlation_id": "c", "timestamp": "now"}`},
			want:   Error{Kind: Denied, Code: "AADSTS70011", Message: "Trace ID: t Correlation ID: c Timestamp: now", Status: 400},
		},
		"number as a text": {
			answer: scripted{status: 400, body: `{"error": "invalid_request", "error_codes": ["70011"], "error_description": "bad"}`},
			want:   Error{Kind: Denied, Code: "invalid_request", Message: "bad", Status: 400},
		},
		"JSON of another kind": {
			answer: scripted{status: 400, body: `["canary"]`},
			want:   Error{Kind: Unavailable, Message: notTheirs, Status: 400},
		},
		"on several lines": {
			answer: scripted{status: 400, body: described(t, "AADSTS70011: Bad.\r\nTrace ID: t\r\nCorrelation ID: c")},
			want:   Error{Kind: Denied, Code: "AADSTS70011", Message: "Bad. Trace ID: t Correlation ID: c", Status: 400},
		},
		"talks too much": {
			answer: scripted{status: 400, body: described(t, "AADSTS70011: "+strings.Repeat("é", 1000)+" Trace ID: t "+strings.Repeat("x", 1000))},
			want: Error{
				Kind: Denied, Code: "AADSTS70011", Status: 400,
				Message: strings.Repeat("é", 600) + "… Trace ID: t " + strings.Repeat("x", 238) + "…",
			},
		},
		"throttled, for a moment": {
			answer: scripted{status: 429, body: described(t, "slow"), header: []string{"Retry-After", "1"}}, attempts: retried,
			want: Error{Kind: Throttled, Code: "invalid_request", Message: "slow", Status: 429, RetryAfter: time.Second},
		},
		"throttled, for long": {
			answer: scripted{status: 429, body: described(t, "slow"), header: []string{"Retry-After", "17"}},
			want:   Error{Kind: Throttled, Code: "invalid_request", Message: "slow", Status: 429, RetryAfter: 17 * time.Second},
		},
		"throttled, in milliseconds": {
			answer: scripted{status: 429, header: []string{"X-Ms-Retry-After-Ms", "2500", "Retry-After", "3"}},
			want:   Error{Kind: Throttled, Message: "too many requests", Status: 429, RetryAfter: 2500 * time.Millisecond},
		},
		"throttled, until a time": {
			answer: scripted{status: 429, header: []string{"Retry-After", "Sat, 01 Jan 2000 00:01:00 GMT"}},
			want:   Error{Kind: Throttled, Message: "too many requests", Status: 429, RetryAfter: time.Minute},
		},
		"temporarily unavailable": {
			answer: scripted{status: 400, body: `{"error": "temporarily_unavailable", "error_description": "later"}`},
			want:   Error{Kind: Unavailable, Code: "temporarily_unavailable", Message: "later", Status: 400},
		},
		"broken": {
			answer: scripted{status: 500, body: described(t, "oops")}, attempts: retried,
			want: Error{Kind: Unavailable, Code: "invalid_request", Message: "oops", Status: 500},
		},
		"gateway": {
			answer: scripted{status: 502, body: "<html>canary"}, attempts: retried,
			want: Error{Kind: Unavailable, Message: notTheirs, Status: 502},
		},
		"a proxy's refusal": {
			answer: scripted{status: 403, body: "<html>canary"},
			want:   Error{Kind: Unavailable, Message: notTheirs, Status: 403},
		},
		"a proxy wants a password": {
			answer: scripted{status: 407, body: described(t, "who?")},
			want:   Error{Kind: Unavailable, Code: "invalid_request", Message: "who?", Status: 407},
		},
		"a Kubernetes status": {
			answer: scripted{status: 403, body: `{"kind": "Status", "message": "forbidden: user", "reason": "Forbidden"}`},
			want:   Error{Kind: Denied, Message: "forbidden: user", Status: 403},
		},
		"an error as an object": {
			answer: scripted{status: 403, body: `{"error": {"code": "Forbidden", "message": "no"}}`},
			want:   Error{Kind: Denied, Message: "no", Status: 403},
		},
		"success without a body": {
			answer: scripted{status: 200},
			want:   Error{Kind: Unavailable, Message: notTheirs, Status: 200},
		},
		"success of something else": {
			answer: scripted{status: 200, body: "<html>canary"},
			want:   Error{Kind: Unavailable, Message: notTheirs, Status: 200},
		},
		"malformed": {
			answer: scripted{status: 200, body: `{"access_token": "canary`},
			want:   Error{Kind: Unavailable, Message: notTheirs, Status: 200},
		},
		"a field of another kind": {
			answer: scripted{status: 200, body: `{"access_token": "canary", "token_type": "Bearer", "expires_in": "canary"}`},
			want:   Error{Kind: Unavailable, Message: noToken, Status: 200},
		},
		"without a token": {
			answer: scripted{status: 200, body: `{"token_type": "Bearer", "expires_in": 3600}`},
			want:   Error{Kind: Unavailable, Message: noToken, Status: 200},
		},
		"without an expiry": {
			answer: scripted{status: 200, body: `{"token_type": "Bearer", "access_token": "canary"}`},
			want:   Error{Kind: Unavailable, Message: noToken, Status: 200},
		},
		"an expiry that is none": {
			answer: scripted{status: 200, body: `{"token_type": "Bearer", "access_token": "canary", "expires_on": "canary"}`},
			want:   Error{Kind: Unavailable, Message: noToken, Status: 200},
		},
		"expired on arrival": {
			answer: scripted{status: 200, body: `{"token_type": "Bearer", "access_token": "canary", "expires_in": -60}`},
			want:   Error{Kind: Unavailable, Message: "the token has expired when it arrives, at 1999-12-31T23:59:00Z: check the node's clock"},
		},
		"no bearer token": {
			answer: scripted{status: 200, body: `{"token_type": "pop", "access_token": "canary", "expires_in": 3600}`},
			want:   Error{Kind: Unavailable, Message: "the answer's token is no bearer token"},
		},
		"for another scope": {
			answer: scripted{status: 200, body: `{"token_type": "Bearer", "access_token": "canary", "expires_in": 3600, "scope": "other"}`},
			want:   Error{Kind: Unavailable, Message: noToken, Status: 200},
		},
		"an error with success": {
			answer: scripted{status: 200, body: `{"error": "canary", "error_description": "canary"}`},
			want:   Error{Kind: Unavailable, Message: noToken, Status: 200},
		},
		"endless": {
			answer: scripted{status: 200, body: strings.Repeat(" ", maxAnswer) + issued(1, time.Hour)}, attempts: retried,
			want: Error{Kind: Unavailable, Message: "login.microsoftonline.com: the answer has more than 1048576 bytes"},
		},
		"cut": {
			answer: scripted{status: 200, cut: true}, attempts: retried,
			want: Error{Kind: Unavailable, Message: "login.microsoftonline.com: read the answer: unexpected EOF"},
		},
		"nobody there": {
			answer: scripted{err: syscall.ECONNREFUSED}, attempts: retried,
			want: Error{Kind: Unavailable, Message: "login.microsoftonline.com: connection refused"},
		},
		"no such host": {
			answer: scripted{err: &net.DNSError{Err: "no such host", Name: "login.microsoftonline.com", IsNotFound: true}},
			want:   Error{Kind: Unavailable, Message: "login.microsoftonline.com: lookup login.microsoftonline.com: no such host"},
		},
		"certificate of somebody else": {
			answer: scripted{err: &tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}},
			want: Error{
				Kind:    Unavailable,
				Message: "login.microsoftonline.com: tls: failed to verify certificate: x509: certificate signed by unknown authority",
			},
		},
		"DNS does not answer": {
			answer: scripted{err: &net.DNSError{Err: "server misbehaving", Name: "login.microsoftonline.com", IsTemporary: true}}, attempts: retried,
			want: Error{Kind: Unavailable, Message: "login.microsoftonline.com: lookup login.microsoftonline.com: server misbehaving"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &transport{answer: func(int, asked) scripted { return test.answer }}
				_, err := manager(s, nil).Acquire(t.Context(), of(WorkloadIdentity, "a"))
				e := failure(t, err)
				test.want.Operation = OperationEntra
				if diff := cmp.Diff(test.want, *e, cmpopts.IgnoreFields(Error{}, "Err")); diff != "" {
					t.Errorf("error (-want +got):\n%s", diff)
				}
				if test.answer.err != nil && !errors.Is(err, test.answer.err) {
					t.Errorf("error %v does not hold its cause", err)
				}
				if want := max(test.attempts, 1); s.logins() != want {
					t.Errorf("asked %d times, want %d", s.logins(), want)
				}
				if s.open != 0 {
					t.Errorf("%d answers are left open", s.open)
				}
				noCanary(t, err)
			})
		})
	}
}

// TestMetadata: what is not a tenant's metadata, and metadata that do not fit.
func TestMetadata(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		answer scripted
		want   string
	}{
		"none":                {scripted{status: 404, body: "not here"}, "is not what is to be there"},
		"of something else":   {scripted{status: 200, body: "<html>"}, "is not what is to be there"},
		"without an endpoint": {scripted{status: 200, body: `{"issuer": "https://login.microsoftonline.com/x"}`}, "is not what is to be there"},
		"of another issuer": {scripted{status: 200, body: `{"authorization_endpoint": "https://other.example/a",
			"token_endpoint": "https://other.example/t", "issuer": "https://other.example/"}`}, "is not what is to be there"},
		"unavailable":  {scripted{status: 503, body: described(t, "later")}, "later"},
		"nobody there": {scripted{err: syscall.ECONNREFUSED}, "connection refused"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := entra()
				s.metadata = func(asked) scripted { return test.answer }
				_, err := manager(s, nil).Acquire(t.Context(), of(WorkloadIdentity, "a"))
				if e := failure(t, err); e.Kind != Unavailable || !strings.Contains(e.Message, test.want) {
					t.Errorf("error %v, want Unavailable with %q", err, test.want)
				}
				if s.logins() != 0 {
					t.Errorf("the token was sent: %v", requestsOf(s))
				}
			})
		})
	}
}

// TestEcho: whatever an answer repeats of what it got, or of what it should have
// given, no error holds it.
func TestEcho(t *testing.T) {
	t.Parallel()
	for name, kind := range map[string]Kind{"token": WorkloadIdentity, "secret": ServicePrincipal} {
		secret := of(kind, "a").proof().Reveal()
		for where, body := range map[string]string{
			"description": described(t, "AADSTS50027: bad "+secret+" there"),
			"code":        fmt.Sprintf(`{"error": %q}`, secret),
			"message":     fmt.Sprintf(`{"message": %q}`, secret),
			"object":      fmt.Sprintf(`{"error": {"message": %q}}`, secret),
			"IDs":         fmt.Sprintf(`{"trace_id": %q, "correlation_id": %[1]q, "timestamp": %[1]q}`, secret),
			"in a URL":    described(t, "GET /?x="+url.QueryEscape(secret)+" and /"+url.PathEscape(secret)),
			"in HTML":     described(t, strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(secret)),
			"access":      described(t, "here you are: "+access(1, tenantA)),
			"text":        secret,
		} {
			t.Run(name+" as "+where, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					s := &transport{answer: always(400, body)}
					_, err := manager(s, nil).Acquire(t.Context(), of(kind, "a"))
					noCanary(t, failure(t, err))
				})
			})
		}
	}
	// A secret may look like a code.
	use := of(ServicePrincipal, "a")
	use.Secret = sdk.NewSecretString("canary")
	_, err := manager(&transport{answer: always(400, `{"error": "canary"}`)}, nil).Acquire(t.Context(), use)
	noCanary(t, failure(t, err))
}

// TestFixWithoutClaims: a token that is no JWT has no claims to register, and a
// secret is no token.
func TestFixWithoutClaims(t *testing.T) {
	t.Parallel()
	opaque := of(WorkloadIdentity, "a")
	opaque.Token = sdk.NewSecretString("canary-opaque")
	for name, test := range map[string]struct {
		use  Use
		want string
	}{
		"opaque token": {opaque, "issuer (not known), subject system:serviceaccount:shop:cart, audience (not known)"},
		"secret":       {of(ServicePrincipal, "a"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &transport{answer: func(int, asked) scripted { return refusal(401, 70021, "No.") }}
			_, err := manager(s, nil).Acquire(t.Context(), test.use)
			if e := failure(t, err); !strings.HasSuffix(e.Fix, test.want) || test.want == "" && e.Fix != "" {
				t.Errorf("fix %q, want %q", e.Fix, test.want)
			}
		})
	}
}

func TestErrorKinds(t *testing.T) {
	t.Parallel()
	want := "Invalid Denied TokenExpired Throttled Unavailable ErrorKind(5)"
	if got := fmt.Sprintln(Invalid, Denied, TokenExpired, Throttled, Unavailable, ErrorKind(5)); strings.TrimSpace(got) != want {
		t.Errorf("kinds %q", got)
	}
}
