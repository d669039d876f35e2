package identity

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-dev/postern/providers/aws/internal/params"
	"github.com/postern-dev/postern/providers/sdk"
)

func TestPodIdentity(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &transport{answer: always(http.StatusOK, associated(time.Hour))}
		m := manager(s, nil)
		got := session(t, m, podIdentity("a"))
		want := []asked{{host: "http://169.254.170.23", path: "/v1/credentials", authorization: "canary-jwt-a"}}
		if diff := cmp.Diff(want, s.all(), cmp.AllowUnexported(asked{})); diff != "" {
			t.Errorf("requests (-want +got):\n%s", diff)
		}
		credentials, err := got.Provider().Retrieve(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if credentials.AccessKeyID != "canary-id" || credentials.SecretAccessKey != "canary-key" ||
			credentials.SessionToken != "canary-session" || credentials.AccountID != "111122223333" ||
			time.Until(credentials.Expires) != time.Hour {
			t.Errorf("credentials %+v are not the agent's", credentials)
		}
		if got.RoleARN() != "" {
			t.Errorf("role %s, which nobody has told", got.RoleARN())
		}
	})
}

func TestAgentAnswers(t *testing.T) {
	t.Parallel()
	const (
		retried   = 3
		malformed = "the answer is none of the agent: check what is at its address"
	)
	for name, test := range map[string]struct {
		status   int
		body     string
		life     time.Duration // of credentials, instead of a body
		header   []string
		want     Error
		attempts int
	}{
		"no association": {
			status: 404, attempts: 1,
			body: "[r-1]: (ResourceNotFoundException): No association found for service account, fault: client",
			want: Error{Kind: Denied, Code: "ResourceNotFoundException", Status: 404, Message: "No association found for service account"},
		},
		"denied": {
			status: 400, body: "[r-1]: (AccessDeniedException): Unauthorized Exception! EKS does not have permissions to assume the associated role., fault: client\n", attempts: 1,
			want: Error{Kind: Denied, Code: "AccessDeniedException", Status: 400, Message: "Unauthorized Exception! EKS does not have permissions to assume the associated role."},
		},
		"denied by the agent itself": {
			status: 403, body: "Access Denied. no", attempts: 1,
			want: Error{Kind: Denied, Status: 403, Message: "Access Denied. no"},
		},
		"expired": {
			status: 400, body: "[r-1]: (ExpiredTokenException): Expired token, fault: client", attempts: 1,
			want: Error{Kind: TokenExpired, Code: "ExpiredTokenException", Status: 400, Message: "Expired token"},
		},
		"as JSON": {
			status: 400, body: `{"code": "InvalidTokenException", "message": "bad"}`, attempts: 1,
			want: Error{Kind: Denied, Code: "InvalidTokenException", Status: 400, Message: "bad"},
		},
		"JSON of another kind": {
			status: 400, body: `{"error": "bad"}`, attempts: 1,
			want: Error{Kind: Denied, Status: 400, Message: `{"error": "bad"}`},
		},
		"throttled": {
			status: 429, body: "Too Many Requests. slow", attempts: retried, header: []string{"Retry-After", "1"},
			want: Error{Kind: Throttled, Status: 429, Message: "Too Many Requests. slow", RetryAfter: time.Second},
		},
		"throttled for long": {
			status: 429, body: "slow", attempts: 1, header: []string{"Retry-After", "3"},
			want: Error{Kind: Throttled, Status: 429, Message: "slow", RetryAfter: 3 * time.Second},
		},
		"throttled by AWS": {
			status: 400, body: "[r-1]: (ThrottlingException): Rate exceeded, fault: client", attempts: retried,
			want: Error{Kind: Throttled, Code: "ThrottlingException", Status: 400, Message: "Rate exceeded"},
		},
		"broken": {
			status: 500, body: "unable to fetch credentials", attempts: retried,
			want: Error{Kind: Unavailable, Status: 500, Message: "unable to fetch credentials"},
		},
		"moved": {
			status: 307, attempts: retried, header: []string{"Location", "http://169.254.169.254/"},
			want: Error{Kind: Unavailable, Status: 307},
		},
		"malformed": {
			status: 200, body: `{"AccessKeyId": "canary`, attempts: retried,
			want: Error{Kind: Unavailable, Status: 200, Message: malformed},
		},
		"no time": {
			status: 200, body: `{"AccessKeyId": "canary-1", "Expiration": "canary-2"}`, attempts: retried,
			want: Error{Kind: Unavailable, Status: 200, Message: malformed},
		},
		"endless": {
			status: 200, attempts: retried,
			body: `{"Padding": "` + strings.Repeat("x", 1<<20) + `", "AccessKeyId": "canary-1", "SecretAccessKey": "canary-2",
				"Token": "canary-3", "Expiration": "2100-01-01T00:00:00Z"}`,
			want: Error{Kind: Unavailable, Status: 200, Message: malformed},
		},
		"empty": {
			status: 200, body: `{}`, attempts: 1,
			want: Error{Kind: Unavailable, Message: "the answer holds no credentials"},
		},
		"half of the credentials": {
			status: 200, body: strings.ReplaceAll(associated(time.Hour), "canary-key", ""), attempts: 1,
			want: Error{Kind: Unavailable, Message: "the answer holds no credentials"},
		},
		"without an end": {
			status: 200, body: `{"AccessKeyId": "canary-1", "SecretAccessKey": "canary-2", "Token": "canary-3"}`, attempts: 1,
			want: Error{Kind: Unavailable, Message: "the answer does not say when the credentials expire"},
		},
		"expired on arrival": {
			status: 200, attempts: 1, life: -time.Minute,
			want: Error{Kind: Unavailable, Message: "the credentials have expired when they arrive, at "},
		},
		"repeats the token": {
			status: 400, body: "bad token canary-jwt-a", attempts: 1,
			want: Error{Kind: Denied, Status: 400, Message: "bad token [redacted]"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				if test.life != 0 {
					test.body = associated(test.life)
				}
				s := &transport{answer: always(test.status, test.body, test.header...)}
				_, err := manager(s, nil).Acquire(t.Context(), podIdentity("a"))
				e := failure(t, err)
				test.want.Operation = OperationPodIdentity
				if strings.HasSuffix(test.want.Message, " at ") && strings.HasPrefix(e.Message, test.want.Message) {
					e.Message = test.want.Message // a time follows
				}
				if diff := cmp.Diff(test.want, *e); diff != "" {
					t.Errorf("error (-want +got):\n%s", diff)
				}
				if s.count() != test.attempts || e.AllowsFailover() {
					t.Errorf("%d attempts, failover %v; want %d, and no failover", s.count(), e.AllowsFailover(), test.attempts)
				}
				if s.open != 0 {
					t.Errorf("%d answers are left open", s.open)
				}
				noCanary(t, err)
			})
		})
	}
}

// TestAgentIsNotAskedInVain: nobody waits any more.
func TestAgentIsNotAskedInVain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, leave := context.WithCancel(t.Context())
		s := &transport{answer: func(int, asked) answer {
			leave()
			return answer{status: http.StatusServiceUnavailable, header: []string{"Retry-After", "1"}}
		}}
		if _, err := manager(s, nil).Acquire(ctx, podIdentity("a")); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
		pass(time.Minute)
		if s.count() != 1 {
			t.Errorf("asked %d times, want once", s.count())
		}
	})
}

// TestAddressType: which addresses are asked, and in which order, by whether the
// agent can be reached by them.
func TestAddressType(t *testing.T) {
	t.Parallel()
	const four, six = "http://169.254.170.23", "http://[fd00:ec2::23]"
	for name, test := range map[string]struct {
		by      params.AddressType
		works   string // address
		status  int    // of the one that works
		want    string // hosts asked
		wantErr string
	}{
		"auto":                           {by: params.Auto, works: four, want: four},
		"not set":                        {works: four, want: four},
		"auto, by IPv6 only":             {by: params.Auto, works: six, want: four + " " + six},
		"auto, refused by IPv4":          {by: params.Auto, works: four, status: 403, want: four, wantErr: "HTTP status 403"},
		"auto, refused by IPv6":          {by: params.Auto, works: six, status: 403, want: four + " " + six, wantErr: "HTTP status 403"},
		"auto, none":                     {by: params.Auto, want: strings.Repeat(" "+four+" "+six, 3)[1:], wantErr: "[fd00:ec2::23]"},
		"IPv4":                           {by: params.IPv4, works: four, want: four},
		"IPv4, which does not work":      {by: params.IPv4, works: six, want: strings.Repeat(" "+four, 3)[1:], wantErr: "connection refused"},
		"IPv6":                           {by: params.IPv6, works: six, want: six},
		"IPv6, which does not work":      {by: params.IPv6, works: four, want: strings.Repeat(" "+six, 3)[1:], wantErr: "connection refused"},
		"auto, cut off while it answers": {by: params.Auto, works: six, status: -1, want: four + " " + six},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &transport{answer: func(_ int, one asked) answer {
					switch {
					case one.host != test.works && test.status == -1:
						return answer{status: http.StatusOK, cut: true}
					case one.host != test.works:
						return answer{err: syscall.ECONNREFUSED}
					case test.status > 0:
						return answer{status: test.status, body: "no"}
					default:
						return answer{status: http.StatusOK, body: associated(time.Hour)}
					}
				}}
				use := podIdentity("a")
				use.AddressType = test.by
				_, err := manager(s, nil).Acquire(t.Context(), use)
				if (err == nil) != (test.wantErr == "") || err != nil && !strings.Contains(err.Error(), test.wantErr) {
					t.Errorf("error %v, want %q", err, test.wantErr)
				}
				var hosts []string
				for _, one := range s.all() {
					hosts = append(hosts, one.host)
				}
				if got := strings.Join(hosts, " "); got != test.want {
					t.Errorf("asked %s, want %s", got, test.want)
				}
			})
		})
	}
}

// TestAgentTimeout: an address that swallows packets leaves time for the other.
func TestAgentTimeout(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		set, want time.Duration
	}{
		"default": {want: DefaultAgentTimeout},
		"set":     {set: time.Second, want: time.Second},
		"long":    {set: 2 * time.Minute, want: 2 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &swallower{works: "[fd00:ec2::23]"}
				m := manager(nil, func(c *Config) {
					c.AgentHTTPClient, c.AgentTimeout = &http.Client{Transport: s}, test.set
				})
				start := time.Now()
				session(t, m, podIdentity("a"))
				if took := time.Since(start); took != test.want {
					t.Errorf("IPv6 was asked after %s, want %s", took, test.want)
				}
				s.works = ""
				start = time.Now()
				_, err := m.Acquire(t.Context(), podIdentityOf("other"))
				if e := failure(t, err); e.Kind != Unavailable || e.Status != 0 {
					t.Errorf("error %v, want Unavailable", err)
				}
				if took := time.Since(start); took != 2*test.want {
					t.Errorf("given up after %s, want one try of each: %s", took, 2*test.want)
				}
			})
		})
	}
}

func podIdentityOf(account string) Use {
	u := podIdentity("a")
	u.Subject.ServiceAccount = account
	return u
}

// swallower lets nothing through but to one host.
type swallower struct{ works string }

func (s *swallower) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Host == s.works {
		return answer{status: http.StatusOK, body: associated(time.Hour)}.response(req)
	}
	<-req.Context().Done()
	return nil, req.Context().Err()
}

// TestAgentEndpoints: other addresses, with a real server and the client that is
// used by default.
func TestAgentEndpoints(t *testing.T) {
	t.Parallel()
	requests := make(chan string, 10)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests <- fmt.Sprintf("%s %s %s", r.Method, r.URL.Path, r.Header.Get("Authorization"))
		_, _ = w.Write([]byte(associated(time.Hour)))
	}))
	t.Cleanup(server.Close)
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	m := manager(nil, func(c *Config) {
		c.AgentHTTPClient = nil
		c.AgentEndpoints = AgentEndpoints{IPv4: gone.URL + "/four", IPv6: server.URL + "/six"}
	})
	session(t, m, podIdentity("a"))
	if got := <-requests; got != "GET /six canary-jwt-a" || len(requests) != 0 {
		t.Errorf("request %s, and %d more", got, len(requests))
	}
}

// TestAgentEndpointIsNone: that does not get better.
func TestAgentEndpointIsNone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		m := manager(nil, func(c *Config) { c.AgentEndpoints.IPv4 = "http://[::" })
		_, err := m.Acquire(t.Context(), podIdentity("a"))
		if e := failure(t, err); e.Kind != Invalid || time.Since(start) != 0 {
			t.Errorf("error %v after %s, want Invalid at once", err, time.Since(start))
		}
	})
}

// TestAgentWithoutProxy: the proxy of the environment is for AWS.
func TestAgentWithoutProxy(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://proxy.test:3128")
	transport, ok := newAgent(Config{}).client.Transport.(*http.Transport)
	if !ok || transport.Proxy != nil {
		t.Errorf("transport %+v goes through a proxy", transport)
	}
}

// TestTokenThatIsNone: a token that would break the request is not sent, and not
// in the error.
func TestTokenThatIsNone(t *testing.T) {
	t.Parallel()
	m := manager(nil, func(c *Config) { c.AgentHTTPClient, c.AgentEndpoints.IPv4 = nil, "http://127.0.0.1:1" })
	use := podIdentity("a")
	use.AddressType, use.Token = params.IPv4, sdk.NewSecretString("canary\r\nX-Evil: 1")
	_, err := m.Acquire(t.Context(), use)
	if e := failure(t, err); errors.Is(e, syscall.ECONNREFUSED) {
		t.Errorf("error %v: it was sent", e)
	}
	noCanary(t, err)
}
