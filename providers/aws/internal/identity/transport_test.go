package identity

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/postern-dev/postern/providers/sdk"
)

// asked is one request that a transport got.
type asked struct {
	host, path    string
	authorization string
	form          url.Values
}

// transport answers requests as a script says, instead of AWS and of the agent.
type transport struct {
	// answer makes the answer to the request of this number, from 1.
	answer func(number int, req asked) answer
	// takes is how long an answer takes.
	takes time.Duration

	mu       sync.Mutex
	requests []asked
	cut      int // requests whose caller left
	open     int // answers that were not closed
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
	one := asked{host: req.URL.Scheme + "://" + req.URL.Host, path: req.URL.Path, authorization: req.Header.Get("Authorization")}
	if req.Body != nil && req.Body != http.NoBody {
		form, err := io.ReadAll(req.Body)
		if err != nil {
			return nil, err
		}
		if one.form, err = url.ParseQuery(string(form)); err != nil {
			return nil, err
		}
	}
	t.mu.Lock()
	t.requests = append(t.requests, one)
	number, takes, script := len(t.requests), t.takes, t.answer
	t.mu.Unlock()
	if takes > 0 {
		select {
		case <-time.After(takes):
		case <-req.Context().Done():
			t.mu.Lock()
			t.cut++
			t.mu.Unlock()
			return nil, req.Context().Err()
		}
	}
	resp, err := script(number, one).response(req)
	if resp != nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.open++
		resp.Body = body{resp.Body, t}
	}
	return resp, err
}

// become changes how it answers from now on.
func (t *transport) become(script func(number int, req asked) answer, takes time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.answer, t.takes = script, takes
}

func (t *transport) all() []asked {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]asked(nil), t.requests...)
}

func (t *transport) count() int { return len(t.all()) }

// answer is what a transport says. Status zero: there is none, because of err.
type answer struct {
	status int
	body   string
	header []string
	err    error
	// cut ends the connection within the body.
	cut bool
}

func (a answer) response(req *http.Request) (*http.Response, error) {
	if a.status == 0 {
		return nil, a.err
	}
	resp := &http.Response{
		Status: fmt.Sprintf("%d %s", a.status, http.StatusText(a.status)), StatusCode: a.status,
		Header: http.Header{}, Body: io.NopCloser(strings.NewReader(a.body)), ContentLength: int64(len(a.body)),
		ProtoMajor: 1, ProtoMinor: 1, Request: req,
	}
	for i := 0; i+1 < len(a.header); i += 2 {
		resp.Header.Set(a.header[i], a.header[i+1])
	}
	if a.cut {
		resp.Body = io.NopCloser(iotest.ErrReader(syscall.ECONNRESET))
	}
	return resp, nil
}

// always gives one answer to every request.
func always(status int, body string, header ...string) func(int, asked) answer {
	return func(int, asked) answer { return answer{status: status, body: body, header: header} }
}

// issued is an answer of STS with credentials of this number, for this life.
func issued(number int, life time.Duration) string {
	return fmt.Sprintf(`<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
  <AssumeRoleWithWebIdentityResult>
    <SubjectFromWebIdentityToken>system:serviceaccount:shop:cart</SubjectFromWebIdentityToken>
    <Credentials>
      <AccessKeyId>canary-id-%[1]d</AccessKeyId>
      <SecretAccessKey>canary-key-%[1]d</SecretAccessKey>
      <SessionToken>canary-session-%[1]d</SessionToken>
      <Expiration>%[2]s</Expiration>
    </Credentials>
  </AssumeRoleWithWebIdentityResult>
</AssumeRoleWithWebIdentityResponse>`, number, time.Now().Add(life).UTC().Format(time.RFC3339))
}

// refusal is an answer of STS with an error.
func refusal(code, message string) string {
	return fmt.Sprintf(`<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
  <Error><Type>Sender</Type><Code>%s</Code><Message>%s</Message></Error><RequestId>r-1</RequestId>
</ErrorResponse>`, code, message)
}

// associated is an answer of the agent.
func associated(life time.Duration) string {
	answer, err := json.Marshal(map[string]any{
		"AccessKeyId": "canary-id", "SecretAccessKey": "canary-key", "Token": "canary-session",
		"AccountId": "111122223333", "Expiration": time.Now().Add(life).UTC(),
	})
	if err != nil {
		panic(err)
	}
	return string(answer)
}

// service answers as STS does, with credentials for an hour.
func service() *transport {
	return &transport{answer: func(number int, _ asked) answer {
		return answer{status: http.StatusOK, body: issued(number, time.Hour)}
	}}
}

const testRole = "arn:aws:iam::111122223333:role/app"

// irsa is a pod's wish, by its role.
func irsa(pod string) Use {
	return Use{
		Subject: Subject{Namespace: "shop", ServiceAccount: "cart"}, RoleARN: testRole, Region: "eu-west-1",
		Token: sdk.NewSecretString("canary-jwt-" + pod), Expiry: time.Now().Add(time.Hour),
	}
}

// podIdentity is a pod's wish, by its association.
func podIdentity(pod string) Use {
	u := irsa(pod)
	u.PodIdentity, u.RoleARN, u.Region = true, "", ""
	return u
}

// manager returns a Manager whose requests go to the transport.
func manager(t *transport, change func(*Config)) *Manager {
	client := &http.Client{Transport: t}
	cfg := Config{
		AWS:             aws.Config{HTTPClient: client, Credentials: aws.AnonymousCredentials{}},
		AgentHTTPClient: client, Logger: slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&cfg)
	}
	return New(cfg)
}

// session acquires, and fails the test if it cannot.
func session(t *testing.T, m *Manager, use Use) Session {
	t.Helper()
	s, err := m.Acquire(t.Context(), use)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// keyID is that of a session's credentials.
func keyID(t *testing.T, s Session) string {
	t.Helper()
	credentials, err := s.Provider().Retrieve(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return credentials.AccessKeyID
}
