package identity

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/google/go-cmp/cmp"
)

func TestAssumeRole(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := service()
		m := manager(s, nil)
		got := session(t, m, irsa("a"))
		want := []asked{{
			host: "https://sts.eu-west-1.amazonaws.com", path: "/",
			form: map[string][]string{
				"Action": {"AssumeRoleWithWebIdentity"}, "Version": {"2011-06-15"}, "RoleArn": {testRole},
				"RoleSessionName": {"shop.cart"}, "WebIdentityToken": {"canary-jwt-a"},
			},
		}}
		if diff := cmp.Diff(want, s.all(), cmp.AllowUnexported(asked{})); diff != "" {
			t.Errorf("requests (-want +got):\n%s", diff)
		}
		credentials, err := got.Provider().Retrieve(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if credentials.AccessKeyID != "canary-id-1" || credentials.SecretAccessKey != "canary-key-1" ||
			credentials.SessionToken != "canary-session-1" || !credentials.CanExpire || time.Until(credentials.Expires) != time.Hour {
			t.Errorf("credentials %+v are not those that were issued", credentials)
		}
		if got.Cached() || got.RoleARN() != testRole || time.Until(got.Expires()) != time.Hour {
			t.Errorf("%v: cached %v, role %s, expires %s", got, got.Cached(), got.RoleARN(), got.Expires())
		}
	})
}

// TestEndpoints: which STS is asked, as the SDK's variables say.
func TestEndpoints(t *testing.T) {
	for name, test := range map[string]struct {
		region string
		env    map[string]string
		want   string
	}{
		"regional":   {region: "us-east-1", want: "https://sts.us-east-1.amazonaws.com"},
		"China":      {region: "cn-north-1", want: "https://sts.cn-north-1.amazonaws.com.cn"},
		"FIPS":       {region: "us-west-2", env: map[string]string{"AWS_USE_FIPS_ENDPOINT": "true"}, want: "https://sts-fips.us-west-2.amazonaws.com"},
		"own":        {region: "eu-west-1", env: map[string]string{"AWS_ENDPOINT_URL_STS": "http://sts.test:9000"}, want: "http://sts.test:9000"},
		"own of all": {region: "eu-west-1", env: map[string]string{"AWS_ENDPOINT_URL": "http://aws.test"}, want: "http://aws.test"},
	} {
		t.Run(name, func(t *testing.T) {
			for key, value := range test.env {
				t.Setenv(key, value)
			}
			s := service()
			m := manager(s, loaded(t, s))
			use := irsa("a")
			use.Region = test.region
			session(t, m, use)
			if got := s.all()[0].host; got != test.want {
				t.Errorf("asked %s, want %s", got, test.want)
			}
		})
	}
}

// loaded takes what the SDK finds in the environment.
func loaded(t *testing.T, s *transport) func(*Config) {
	t.Helper()
	cfg, err := config.LoadDefaultConfig(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	cfg.HTTPClient = &http.Client{Transport: s}
	return func(c *Config) { c.AWS = cfg }
}

// TestOwnIdentityIsNotUsed: the process may be allowed everything by all that the
// SDK looks for. A pod gets what its own token gives, or nothing.
func TestOwnIdentityIsNotUsed(t *testing.T) {
	for key, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": "own-id", "AWS_SECRET_ACCESS_KEY": "own-key", "AWS_SESSION_TOKEN": "own-session",
		"AWS_ROLE_ARN": "arn:aws:iam::111122223333:role/own", "AWS_WEB_IDENTITY_TOKEN_FILE": "/own/token",
		"AWS_ROLE_SESSION_NAME": "own", "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1/own",
		"AWS_CONTAINER_AUTHORIZATION_TOKEN": "own-authorization", "AWS_REGION": "us-east-1",
	} {
		t.Setenv(key, value)
	}
	s := &transport{answer: always(http.StatusForbidden, refusal("AccessDenied", "not authorized"))}
	m := manager(s, loaded(t, s))
	nobody := irsa("a")
	nobody.RoleARN = ""
	for _, use := range []Use{nobody, irsa("a"), podIdentity("a")} {
		if got, err := m.Acquire(t.Context(), use); err == nil {
			t.Errorf("credentials for one who is refused: %s", keyID(t, got))
		}
	}
	if s.count() != 2 {
		t.Errorf("%d requests, want one of STS and one of the agent", s.count())
	}
	for _, one := range s.all() {
		if text := fmt.Sprintf("%+v", one); strings.Contains(text, "own") {
			t.Errorf("the process' own identity is in a request: %s", text)
		}
	}
	if own := m.sts.(*tokenService).client("eu-west-1").Options().Credentials; own != nil {
		t.Errorf("STS' client has credentials: %T", own)
	}
	s.become(service().answer, 0)
	if got := keyID(t, session(t, m, irsa("b"))); got != "canary-id-3" {
		t.Errorf("credentials %s, want those that STS has given", got)
	}
}

func TestSTSAnswers(t *testing.T) {
	t.Parallel()
	const retried = 3
	for name, test := range map[string]struct {
		status   int
		body     string
		life     time.Duration // of credentials, instead of a body
		header   []string
		want     Error
		attempts int
		failover bool
	}{
		"trust policy": {
			status: 403, body: refusal("AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity"), attempts: 1,
			want: Error{Kind: Denied, Code: "AccessDenied", Status: 403, Message: "Not authorized to perform sts:AssumeRoleWithWebIdentity"},
		},
		"expired token": {
			status: 400, body: refusal("ExpiredTokenException", "Token expired: current date/time 1 must be before 2"), attempts: 1,
			want: Error{Kind: TokenExpired, Code: "ExpiredTokenException", Status: 400, Message: "Token expired: current date/time 1 must be before 2"},
		},
		"unknown issuer": {
			status: 400, body: refusal("InvalidIdentityToken", "No OpenIDConnect provider found in your account for https://oidc.test"), attempts: 1,
			want: Error{Kind: Denied, Code: "InvalidIdentityToken", Status: 400, Message: "No OpenIDConnect provider found in your account for https://oidc.test"},
		},
		"rejected claim": {
			status: 403, body: refusal("IDPRejectedClaim", "claim"), attempts: 1,
			want: Error{Kind: Denied, Code: "IDPRejectedClaim", Status: 403, Message: "claim"},
		},
		"issuer cannot be reached": {
			status: 400, body: refusal("IDPCommunicationError", "timeout"), attempts: retried,
			want: Error{Kind: Unavailable, Code: "IDPCommunicationError", Status: 400, Message: "timeout"},
		},
		"region not activated": {
			status: 403, body: refusal("RegionDisabledException", "STS is not activated in this region"), attempts: 1,
			want: Error{Kind: Denied, Code: "RegionDisabledException", Status: 403, Message: "STS is not activated in this region"},
		},
		"bad role": {
			status: 400, body: refusal("ValidationError", "not a valid ARN"), attempts: 1,
			want: Error{Kind: Denied, Code: "ValidationError", Status: 400, Message: "not a valid ARN"},
		},
		"throttled": {
			status: 400, body: refusal("Throttling", "Rate exceeded"), attempts: retried, header: []string{"Retry-After", "7"},
			want: Error{Kind: Throttled, Code: "Throttling", Status: 400, Message: "Rate exceeded", RetryAfter: 7 * time.Second},
		},
		"too many requests": {
			status: 429, body: refusal("TooManyRequestsException", "slow"), attempts: retried,
			want: Error{Kind: Throttled, Code: "TooManyRequestsException", Status: 429, Message: "slow"},
		},
		"broken": {
			status: 500, body: refusal("InternalFailure", "oops"), attempts: retried, failover: true,
			want: Error{Kind: Unavailable, Code: "InternalFailure", Status: 500, Message: "oops"},
		},
		"unavailable, without a text": {
			status: 503, body: "", attempts: retried, failover: true,
			want: Error{Kind: Unavailable, Status: 503, Message: "the answer is none of AWS' STS: check what is at its endpoint, such as a proxy"},
		},
		"forbidden, without a text": {
			status: 403, body: "", attempts: 1,
			want: Error{Kind: Unavailable, Status: 403, Message: "the answer is none of AWS' STS: check what is at its endpoint, such as a proxy"},
		},
		"a proxy's": {
			status: 403, body: "<html><body>canary", attempts: 1,
			want: Error{Kind: Unavailable, Status: 403, Message: "the answer is none of AWS' STS: check what is at its endpoint, such as a proxy"},
		},
		"malformed": {
			status: 200, body: "<AssumeRoleWithWebIdentityResponse><canary", attempts: 1, failover: true,
			want: Error{Kind: Unavailable, Status: 200, Message: "the answer is none of AWS' STS: check what is at its endpoint, such as a proxy"},
		},
		"empty": {
			status: 200, body: "", attempts: 1, failover: true,
			want: Error{Kind: Unavailable, Message: "the answer holds no credentials"},
		},
		"half of the credentials": {
			status: 200, body: strings.ReplaceAll(issued(1, time.Hour), "canary-session-1", ""), attempts: 1, failover: true,
			want: Error{Kind: Unavailable, Message: "the answer holds no credentials"},
		},
		"without an end": {
			status: 200, body: regexp.MustCompile(`<Exp.*ation>`).ReplaceAllString(issued(1, time.Hour), ""), attempts: 1, failover: true,
			want: Error{Kind: Unavailable, Message: "the answer does not say when the credentials expire"},
		},
		"expired on arrival": {
			status: 200, attempts: 1, failover: true, life: -time.Minute,
			want: Error{Kind: Unavailable, Message: "the credentials have expired when they arrive, at "},
		},
		"repeats the token": {
			status: 400, body: refusal("InvalidIdentityToken", "bad token canary-jwt-a\n\tthere"), attempts: 1,
			want: Error{Kind: Denied, Code: "InvalidIdentityToken", Status: 400, Message: "bad token [redacted] there"},
		},
		"talks too much": {
			status: 400, body: refusal("InvalidIdentityToken", strings.Repeat("é", 600)), attempts: 1,
			want: Error{Kind: Denied, Code: "InvalidIdentityToken", Status: 400, Message: strings.Repeat("é", 500) + "…"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				if test.life != 0 {
					test.body = issued(1, test.life)
				}
				s := &transport{answer: always(test.status, test.body, test.header...)}
				_, err := manager(s, nil).Acquire(t.Context(), irsa("a"))
				e := failure(t, err)
				test.want.Operation = OperationAssumeRole
				if strings.HasSuffix(test.want.Message, " at ") && strings.HasPrefix(e.Message, test.want.Message) {
					e.Message = test.want.Message // a time follows
				}
				if diff := cmp.Diff(test.want, *e); diff != "" {
					t.Errorf("error (-want +got):\n%s", diff)
				}
				if s.count() != test.attempts || e.AllowsFailover() != test.failover {
					t.Errorf("%d attempts, failover %v; want %d, %v", s.count(), e.AllowsFailover(), test.attempts, test.failover)
				}
				noCanary(t, err)
			})
		})
	}
}

// TestSTSDoesNotAnswer: no connection, and none in time.
func TestSTSDoesNotAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &transport{answer: func(int, asked) answer { return answer{err: syscall.ECONNREFUSED} }}
		_, err := manager(s, nil).Acquire(t.Context(), irsa("a"))
		e := failure(t, err)
		if e.Kind != Unavailable || !errors.Is(err, syscall.ECONNREFUSED) || !e.AllowsFailover() ||
			!strings.Contains(e.Error(), "sts.eu-west-1.amazonaws.com") || !strings.Contains(e.Error(), "connection refused") {
			t.Errorf("error %v, want Unavailable with where and why", err)
		}
		hangs := &transport{takes: time.Hour}
		start := time.Now()
		_, err = manager(hangs, nil).Acquire(t.Context(), irsa("a"))
		e = failure(t, err)
		if e.Kind != Unavailable || !strings.Contains(e.Error(), "no answer in time") || !e.AllowsFailover() {
			t.Errorf("error %v, want Unavailable", err)
		}
		if took := time.Since(start); took > time.Minute {
			t.Errorf("a login that nobody answers ends after %s", took)
		}
	})
}

// failure is the error that Acquire promises.
func failure(t *testing.T, err error) *Error {
	t.Helper()
	e, ok := err.(*Error) //nolint:errorlint // it is not wrapped
	if !ok {
		t.Fatalf("error %v (%T), want an *Error", err, err)
	}
	return e
}

// TestRetryIsOfUse: what passes is not the pod's trouble.
func TestRetryIsOfUse(t *testing.T) {
	t.Parallel()
	for _, use := range []Use{irsa("a"), podIdentity("a")} {
		synctest.Test(t, func(t *testing.T) {
			s := &transport{answer: func(number int, _ asked) answer {
				switch {
				case number < 3:
					return answer{status: http.StatusServiceUnavailable, body: ""}
				case use.PodIdentity:
					return answer{status: http.StatusOK, body: associated(time.Hour)}
				default:
					return answer{status: http.StatusOK, body: issued(number, time.Hour)}
				}
			}}
			session(t, manager(s, nil), use)
			if s.count() != 3 {
				t.Errorf("%d attempts, want 3", s.count())
			}
		})
	}
}

func TestSessionName(t *testing.T) {
	t.Parallel()
	valid := regexp.MustCompile(`^[\w+=,.@-]{2,64}$`)
	long := strings.Repeat("n", 63)
	seen := map[string]Subject{}
	for _, test := range []struct {
		subject Subject
		want    string
	}{
		{Subject{"shop", "cart"}, "shop.cart"},
		{Subject{"a", "b"}, "a.b"},
		{Subject{"shop", "cart.v2"}, "shop.cart.v2"},
		{Subject{long[:31], long[:32]}, long[:31] + "." + long[:32]},
		{Subject{long, "cart"}, long[:55] + "-"},
		{Subject{long, "other"}, long[:55] + "-"},
		{Subject{"shop", strings.Repeat("s", 253)}, "shop." + strings.Repeat("s", 50) + "-"},
		{Subject{"shop", "a:b"}, "shop.a-b-"},
		{Subject{"shop", "a/b"}, "shop.a-b-"},
		{Subject{"shop", "ä"}, "shop.--"},
	} {
		got := sessionName(test.subject)
		if !valid.MatchString(got) {
			t.Errorf("%+v: AWS does not accept %q", test.subject, got)
		}
		if digest := strings.TrimPrefix(got, test.want); got != test.want && (len(digest) != 8 || digest == got) {
			t.Errorf("%+v: %q, want %q and a digest if that is not all", test.subject, got, test.want)
		}
		if other, ok := seen[got]; ok {
			t.Errorf("%+v and %+v are both %q", test.subject, other, got)
		}
		seen[got] = test.subject
	}
}

// TestRegionsAreBounded: regions are what classes say.
func TestRegionsAreBounded(t *testing.T) {
	t.Parallel()
	s := manager(service(), nil).sts.(*tokenService)
	kept := s.client("eu-west-1")
	if s.client("eu-west-1") != kept {
		t.Error("a region's client is not kept")
	}
	for i := range 10 * maxClients {
		s.client(fmt.Sprintf("no-region-%d", i))
	}
	if len(s.clients) > maxClients {
		t.Errorf("%d clients are kept", len(s.clients))
	}
}
