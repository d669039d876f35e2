package aws_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/auth"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"go.uber.org/goleak"

	"github.com/postern-dev/postern/test/aws"
	"github.com/postern-dev/postern/test/aws/control"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	region = "eu-west-1"
	role   = "arn:aws:iam::111122223333:role/app"
	// session is the session's name, in messages.
	session = "arn:aws:sts::111122223333:assumed-role/app/session"
)

// all lets a role do everything.
const all = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`

// double is a running double, and a client of its control API.
type double struct {
	*control.Client

	server *aws.Server
	http   *http.Client
}

// start starts a double with a role that may do everything. At the end no request
// and no answer may have broken AWS' models.
func start(t *testing.T, cfg aws.Config) *double {
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

func startUnchecked(t *testing.T, cfg aws.Config) *double {
	t.Helper()
	server, err := aws.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	d := &double{Client: server.Control(), server: server, http: &http.Client{Transport: transport}}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		d.Close()
		server.Close()
	})
	d.apply(t, control.Document{Roles: []control.Role{{ARN: role, Policy: json.RawMessage(all)}}})
	return d
}

func (d *double) apply(t *testing.T, document control.Document) control.Applied {
	t.Helper()
	applied, err := d.Apply(t.Context(), document)
	if err != nil {
		t.Fatal(err)
	}
	return applied
}

// policy gives the role a policy of statements.
func (d *double) policy(t *testing.T, statements string) {
	t.Helper()
	d.apply(t, control.Document{Roles: []control.Role{{
		ARN: role, Policy: json.RawMessage(`{"Version":"2012-10-17","Statement":[` + statements + `]}`),
	}}})
}

// config is the SDK's, with credentials of the role, and one attempt.
func (d *double) config(t *testing.T, in string) awssdk.Config {
	t.Helper()
	made, err := d.Login(t.Context(), control.Login{Role: role})
	if err != nil {
		t.Fatal(err)
	}
	return d.configOf(made, in)
}

func (d *double) configOf(c control.Credentials, in string) awssdk.Config {
	return awssdk.Config{
		Region: cmp.Or(in, region), BaseEndpoint: &d.server.Addresses.Endpoint, HTTPClient: d.http, RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider(c.AccessKeyID, c.SecretAccessKey, c.SessionToken),
	}
}

func (d *double) secrets(t *testing.T) *secretsmanager.Client {
	t.Helper()
	return secretsmanager.NewFromConfig(d.config(t, ""))
}

func (d *double) parameters(t *testing.T) *ssm.Client {
	t.Helper()
	return ssm.NewFromConfig(d.config(t, ""))
}

func (d *double) sts() *sts.Client {
	return sts.New(sts.Options{
		Region: region, BaseEndpoint: &d.server.Addresses.Endpoint, HTTPClient: d.http, RetryMaxAttempts: 1,
	})
}

// scopedTo signs requests for a service that may not be the right one.
type scopedTo string

func (s scopedTo) ResolveAuthSchemes(context.Context, *secretsmanager.AuthResolverParameters) ([]*auth.Option, error) {
	option := auth.Option{SchemeID: auth.SchemeIDSigV4}
	smithyhttp.SetSigV4SigningName(&option.SignerProperties, string(s))
	smithyhttp.SetSigV4SigningRegion(&option.SignerProperties, region)
	return []*auth.Option{&option}, nil
}

// wantError checks an error's code and, if it is said, its message.
func wantError(t *testing.T, err error, code, message string) {
	t.Helper()
	var e smithy.APIError
	if !errors.As(err, &e) {
		t.Fatalf("error %v, want %s", err, code)
	}
	if e.ErrorCode() != code || (message != "" && e.ErrorMessage() != message) {
		t.Errorf("error %s: %s\nwant %s: %s", e.ErrorCode(), e.ErrorMessage(), code, message)
	}
}

func ptr[T any](v T) *T { return &v }

// issuer signs tokens as a Kubernetes API server does.
type issuer struct {
	url string
	key *rsa.PrivateKey
}

// newIssuer returns an issuer. All share a key: making one takes long.
func newIssuer(t *testing.T, url string) issuer {
	t.Helper()
	key, err := signingKey()
	if err != nil {
		t.Fatal(err)
	}
	return issuer{url: url, key: key}
}

var signingKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

// jwks is its key set.
func (i issuer) jwks() json.RawMessage {
	encode := base64.RawURLEncoding.EncodeToString
	return json.RawMessage(`{"keys":[{"kty":"RSA","alg":"RS256","use":"sig","kid":"one","n":"` +
		encode(i.key.N.Bytes()) + `","e":"` + encode(big.NewInt(int64(i.key.E)).Bytes()) + `"}]}`)
}

// pemOf writes a certificate.
func pemOf(certificate *x509.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw}))
}

// tokenOf are a token's claims.
type tokenOf struct {
	issuer, subject string
	audience        []string
	expiry          time.Time
	keyID           string
	algorithm       string
}

// token signs one for the service account shop/web, but for what change changes.
func (i issuer) token(t *testing.T, change func(*tokenOf)) string {
	t.Helper()
	c := tokenOf{
		issuer: i.url, subject: "system:serviceaccount:shop:web", audience: []string{"sts.amazonaws.com"},
		expiry: time.Now().Add(time.Hour), keyID: "one", algorithm: "RS256",
	}
	if change != nil {
		change(&c)
	}
	part := func(v any) []byte {
		encoded, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return []byte(base64.RawURLEncoding.EncodeToString(encoded))
	}
	signed := slices.Concat(
		part(map[string]string{"alg": c.algorithm, "kid": c.keyID}), []byte("."),
		part(map[string]any{
			"iss": c.issuer, "sub": c.subject, "aud": c.audience, "exp": c.expiry.Unix(), "nbf": time.Now().Add(-time.Minute).Unix(),
			"kubernetes.io": map[string]any{
				"namespace": "shop", "serviceaccount": map[string]string{"name": "web"}, "pod": map[string]string{"name": "web-1", "uid": "u1"},
			},
		}))
	sum := sha256.Sum256(signed)
	signature, err := rsa.SignPKCS1v15(rand.Reader, i.key, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return string(bytes.Join([][]byte{signed, []byte(base64.RawURLEncoding.EncodeToString(signature))}, []byte(".")))
}
