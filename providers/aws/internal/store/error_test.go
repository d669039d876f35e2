package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/postern-dev/postern/providers/aws/internal/params"
)

func retryIn(seconds int) http.Header { return http.Header{"Retry-After": {fmt.Sprint(seconds)}} }

// readError is the error of reading one object.
func readError(t *testing.T, m *memoryAWS, ref Ref) *Error {
	t.Helper()
	e, ok := errors.AsType[*Error](read(t, m.store(), as("web"), ref)[0].Err)
	if !ok {
		t.Fatal("no error")
	}
	return e
}

// TestErrorKinds: each error of the services' models, and those that all of AWS
// answers with.
func TestErrorKinds(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		code   string
		status int
		kind   Kind
	}{
		{"ResourceNotFoundException", 400, NotFound},
		{"InvalidParameterException", 400, Invalid},
		{"InvalidRequestException", 400, Invalid},
		{"DecryptionFailure", 400, Denied},
		{"InternalServiceError", 500, Unavailable},
		{"InvalidNextTokenException", 400, Invalid},
		{"InvalidKeyId", 400, Denied},
		{"InternalServerError", 500, Unavailable},
		{"InvalidFilterKey", 400, Invalid},
		{"InvalidFilterOption", 400, Invalid},
		{"InvalidFilterValue", 400, Invalid},
		{"InvalidNextToken", 400, Invalid},
		{"ParameterNotFound", 400, NotFound},
		{"ParameterVersionNotFound", 400, NotFound},
		{"AccessDeniedException", 400, Denied},
		{"AccessDenied", 403, Denied},
		{"NotAuthorized", 400, Denied},
		{"UnauthorizedOperation", 403, Denied},
		{"OptInRequired", 403, Denied},
		{"ExpiredTokenException", 400, BadCredentials},
		{"ExpiredToken", 403, BadCredentials},
		{"UnrecognizedClientException", 400, BadCredentials},
		{"InvalidClientTokenId", 403, BadCredentials},
		{"InvalidSignatureException", 400, BadCredentials},
		{"SignatureDoesNotMatch", 403, BadCredentials},
		{"IncompleteSignature", 400, BadCredentials},
		{"IncompleteSignatureException", 400, BadCredentials},
		{"InvalidAccessKeyId", 403, BadCredentials},
		{"AuthFailure", 401, BadCredentials},
		{"RequestExpired", 400, BadCredentials},
		{"MissingAuthenticationToken", 403, BadCredentials},
		{"MissingAuthenticationTokenException", 400, BadCredentials},
		{"ThrottlingException", 400, Throttled},
		{"Throttling", 400, Throttled},
		{"TooManyRequestsException", 429, Throttled},
		{"RequestLimitExceeded", 503, Throttled},
		{"LimitExceededException", 400, Throttled},
		{"InternalFailure", 500, Unavailable},
		{"ServiceUnavailable", 503, Unavailable},
		{"ServiceUnavailableException", 503, Unavailable},
		{"RequestTimeout", 408, Unavailable},
		{"RequestTimeoutException", 400, Unavailable},
		{"ValidationException", 400, Invalid},
		{"UnknownOperationException", 400, Invalid},
		{"NovelException", 400, Invalid},
		{"NovelException", 403, Denied},
		{"NovelException", 429, Throttled},
		{"NovelException", 500, Unavailable},
		{"NovelException", 501, Unavailable},
	} {
		t.Run(fmt.Sprintf("%s %d", tt.code, tt.status), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				m := &memoryAWS{script: func(request) *reply {
					return &reply{status: tt.status, code: tt.code, message: "because"}
				}}
				for _, ref := range []Ref{secretRef("x"), parameterRef("x")} {
					e, message := readError(t, m, ref), "because"
					if tt.code == "InvalidFilterKey" && ref.Service == params.ParameterStore {
						message = "AWS gave no reason" // its model has no message
					}
					if e.Kind != tt.kind || e.Code != tt.code || e.Status != tt.status || e.Message != message || e.Service != ref.Service ||
						e.Region != home || e.Object != "x" || e.Err != nil || e.AllowsFailover() != (tt.kind == Unavailable) {
						t.Errorf("error is %+v, kind %s", *e, e.Kind)
					}
				}
			})
		})
	}
}

// TestNoAnswerOfTheAPI: proxies, broken connections, endpoints that are not there.
// Nothing of what they sent is repeated.
func TestNoAnswerOfTheAPI(t *testing.T) {
	t.Parallel()
	lost := errors.New("dial tcp: lookup secretsmanager.eu-west-1.amazonaws.com: no such host")
	for name, tt := range map[string]struct {
		answer   *reply
		kind     Kind
		status   int
		message  string
		failover bool
	}{
		"page":          {&reply{status: 502, raw: "<html>" + contentsOf}, Unavailable, 502, "the answer, of HTTP status 502, is not the API's", true},
		"sign in":       {&reply{status: 403, raw: "<html>" + contentsOf}, Denied, 403, "the answer, of HTTP status 403, is not the API's", false},
		"401":           {&reply{status: 401, raw: "<html>"}, Denied, 401, "the answer, of HTTP status 401, is not the API's", false},
		"not found":     {&reply{status: 404, raw: "<html>" + contentsOf}, Invalid, 404, "the answer, of HTTP status 404, is not the API's", false},
		"429":           {&reply{status: 429, raw: "<html>"}, Throttled, 429, "the answer, of HTTP status 429, is not the API's", false},
		"408":           {&reply{status: 408, raw: "<html>"}, Unavailable, 408, "the answer, of HTTP status 408, is not the API's", true},
		"redirect":      {&reply{status: 301, raw: "<html>"}, Unavailable, 301, "the answer, of HTTP status 301, is not the API's", true},
		"garbage":       {&reply{status: 200, raw: `{"SecretString": "` + contentsOf}, Unavailable, 200, "the answer, of HTTP status 200, is not the API's", true},
		"wrong type":    {&reply{status: 200, raw: `{"VersionId":["` + contentsOf + `"],"Parameters":"` + contentsOf + `"}`}, Unavailable, 200, "the answer, of HTTP status 200, is not the API's", true},
		"no code":       {&reply{status: 500, raw: "{}"}, Unavailable, 500, "the answer, of HTTP status 500, is not the API's", true},
		"no connection": {&reply{err: lost}, Unavailable, 0, `lookup secretsmanager.eu-west-1.amazonaws.com: no such host`, true},
		"no reason":     {&reply{status: 400, code: "AccessDeniedException"}, Denied, 400, "AWS gave no reason", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				for _, ref := range []Ref{secretRef("x"), parameterRef("x")} {
					e := readError(t, &memoryAWS{script: func(request) *reply { return tt.answer }}, ref)
					if e.Kind != tt.kind || e.Status != tt.status || !strings.Contains(e.Message, tt.message) || e.AllowsFailover() != tt.failover {
						t.Errorf("error is %+v, kind %s", *e, e.Kind)
					}
					if errors.Is(e, lost) != (tt.answer.err != nil) || strings.Contains(printed(t, e), "canary") {
						t.Errorf("error prints as %s", printed(t, e))
					}
				}
			})
		})
	}
}

// TestBadRegion: a region is part of a host name, and comes from a class.
func TestBadRegion(t *testing.T) {
	t.Parallel()
	m := &memoryAWS{}
	for _, region := range []string{"", "evil.example/#", "a b", "eu-west-1@evil.example"} {
		answers, err := m.store().Read(t.Context(), inRegion(region, "web"), []Ref{secretRef("a"), secretRef("b"), parameterRef("c")})
		if err != nil {
			t.Fatal(err)
		}
		for i, a := range answers {
			e, ok := errors.AsType[*Error](a.Err)
			if !ok || e.Kind != Invalid || e.AllowsFailover() || e.Object != a.Ref.ID || !strings.Contains(strings.ToLower(e.Message), "region") || strings.Contains(e.Message, "operation error") {
				t.Errorf("region %q, answer %d: %v", region, i, a.Err)
			}
		}
	}
	if got := m.operations(); got != "" {
		t.Errorf("requests are %q, want none", got)
	}
}

// printed is a value in every way that Go prints one.
func printed(t *testing.T, v any) string {
	t.Helper()
	var b strings.Builder
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		fmt.Fprintf(&b, format, v)
	}
	if encoded, err := json.Marshal(v); err == nil {
		b.Write(encoded)
	} else {
		b.WriteString(err.Error())
	}
	var cause error
	if err, ok := v.(error); ok {
		cause = err
	}
	for ; cause != nil; cause = errors.Unwrap(cause) {
		fmt.Fprintf(&b, "%v %+v %#v", cause, cause, cause)
	}
	slog.New(slog.NewJSONHandler(&b, nil)).Info("m", slog.Any("v", v))
	slog.New(slog.NewTextHandler(&b, nil)).Info("m", slog.Any("v", v))
	return b.String()
}

// TestNothingSecretIsPrinted: neither contents nor credentials, of answers and of
// errors that repeat what was sent.
func TestNothingSecretIsPrinted(t *testing.T) {
	t.Parallel()
	binary := current("binary")
	binary.versions[0].binary = []byte(contentsOf)
	m := &memoryAWS{secrets: []*memorySecret{current("a"), binary}, parameters: []*memoryParameter{parameter("p", contentsOf)}}
	answers := read(t, m.store(), as("web"), secretRef("a"), secretRef("binary"), parameterRef("p"))
	region := as("web")
	region.Credentials = aws.CredentialsProviderFunc(nil)
	for i, a := range append(answers, Answer{}) {
		if got := printed(t, a) + printed(t, &a) + printed(t, answers) + printed(t, region); strings.Contains(strings.ToLower(got), "canary") || strings.Contains(got, fmt.Sprintf("%x", "canary")) {
			t.Errorf("answer %d prints as %s", i, got)
		}
	}
	c, failed := m.store().caller(t.Context(), as("web"))
	if failed != nil {
		t.Fatal(failed)
	}
	c.region.Credentials = nil // the caller of Read has it already
	if got := printed(t, c) + printed(t, *c); strings.Contains(got, "canary") {
		t.Errorf("a caller prints as %s", got)
	}
	m.script = func(r request) *reply {
		return failure("InvalidSignatureException", "The request signature we calculated does not match, with "+r.header.Get("X-Amz-Security-Token")+
			".\n\nThe Canonical String for this request should have been\n'POST\n/\n\nx-amz-security-token:"+r.header.Get("X-Amz-Security-Token")+"\nhost:secretsmanager'")
	}
	e := readError(t, m, secretRef("a"))
	if want := "The request signature we calculated does not match, with [redacted]."; e.Message != want || strings.Contains(printed(t, e), "canary") {
		t.Errorf("error prints as %s", printed(t, e))
	}
}

func TestErrorTexts(t *testing.T) {
	t.Parallel()
	m := &memoryAWS{script: func(request) *reply { return failure("AccessDeniedException", "User: x is\n\tnot   authorized") }}
	e := readError(t, m, secretRef("prod/db"))
	if want := `eu-west-1: GetSecretValue "prod/db": AccessDeniedException: User: x is not authorized`; e.Error() != want {
		t.Errorf("error is %s, want %s", e, want)
	}
	e = &Error{Region: home, Operation: "ListSecrets", Message: "no"}
	if want := "eu-west-1: ListSecrets: no"; e.Error() != want {
		t.Errorf("error is %s, want %s", e, want)
	}
	c := &caller{}
	for _, long := range []string{strings.Repeat("x", 5000), strings.Repeat("é", 5000), "x" + strings.Repeat("é", 5000)} {
		if got := c.clean(long); len(got) > maxMessage+3 || len(got) < maxMessage || !strings.HasSuffix(got, "...") || !utf8.ValidString(got) {
			t.Errorf("a text of 5000 has %d bytes, and ends in %q", len(got), got[len(got)-5:])
		}
	}
	for kind := NotFound; kind <= Invalid+1; kind++ {
		if (kind.String() == "unknown") != (kind == Invalid+1) {
			t.Errorf("kind %d has no name", kind)
		}
	}
}

// TestNoCredentials: nothing is asked without.
func TestNoCredentials(t *testing.T) {
	t.Parallel()
	none := errors.New("expired")
	region := Region{Name: home, Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{}, none
	})}
	m := &memoryAWS{}
	s := m.store()
	answers := read(t, s, region, secretRef("a"), secretRef("c").label("AWSCURRENT"), parameterRef("b"))
	wantTexts(t, answers, `bad credentials Sign  "a"`, `bad credentials Sign  "c"`, `bad credentials Sign  "b"`)
	for _, a := range answers {
		if e, ok := errors.AsType[*Error](a.Err); !ok || e.Service != a.Ref.Service || e.Region != home || !errors.Is(e, none) {
			t.Errorf("error is %+v", a.Err)
		}
	}
	if _, err := s.List(t.Context(), region, params.SecretsManager, &params.Select{}); !errors.Is(err, none) {
		t.Errorf("list: %v", err)
	}
	if _, ok, err := s.Versions(t.Context(), region, []Ref{secretRef("a")}); ok || err != nil {
		t.Errorf("versions: %t, %v", ok, err)
	}
	if got := m.operations(); got != "" {
		t.Errorf("requests are %q, want none", got)
	}
}

// cut is a body that ends too soon.
type cut struct{ io.Reader }

func (cut) Close() error { return nil }

func (c cut) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestCutOff: a connection that is lost within an answer.
func TestCutOff(t *testing.T) {
	t.Parallel()
	s := New(Config{AWS: aws.Config{HTTPClient: &http.Client{Transport: transport(func(r *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: http.StatusOK, Request: r, Body: cut{strings.NewReader(`{"SecretString":"` + contentsOf)}}, nil
	})}}})
	a := read(t, s, as("web"), secretRef("a"))[0]
	if e, ok := errors.AsType[*Error](a.Err); !ok || e.Kind != Unavailable || strings.Contains(printed(t, e), "canary") {
		t.Errorf("error is %v", a.Err)
	}
}
