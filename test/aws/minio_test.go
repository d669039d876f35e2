package aws_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/postern-dev/postern/test/aws"
	"github.com/postern-dev/postern/test/aws/control"
	"github.com/postern-dev/postern/test/build"
	"github.com/postern-dev/postern/test/minio"
)

// published is an issuer that publishes its key, as an API server does.
func published(t *testing.T) (i issuer, authority string) {
	t.Helper()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/.well-known/openid-configuration":
			_ = json.NewEncoder(w).Encode(map[string]any{
				"issuer": i.url, "jwks_uri": i.url + "/keys", "id_token_signing_alg_values_supported": []string{"RS256"},
			})
		case "/keys":
			_, _ = w.Write(i.jwks())
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(server.Close)
	i = newIssuer(t, server.URL)
	authority = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(authority, []byte(pemOf(server.Certificate())), 0o600); err != nil {
		t.Fatal(err)
	}
	return i, authority
}

// startMinio starts a MinIO that trusts an issuer.
func startMinio(t *testing.T, i issuer, authority string) *minio.Server {
	t.Helper()
	builder, err := build.Here(os.Getenv, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	binary, err := builder.Server(t.Context(), build.Minio())
	if err != nil {
		t.Fatal(err)
	}
	server, err := minio.Start(t.Context(), minio.Config{Minio: binary, Dir: t.TempDir(), Issuer: i.url, IssuerCA: authority})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	return server
}

// With a MinIO behind it, MinIO decides on the token, and the role's trust policy
// on whose it is.
func TestLoginsThatMinIOVerifies(t *testing.T) {
	t.Parallel()
	i, authority := published(t)
	server := startMinio(t, i, authority)
	d := start(t, aws.Config{STSUpstream: server.Endpoint, STSUpstreamRole: server.RoleARN})
	d.apply(t, control.Document{
		Roles:   []control.Role{{ARN: role, ServiceAccounts: []string{"shop/web"}, Policy: json.RawMessage(all)}},
		Secrets: []control.Secret{secret(v1, "one")},
	})
	forged := i.token(t, nil)
	forged = forged[:len(forged)-6] + "AAAAAA"
	for name, test := range map[string]struct{ token, code, says string }{
		"other service account": {i.token(t, func(c *tokenOf) { c.subject = "system:serviceaccount:shop:db" }), "AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity"},
		"audience":              {i.token(t, func(c *tokenOf) { c.audience = []string{"vault"} }), "InvalidIdentityToken", "Incorrect token audience"},
		"expired":               {i.token(t, func(c *tokenOf) { c.expiry = time.Now().Add(-time.Hour) }), "ExpiredTokenException", ""},
		"signature":             {forged, "InvalidIdentityToken", "The web identity token that was passed could not be validated by AWS."},
		"unknown key":           {i.token(t, func(c *tokenOf) { c.keyID = "two" }), "InvalidIdentityToken", ""},
		"no token":              {"abcd", "InvalidIdentityToken", "The ID Token provided is not a valid JWT. (You may see this error if you sent an Access Token)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := d.sts().AssumeRoleWithWebIdentity(t.Context(), assume(test.token))
			wantError(t, err, test.code, test.says)
		})
	}
	t.Run("a pod's token", func(t *testing.T) {
		t.Parallel()
		out, err := d.sts().AssumeRoleWithWebIdentity(t.Context(), assume(i.token(t, nil)))
		if err != nil {
			t.Fatal(err)
		}
		// MinIO's session tokens are tokens of its own making.
		if strings.Count(*out.Credentials.SessionToken, ".") != 2 {
			t.Error("the credentials are not MinIO's")
		}
		if left := time.Until(*out.Credentials.Expiration); left < 50*time.Minute || left > time.Hour {
			t.Errorf("they expire in %s", left)
		}
		client := secretsmanager.NewFromConfig(d.configOf(control.Credentials{
			AccessKeyID: *out.Credentials.AccessKeyId, SecretAccessKey: *out.Credentials.SecretAccessKey, SessionToken: *out.Credentials.SessionToken,
		}, ""))
		value, err := client.GetSecretValue(t.Context(), &secretsmanager.GetSecretValueInput{SecretId: ptr("prod/db")})
		if err != nil || *value.SecretString != "one" {
			t.Errorf("with its credentials: %+v, %v", value, err)
		}
	})
}

// A MinIO that is starting refuses every token for want of its policies.
func TestMinIOThatIsStartingIsWaitedFor(t *testing.T) {
	t.Parallel()
	const (
		starting = `<ErrorResponse><Error><Code>InvalidParameterValue</Code><Message>None of the given policies are defined, credentials will not be generated</Message></Error></ErrorResponse>`
		started  = `<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>0123456789ABCDEF</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken><Expiration>2030-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>`
	)
	answers := make(chan string, 3)
	for _, answer := range []string{starting, starting, started} {
		answers <- answer
	}
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		answer := <-answers
		if answer == starting {
			w.WriteHeader(http.StatusBadRequest)
		}
		_, _ = w.Write([]byte(answer))
	}))
	t.Cleanup(upstream.Close)
	i := newIssuer(t, issuerURL)
	d := start(t, aws.Config{STSUpstream: upstream.URL, STSUpstreamRole: "arn:minio:iam:::role/x"})
	d.apply(t, control.Document{Roles: []control.Role{{ARN: role, ServiceAccounts: []string{"shop/web"}}}})
	out, err := d.sts().AssumeRoleWithWebIdentity(t.Context(), assume(i.token(t, nil)))
	if err != nil || *out.Credentials.AccessKeyId != "0123456789ABCDEF" || len(answers) != 0 {
		t.Errorf("got %+v, %v, with %d answers left", out, err, len(answers))
	}
}

func TestMinIOThatIsDown(t *testing.T) {
	t.Parallel()
	i := newIssuer(t, issuerURL)
	d := startUnchecked(t, aws.Config{STSUpstream: "http://127.0.0.1:1", STSUpstreamRole: "arn:minio:iam:::role/x"})
	_, err := d.sts().AssumeRoleWithWebIdentity(t.Context(), assume(i.token(t, nil)))
	wantError(t, err, "InternalFailure", "")
}
