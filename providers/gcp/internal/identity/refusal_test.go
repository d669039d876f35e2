package identity

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"net"
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

func marshalled(value any) string {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// oauthError is how the token exchange and OAuth say no.
func oauthError(code int, name, description string) scripted {
	return scripted{status: code, body: marshalled(map[string]string{"error": name, "error_description": description})}
}

// apiError is how Google's APIs say no.
func apiError(code int, name, message string, details ...map[string]any) scripted {
	inner := map[string]any{"code": code, "status": name, "message": message}
	if details != nil {
		inner["details"] = details
	}
	return scripted{status: code, body: marshalled(map[string]any{"error": inner})}
}

func errorInfo(reason string, metadata map[string]string) map[string]any {
	return map[string]any{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "googleapis.com", "metadata": metadata}
}

type refusalTest struct {
	use    Use
	answer scripted
	want   Error // Fix is what it holds
}

func (test refusalTest) run(t *testing.T, script func(scripted) func(int, asked) scripted, attempts int) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &transport{answer: script(test.answer)}
		_, err := manager(s, nil).Acquire(t.Context(), test.use)
		e := failure(t, err)
		if diff := cmp.Diff(test.want, *e, cmpopts.IgnoreFields(Error{}, "Fix", "Err")); diff != "" {
			t.Errorf("error (-want +got):\n%s", diff)
		}
		if !strings.Contains(e.Fix, test.want.Fix) || test.want.Fix == "" && e.Fix != "" {
			t.Errorf("fix %q, want %q", e.Fix, test.want.Fix)
		}
		if s.count() != attempts || s.open != 0 {
			t.Errorf("%d requests, want %d; %d answers are left open", s.count(), attempts, s.open)
		}
		noCanary(t, err)
	})
}

func federated() Use {
	u := of(WorkloadIdentity, "a")
	u.Federation = wif()
	return u
}

// TestTokenExchange: what its answers mean, and what is to be done.
func TestTokenExchange(t *testing.T) {
	t.Parallel()
	const (
		stale = "ID Token issued at 1700000000 is stale to sign-in."
		none  = `The target service indicated by the "audience" parameters is invalid.`
		trust = "trusts exactly what the pod's token has: issuer https://oidc.example/cluster, subject system:serviceaccount:shop:cart, " +
			"audience shop-1.svc.id.goog, signed with the keys"
	)
	past := federated()
	past.Token = sdk.NewSecretString(jwtOf(map[string]any{"exp": 946684800 - 1}, "jwt"))
	opaque := federated()
	opaque.Token = sdk.NewSecretString("canary-opaque")
	disabled := errorInfo("SERVICE_DISABLED", map[string]string{"service": "sts.googleapis.com", "consumer": "projects/123"})
	for name, test := range map[string]refusalTest{
		"audience of the token": {federated(), oauthError(400, "invalid_grant", "The audience in ID Token [x] does not match the expected audience y."), Error{
			Kind: Denied, Code: "invalid_grant", Message: "The audience in ID Token [x] does not match the expected audience y.",
			Fix: "Check that " + wif().Audience + " " + trust,
		}},
		"GKE": {of(WorkloadIdentity, "a"), oauthError(400, "invalid_grant", "no"), Error{
			Kind: Denied, Code: "invalid_grant", Message: "no", Fix: "Check that " + gke().Audience + " " + trust,
		}},
		"opaque token": {opaque, oauthError(400, "invalid_grant", "no"), Error{
			Kind: Denied, Code: "invalid_grant", Message: "no", Fix: "issuer (not known), subject system:serviceaccount:shop:cart, audience (not known)",
		}},
		"stale":               {federated(), oauthError(400, "invalid_grant", stale), Error{Kind: TokenExpired, Code: "invalid_grant", Message: stale, Fix: "kubelet sends another"}},
		"expired, it says":    {federated(), oauthError(400, "invalid_grant", "Token expired."), Error{Kind: TokenExpired, Code: "invalid_grant", Message: "Token expired.", Fix: "kubelet"}},
		"expired, by its own": {past, oauthError(400, "invalid_grant", "no"), Error{Kind: TokenExpired, Code: "invalid_grant", Message: "no", Fix: "kubelet"}},
		"expired, and not admitted": {past, oauthError(400, "unauthorized_client", "no"), Error{
			Kind: Denied, Code: "unauthorized_client", Message: "no", Fix: "attribute condition",
		}},
		"issuer is not reached": {federated(), oauthError(400, "invalid_grant", "Error connecting to the given credential's issuer."), Error{
			Kind: Unavailable, Code: "invalid_grant", Message: "Error connecting to the given credential's issuer.",
			Fix: "issuer https://oidc.example/cluster serves its discovery document",
		}},
		"pool": {federated(), oauthError(400, "invalid_target", none), Error{
			Kind: Denied, Code: "invalid_target", Message: none,
			Fix: "Check that the workload identity pool and the provider exist and are not disabled: " + wif().Audience,
		}},
		"pool of GKE": {of(WorkloadIdentity, "a"), oauthError(400, "invalid_target", none), Error{
			Kind: Denied, Code: "invalid_target", Message: none,
			Fix: "enabled for the cluster with pool shop-1.svc.id.goog, and that " + cluster + " is its project, location and name",
		}},
		"pool of GKE, as its APIs say it": {of(WorkloadIdentity, "a"), apiError(400, "INVALID_ARGUMENT", "Identity Pool does not exist (shop-1.svc.id.goog)."), Error{
			Kind: Denied, Code: "INVALID_ARGUMENT", Message: "Identity Pool does not exist (shop-1.svc.id.goog).", Fix: "enabled for the cluster",
		}},
		"audience": {federated(), oauthError(400, "invalid_request", `Invalid value for "audience".`), Error{
			Kind: Denied, Code: "invalid_request", Message: `Invalid value for "audience".`, Fix: "the number of the project and not its name",
		}},
		"condition": {federated(), oauthError(401, "unauthorized_client", "The given credential is rejected by the attribute condition."), Error{
			Kind: Denied, Code: "unauthorized_client", Message: "The given credential is rejected by the attribute condition.", Status: 401,
			Fix: "The attribute condition of " + wif().Audience + " has to admit the pod's token: issuer https://oidc.example/cluster, " +
				"subject system:serviceaccount:shop:cart",
		}},
		"scope":  {federated(), oauthError(400, "invalid_scope", "no"), Error{Kind: Denied, Code: "invalid_scope", Message: "no"}},
		"client": {federated(), oauthError(401, "invalid_client", "no"), Error{Kind: Denied, Code: "invalid_client", Message: "no", Status: 401}},
		"grant":  {federated(), oauthError(400, "unsupported_grant_type", "no"), Error{Kind: Denied, Code: "unsupported_grant_type", Message: "no"}},
		"later":  {federated(), oauthError(400, "temporarily_unavailable", "no"), Error{Kind: Unavailable, Code: "temporarily_unavailable", Message: "no"}},
		"server": {federated(), oauthError(400, "server_error", "no"), Error{Kind: Unavailable, Code: "server_error", Message: "no"}},
		"API disabled": {federated(), apiError(403, "PERMISSION_DENIED", "not used in project 123 before", disabled), Error{
			Kind: Denied, Code: "PERMISSION_DENIED", Message: "not used in project 123 before", Status: 403,
			Fix: "Enable the API sts.googleapis.com",
		}},
		"only a code": {federated(), oauthError(400, "invalid_grant", ""), Error{Kind: Denied, Code: "invalid_grant", Fix: trust}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test.want.Operation = OperationSTS
			if test.want.Status == 0 {
				test.want.Status = 400
			}
			test.run(t, always, 1)
		})
	}
}

// TestImpersonation: what its answers mean, and who has to be granted what.
func TestImpersonation(t *testing.T) {
	t.Parallel()
	const denied = "Permission 'iam.serviceAccounts.getAccessToken' denied on resource (or it may not exist)."
	refused := errorInfo("IAM_PERMISSION_DENIED", map[string]string{"permission": "iam.serviceAccounts.getAccessToken"})
	retry := map[string]any{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "17s"}
	other := federated()
	other.ServiceAccount = googleSA
	grant := "Check that service account " + googleSA + " exists, and grant %s the role roles/iam.workloadIdentityUser on it: " +
		"gcloud iam service-accounts add-iam-policy-binding " + googleSA + " --role=roles/iam.workloadIdentityUser --member=%[1]q"
	for name, test := range map[string]refusalTest{
		"GKE": {impersonating(), apiError(403, "PERMISSION_DENIED", denied, refused), Error{
			Kind: Denied, Code: "PERMISSION_DENIED", Message: denied, Fix: fmt.Sprintf(grant, "serviceAccount:shop-1.svc.id.goog[shop/cart]"),
		}},
		"federation": {other, apiError(403, "PERMISSION_DENIED", denied, refused), Error{
			Kind: Denied, Code: "PERMISSION_DENIED", Message: denied, Fix: fmt.Sprintf(grant, "principal:"+wifPool+"/subject/system:serviceaccount:shop:cart"),
		}},
		"delegates": {impersonating("a@b.example", "c@d.example"), apiError(403, "PERMISSION_DENIED", denied, refused), Error{
			Kind: Denied, Code: "PERMISSION_DENIED", Message: denied,
			Fix: "grant the role roles/iam.serviceAccountTokenCreator to each: serviceAccount:shop-1.svc.id.goog[shop/cart] on a@b.example; " +
				"serviceAccount:a@b.example on c@d.example; serviceAccount:c@d.example on " + googleSA,
		}},
		"not there": {impersonating("a@b.example"), apiError(404, "NOT_FOUND", "Requested entity was not found."), Error{
			Kind: Denied, Code: "NOT_FOUND", Message: "Requested entity was not found.", Status: 404,
			Fix: "Check that these service accounts exist: a@b.example, " + googleSA + " (annotations iam.gke.io/gcp-service-account and " +
				"iam.gke.io/gcp-service-account-delegates of service account shop/cart)",
		}},
		"unfit":           {impersonating(), apiError(400, "INVALID_ARGUMENT", "bad"), Error{Kind: Denied, Code: "INVALID_ARGUMENT", Message: "bad", Status: 400, Fix: "Check that these"}},
		"unauthenticated": {impersonating(), apiError(401, "UNAUTHENTICATED", "bad"), Error{Kind: Denied, Code: "UNAUTHENTICATED", Message: "bad", Status: 401, Fix: "node's clock"}},
		"API disabled": {impersonating(), apiError(403, "PERMISSION_DENIED", "disabled", errorInfo("SERVICE_DISABLED", map[string]string{
			"service": "iamcredentials.googleapis.com",
		})), Error{Kind: Denied, Code: "PERMISSION_DENIED", Message: "disabled", Fix: "Enable the API iamcredentials.googleapis.com"}},
		"API disabled, nobody says which": {impersonating(), apiError(403, "PERMISSION_DENIED", "disabled", errorInfo("SERVICE_DISABLED", nil)), Error{
			Kind: Denied, Code: "PERMISSION_DENIED", Message: "disabled", Fix: "Enable the API that is disabled",
		}},
		"quota": {impersonating(), apiError(429, "RESOURCE_EXHAUSTED", "slow", retry), Error{
			Kind: Throttled, Code: "RESOURCE_EXHAUSTED", Message: "slow", Status: 429, RetryAfter: 17 * time.Second,
		}},
		"quota as a refusal": {impersonating(), apiError(403, "PERMISSION_DENIED", "slow", errorInfo("RATE_LIMIT_EXCEEDED", nil)), Error{
			Kind: Throttled, Code: "PERMISSION_DENIED", Message: "slow",
		}},
		"down": {impersonating(), apiError(503, "UNAVAILABLE", "later"), Error{Kind: Unavailable, Code: "UNAVAILABLE", Message: "later", Status: 503}},
		"details that are odd": {impersonating(), scripted{status: 403, body: `{"error": {"status": "PERMISSION_DENIED", "message": "no",
			"details": [1, {"@type": 2}, {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "soon"}]}}`}, Error{
			Kind: Denied, Code: "PERMISSION_DENIED", Message: "no", Fix: "grant",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test.want.Operation = OperationGenerateAccessToken
			if test.want.Status == 0 {
				test.want.Status = 403
			}
			attempts := 2 // one of them is the token exchange
			if test.want.Status == 503 || test.want.Status == 429 {
				attempts += maxRetries
			}
			test.run(t, denies, attempts)
		})
	}
}

// TestKeyRefusals: what the answers to a key mean.
func TestKeyRefusals(t *testing.T) {
	t.Parallel()
	const (
		gone  = "Invalid grant: account not found"
		clock = "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. Check your iat and exp values in the JWT claim."
	)
	for name, test := range map[string]refusalTest{
		"signature": {answer: oauthError(400, "invalid_grant", "Invalid JWT Signature."), want: Error{
			Kind: Denied, Code: "invalid_grant", Message: "Invalid JWT Signature.", Fix: "make a new one and put it as key.json into the Secret",
		}},
		"account":  {answer: oauthError(400, "invalid_grant", gone), want: Error{Kind: Denied, Code: "invalid_grant", Message: gone, Fix: "does not exist any more"}},
		"clock":    {answer: oauthError(400, "invalid_grant", clock), want: Error{Kind: Denied, Code: "invalid_grant", Message: clock, Fix: "Check the node's clock"}},
		"client":   {answer: oauthError(401, "invalid_client", "no"), want: Error{Kind: Denied, Code: "invalid_client", Message: "no", Status: 401, Fix: "make a new one"}},
		"scope":    {answer: oauthError(400, "invalid_scope", "no"), want: Error{Kind: Denied, Code: "invalid_scope", Message: "no"}},
		"expired":  {answer: oauthError(400, "invalid_grant", "expired"), want: Error{Kind: Denied, Code: "invalid_grant", Message: "expired", Fix: "make a new one"}},
		"no token": {answer: scripted{status: 200, body: `{"id_token": "canary"}`}, want: Error{Kind: Unavailable, Status: 200, Message: "the answer holds no access token"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test.use, test.want.Operation = of(ServiceAccountKey, "a"), OperationOAuth2
			if test.want.Status == 0 {
				test.want.Status = 400
			}
			test.run(t, always, 1)
		})
	}
}

const retried = maxRetries + 1

// TestAnswers: what all kinds of answers come to, however they are made.
func TestAnswers(t *testing.T) {
	t.Parallel()
	const (
		notTheirs = "what securetoken.googleapis.com answers is not what is to be there: check the address, and whether a proxy is in between"
		noToken   = "the answer holds no access token"
		host      = "securetoken.googleapis.com: "
	)
	for name, test := range map[string]struct {
		answer   scripted
		want     Error
		attempts int // if not one
	}{
		"JSON of another kind":   {answer: scripted{status: 400, body: `["canary"]`}, want: Error{Kind: Unavailable, Message: notTheirs, Status: 400}},
		"JSON without an error":  {answer: scripted{status: 400, body: `{"x": "canary"}`}, want: Error{Kind: Unavailable, Message: notTheirs, Status: 400}},
		"an error as a number":   {answer: scripted{status: 400, body: `{"error": 7}`}, want: Error{Kind: Unavailable, Message: notTheirs, Status: 400}},
		"a code that is a text":  {answer: oauthError(400, "Bad canary", "no"), want: Error{Kind: Denied, Message: "no", Status: 400}},
		"lines":                  {answer: oauthError(400, "invalid_scope", "a\r\n\tb\x00c"), want: Error{Kind: Denied, Code: "invalid_scope", Message: "a b c", Status: 400}},
		"talks too much":         {answer: oauthError(400, "invalid_scope", strings.Repeat("é", 1000)), want: Error{Kind: Denied, Code: "invalid_scope", Message: strings.Repeat("é", 600) + "…", Status: 400}},
		"throttled for a moment": {answer: scripted{status: 429, header: []string{"Retry-After", "1"}}, attempts: retried, want: Error{Kind: Throttled, Message: "too many requests", Status: 429, RetryAfter: time.Second}},
		"throttled for long":     {answer: scripted{status: 429, header: []string{"Retry-After", "17"}}, want: Error{Kind: Throttled, Message: "too many requests", Status: 429, RetryAfter: 17 * time.Second}},
		"throttled until a time": {
			answer: scripted{status: 429, header: []string{"Retry-After", "Sat, 01 Jan 2000 00:01:00 GMT"}},
			want:   Error{Kind: Throttled, Message: "too many requests", Status: 429, RetryAfter: time.Minute},
		},
		"broken":               {answer: oauthError(500, "internal_failure", "oops"), attempts: retried, want: Error{Kind: Unavailable, Code: "internal_failure", Message: "oops", Status: 500}},
		"gateway":              {answer: scripted{status: 502, body: "<html>canary"}, attempts: retried, want: Error{Kind: Unavailable, Message: notTheirs, Status: 502}},
		"slow":                 {answer: oauthError(408, "slow", "later"), attempts: retried, want: Error{Kind: Unavailable, Code: "slow", Message: "later", Status: 408}},
		"moved":                {answer: oauthError(302, "moved", "there"), want: Error{Kind: Unavailable, Code: "moved", Message: "there", Status: 302}},
		"a proxy's refusal":    {answer: scripted{status: 403, body: "<html>canary"}, want: Error{Kind: Unavailable, Message: notTheirs, Status: 403}},
		"a proxy's password":   {answer: oauthError(407, "who", "who?"), want: Error{Kind: Unavailable, Code: "who", Message: "who?", Status: 407}},
		"success without body": {answer: scripted{status: 200}, want: Error{Kind: Unavailable, Message: notTheirs, Status: 200}},
		"success of something": {answer: scripted{status: 200, body: "<html>canary"}, want: Error{Kind: Unavailable, Message: notTheirs, Status: 200}},
		"malformed":            {answer: scripted{status: 200, body: `{"access_token": "canary`}, want: Error{Kind: Unavailable, Message: notTheirs, Status: 200}},
		"field of another kind": {
			answer: scripted{status: 200, body: `{"access_token": "canary", "expires_in": "canary"}`}, want: Error{Kind: Unavailable, Message: noToken, Status: 200},
		},
		"without a token":    {answer: scripted{status: 200, body: `{"expires_in": 3600}`}, want: Error{Kind: Unavailable, Message: noToken, Status: 200}},
		"no token":           {answer: scripted{status: 200, body: `{"access_token": "canary\r\nx: y", "expires_in": 3600}`}, want: Error{Kind: Unavailable, Message: noToken, Status: 200}},
		"error with success": {answer: scripted{status: 200, body: `{"error": "canary"}`}, want: Error{Kind: Unavailable, Message: noToken, Status: 200}},
		"expired on arrival": {
			answer: scripted{status: 200, body: `{"access_token": "canary", "expires_in": -60}`},
			want:   Error{Kind: Unavailable, Message: "the token has expired when it arrives, at 1999-12-31T23:59:00Z: check the node's clock"},
		},
		"no bearer": {
			answer: scripted{status: 200, body: `{"token_type": "N_A", "access_token": "canary", "expires_in": 3600}`},
			want:   Error{Kind: Unavailable, Message: "the answer's token is no bearer token"},
		},
		"endless":     {answer: scripted{status: 200, body: strings.Repeat(" ", maxAnswer+1)}, attempts: retried, want: Error{Kind: Unavailable, Message: host + "the answer has more than 1048576 bytes"}},
		"cut":         {answer: scripted{status: 200, cut: true}, attempts: retried, want: Error{Kind: Unavailable, Message: host + "read the answer: unexpected EOF"}},
		"nobody":      {answer: scripted{err: syscall.ECONNREFUSED}, attempts: retried, want: Error{Kind: Unavailable, Message: host + "connection refused"}},
		"no name":     {answer: scripted{err: &net.DNSError{Err: "no such host", Name: "x", IsNotFound: true}}, want: Error{Kind: Unavailable, Message: host + "lookup x: no such host"}},
		"no name now": {answer: scripted{err: &net.DNSError{Err: "server misbehaving", Name: "x"}}, attempts: retried, want: Error{Kind: Unavailable, Message: host + "lookup x: server misbehaving"}},
		"untrusted": {
			answer: scripted{err: &tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}},
			want:   Error{Kind: Unavailable, Message: host + "tls: failed to verify certificate: x509: certificate signed by unknown authority"},
		},
		"in no time": {answer: scripted{err: context.DeadlineExceeded}, want: Error{Kind: Unavailable, Message: host + "no answer in time"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test.want.Operation = OperationSTS
			attempts := max(test.attempts, 1)
			refusalTest{of(WorkloadIdentity, "a"), test.answer, test.want}.run(t, always, attempts)
		})
	}
}

// TestErrorText: what was asked, what was said, and the status.
func TestErrorText(t *testing.T) {
	t.Parallel()
	s := &transport{answer: always(oauthError(400, "invalid_target", "No pool."))}
	_, err := manager(s, nil).Acquire(t.Context(), of(WorkloadIdentity, "a"))
	if got := failure(t, err).Error(); got != "sts: invalid_target: No pool. (HTTP status 400)" {
		t.Errorf("text %q", got)
	}
	want := "Invalid Denied TokenExpired Throttled Unavailable ErrorKind(5)"
	if got := fmt.Sprintln(Invalid, Denied, TokenExpired, Throttled, Unavailable, ErrorKind(5)); strings.TrimSpace(got) != want {
		t.Errorf("kinds %q", got)
	}
	cause := errors.New("cause")
	if !errors.Is(&Error{Err: cause}, cause) {
		t.Error("the cause is not found")
	}
}

// TestEchoes: what a login is made with is in no message, wherever and however an
// answer repeats it.
func TestEchoes(t *testing.T) {
	t.Parallel()
	opaque := of(WorkloadIdentity, "a")
	opaque.Token = sdk.NewSecretString(`canary"opaque/+&<8Q>`)
	word := of(WorkloadIdentity, "a") // which may be a code
	word.Token = sdk.NewSecretString("canary")
	for kind, test := range map[string]struct {
		use     Use
		secrets []string
		script  func(scripted) func(int, asked) scripted
	}{
		"token":        {of(WorkloadIdentity, "a"), []string{podToken("a").Reveal(), "eyJhbGciOiJSUzI1NiJ9.e30.canary-other"}, always},
		"opaque token": {opaque, []string{opaque.Token.Reveal()}, always},
		"federated":    {impersonating(), []string{accessToken(1), podToken("a").Reveal(), "ya29.canary-other", "ya29.c.b0Aaekm1_canary"}, denies},
		"key":          {of(ServiceAccountKey, "a"), []string{keyJSON(nil).Reveal(), pkcs8(signingKey())}, always},
		"a word":       {word, []string{word.Token.Reveal()}, always},
	} {
		for i, secret := range test.secrets {
			for where, one := range map[string]scripted{
				"code":        {status: 400, body: marshalled(map[string]string{"error": secret})},
				"description": oauthError(400, "invalid_grant", "What is "+secret+" there?"),
				"message":     apiError(403, "PERMISSION_DENIED", "What is "+secret+" there?"),
				"status":      apiError(403, secret, "no"),
				"service":     apiError(403, "PERMISSION_DENIED", "no", errorInfo("SERVICE_DISABLED", map[string]string{"service": secret})),
				"in a URL":    oauthError(400, "invalid_grant", "GET /?x="+url.QueryEscape(secret)+" and /"+url.PathEscape(secret)),
				"in HTML":     oauthError(400, "invalid_grant", "<b>"+html.EscapeString(secret)+"</b>"),
				"in JSON":     oauthError(400, "invalid_grant", marshalled(secret)),
				"text":        {status: 400, body: secret},
				"success":     {status: 200, body: marshalled(map[string]string{"x": secret})},
				"no answer":   {err: errors.New("cannot send " + secret)},
			} {
				t.Run(fmt.Sprint(kind, " ", i, " as ", where), func(t *testing.T) {
					t.Parallel()
					synctest.Test(t, func(t *testing.T) {
						_, err := manager(&transport{answer: test.script(one)}, nil).Acquire(t.Context(), test.use)
						e := failure(t, err)
						e.Err = nil // the transport's own, which has seen no answer
						noCanary(t, e)
					})
				})
			}
		}
	}
}
