package gcp_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	parametermanager "cloud.google.com/go/parametermanager/apiv1"
	secretmanager "cloud.google.com/go/secretmanager/apiv1"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/api/option"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/postern-dev/postern/test/gcp"
	"github.com/postern-dev/postern/test/gcp/control"
	"github.com/postern-dev/postern/test/token"
)

// childVariable has the test binary be a program that knows nothing of the double.
const childVariable = "POSTERN_TEST_GCP_CHILD"

func TestMain(m *testing.M) {
	if name := os.Getenv(childVariable); name != "" {
		os.Exit(child(name))
	}
	goleak.VerifyTestMain(m)
}

const (
	number      = "123456789012"
	app         = "app@shop.iam.gserviceaccount.com"
	issuer      = "https://container.googleapis.com/v1/projects/shop/locations/europe-west1/clusters/one"
	subject     = "system:serviceaccount:web:front"
	pool        = "shop.svc.id.goog"
	gkeAudience = "identitynamespace:" + pool + ":" + issuer
	ksaMember   = "serviceAccount:" + pool + "[web/front]"
	ksa         = "principal://iam.googleapis.com/projects/" + number + "/locations/global/workloadIdentityPools/" + pool + "/subject/ns/web/sa/front"
	onprem      = "//iam.googleapis.com/projects/" + number + "/locations/global/workloadIdentityPools/onprem/providers/k8s"
	onpremUser  = "principal://iam.googleapis.com/projects/" + number + "/locations/global/workloadIdentityPools/onprem/subject/" + subject
	accessor    = "roles/secretmanager.secretAccessor"
	globalHost  = "secretmanager.googleapis.com"
	westHost    = "secretmanager.europe-west1.rep.googleapis.com"
)

// signer is the issuer's. All share it: making one takes long.
var signer = sync.OnceValues(func() (*token.Signer, error) { return token.NewSigner("one") })

// double is a running double, and a client of its control API.
type double struct {
	*control.Client

	server *gcp.Server
	http   *http.Client
}

// start starts a double in which app may do everything in the project shop. At the
// end no request may have broken Google's protocols.
func start(t *testing.T, cfg gcp.Config) *double {
	t.Helper()
	d := startUnchecked(t, cfg)
	t.Cleanup(func() {
		violations, err := d.Violations(context.WithoutCancel(t.Context()))
		if err != nil {
			t.Error(err)
		}
		for _, v := range violations {
			t.Errorf("violation: %+v", v)
		}
	})
	return d
}

func startUnchecked(t *testing.T, cfg gcp.Config) *double {
	t.Helper()
	server, err := gcp.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	d := &double{Client: server.Control(), server: server, http: &http.Client{Transport: through(t, server)}}
	t.Cleanup(func() {
		d.http.CloseIdleConnections()
		d.Close()
		server.Close()
	})
	d.apply(t, control.Document{
		Issuers:         []control.Issuer{{URL: issuer, JWKS: keys(t).JWKS()}},
		Projects:        []control.Project{{ID: "shop", Number: number}},
		ServiceAccounts: []control.ServiceAccount{{Email: app}},
		Pools: []control.Pool{
			{Project: "shop", ID: pool, Providers: []control.Provider{{ID: issuer, Issuer: issuer}}},
			{Project: number, ID: "onprem", Providers: []control.Provider{{ID: "k8s", Issuer: issuer}}},
		},
		Bindings: []control.Binding{
			{Resource: "projects/shop", Role: "roles/secretmanager.admin", Members: []string{"serviceAccount:" + app}},
			{Resource: "projects/shop", Role: "roles/parametermanager.parameterAccessor", Members: []string{"serviceAccount:" + app}},
		},
	})
	return d
}

func keys(t *testing.T) *token.Signer {
	t.Helper()
	s, err := signer()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func roots(t *testing.T, server *gcp.Server) *tls.Config {
	t.Helper()
	certificates := x509.NewCertPool()
	if !certificates.AppendCertsFromPEM([]byte(server.CA())) {
		t.Fatal("no certificate of the authority")
	}
	return &tls.Config{RootCAs: certificates, MinVersion: tls.VersionTLS12}
}

// through connects by the proxy, as HTTPS_PROXY and SSL_CERT_FILE have a program do.
func through(t *testing.T, server *gcp.Server) *http.Transport {
	t.Helper()
	proxy, err := url.Parse(server.Addresses.Proxy)
	if err != nil {
		t.Fatal(err)
	}
	https := func(r *http.Request) (*url.URL, error) {
		if r.URL.Scheme == "http" {
			return nil, nil //nolint:nilnil // no proxy, as net/http wants it said
		}
		return proxy, nil
	}
	return &http.Transport{Proxy: https, TLSClientConfig: roots(t, server), ForceAttemptHTTP2: true}
}

// bearer is an access token as gRPC sends it.
type bearer string

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	if b == "" {
		return nil, nil //nolint:nilnil // nothing is sent
	}
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials.
func (bearer) RequireTransportSecurity() bool { return true }

// dial connects to a host by the proxy.
func (d *double) dial(t *testing.T, host string, as bearer, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	proxy := strings.TrimPrefix(d.server.Addresses.Proxy, "http://")
	connection, err := grpc.NewClient("passthrough:///"+host, append(options, grpc.WithPerRPCCredentials(as),
		grpc.WithTransportCredentials(credentials.NewTLS(roots(t, d.server))),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return connect(ctx, proxy, host) }))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = connection.Close() })
	return connection
}

// connect asks a proxy for a connection to a host.
func connect(ctx context.Context, proxy, host string) (net.Conn, error) {
	connection, err := new(net.Dialer).DialContext(ctx, "tcp", proxy)
	if err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintf(connection, "CONNECT %s:443 HTTP/1.1\r\nHost: %s:443\r\n\r\n", host, host); err != nil {
		return nil, errors.Join(err, connection.Close())
	}
	resp, err := http.ReadResponse(bufio.NewReader(connection), nil)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	if err != nil {
		return nil, errors.Join(err, connection.Close())
	}
	return connection, resp.Body.Close()
}

// secretsAt is Google's client of an endpoint, which does not try again.
func (d *double) secretsAt(t *testing.T, host string, as bearer) *secretmanager.Client {
	t.Helper()
	c, err := secretmanager.NewClient(t.Context(), option.WithGRPCConn(d.dial(t, host, as)))
	if err != nil {
		t.Fatal(err)
	}
	c.CallOptions = &secretmanager.CallOptions{}
	return c
}

func (d *double) secrets(t *testing.T) *secretmanager.Client {
	t.Helper()
	return d.secretsAt(t, globalHost, d.given(t, control.TokenRequest{Principal: app}))
}

func (d *double) parametersAt(t *testing.T, host string) *parametermanager.Client {
	t.Helper()
	as := d.given(t, control.TokenRequest{Principal: app})
	c, err := parametermanager.NewClient(t.Context(), option.WithGRPCConn(d.dial(t, host, as)))
	if err != nil {
		t.Fatal(err)
	}
	c.CallOptions = &parametermanager.CallOptions{}
	return c
}

func (d *double) apply(t *testing.T, document control.Document) control.Applied {
	t.Helper()
	applied, err := d.Apply(t.Context(), document)
	if err != nil {
		t.Fatal(err)
	}
	return applied
}

// bind grants a role on a resource to members.
func (d *double) bind(t *testing.T, resource, role string, members ...string) {
	t.Helper()
	d.apply(t, control.Document{Bindings: []control.Binding{{Resource: resource, Role: role, Members: members}}})
}

// given is a token without a login.
func (d *double) given(t *testing.T, r control.TokenRequest) bearer {
	t.Helper()
	if r.Lifetime == 0 {
		r.Lifetime = control.Duration(time.Hour)
	}
	if r.Scopes == nil {
		r.Scopes = []string{"https://www.googleapis.com/auth/cloud-platform"}
	}
	answer, err := d.AccessToken(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return bearer(answer.AccessToken)
}

// claims are what a token says; a test changes some.
type claims struct {
	Issuer    string   `json:"iss"`
	Subject   string   `json:"sub"`
	Audience  []string `json:"aud"`
	Expiry    int64    `json:"exp"`
	NotBefore int64    `json:"nbf"`
}

// podToken is a pod's token, but for what change changes.
func podToken(t *testing.T, change func(*claims)) string {
	t.Helper()
	c := claims{Issuer: issuer, Subject: subject, Audience: []string{pool}, Expiry: time.Now().Add(time.Hour).Unix(), NotBefore: time.Now().Add(-time.Minute).Unix()}
	if change != nil {
		change(&c)
	}
	raw, err := keys(t).Sign(c)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// wantStatus checks an error of gRPC, the reason of its ErrorInfo, and that its
// message has a part.
func wantStatus(t *testing.T, err error, code codes.Code, reason, part string) {
	t.Helper()
	got := status.Convert(err)
	info := ""
	for _, detail := range got.Details() {
		if i, ok := detail.(*errdetails.ErrorInfo); ok {
			info = i.GetReason()
		}
	}
	if got.Code() != code || info != reason || !strings.Contains(got.Message(), part) {
		t.Errorf("error %v with reason %q, want %v %q %q", err, info, code, reason, part)
	}
}

// post sends JSON, and returns the status and the answer.
func (d *double) post(t *testing.T, url string, body any, header http.Header) (status int, answer string) {
	t.Helper()
	encoded, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	if header == nil {
		header = http.Header{}
	}
	header.Set("Content-Type", "application/json")
	return d.send(t, http.MethodPost, url, string(encoded), header)
}

func (d *double) send(t *testing.T, method, url, body string, header http.Header) (status int, answer string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if header != nil {
		req.Header = header
	}
	resp, err := d.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	contents, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(contents)
}

// wantViolation checks that there is one with a text, and forgets all.
func (d *double) wantViolation(t *testing.T, problem string) {
	t.Helper()
	violations, err := d.Violations(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(violations, func(v control.Violation) bool { return strings.Contains(v.Problem, problem) }) {
		t.Errorf("violations %+v, want one with %q", violations, problem)
	}
	if err := d.ResetViolations(t.Context()); err != nil {
		t.Error(err)
	}
}

// wantRequests checks the requests that were answered, as "service operation
// resource code", and forgets them.
func (d *double) wantRequests(t *testing.T, want ...string) {
	t.Helper()
	requests, err := d.Requests(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range requests {
		got = append(got, strings.Join(slices.DeleteFunc([]string{r.Service, r.Operation, r.Resource, r.Code}, func(s string) bool { return s == "" }), " "))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
	if err := d.ResetCalls(t.Context()); err != nil {
		t.Error(err)
	}
}

func secret(name, value string) control.Secret { return control.Secret{Name: name, Value: &value} }

func ptr[T any](v T) *T { return &v }
