package aws_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/postern-dev/postern/test/aws"
	"github.com/postern-dev/postern/test/aws/control"
)

const issuerURL = "https://oidc.example.com/id/ABC"

// trusting is a role that trusts the service account shop/web of the issuer, as
// the guide of IRSA says.
const trusting = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow",
	"Principal":{"Federated":"arn:aws:iam::111122223333:oidc-provider/oidc.example.com/id/ABC"},
	"Action":"sts:AssumeRoleWithWebIdentity",
	"Condition":{"StringEquals":{
		"oidc.example.com/id/ABC:sub":"system:serviceaccount:shop:web",
		"oidc.example.com/id/ABC:aud":"sts.amazonaws.com"}}}]}`

func assume(token string) *sts.AssumeRoleWithWebIdentityInput {
	return &sts.AssumeRoleWithWebIdentityInput{RoleArn: ptr(role), RoleSessionName: ptr("web@shop"), WebIdentityToken: &token}
}

func TestAssumeRoleWithWebIdentity(t *testing.T) {
	t.Parallel()
	d, i := start(t, aws.Config{}), newIssuer(t, issuerURL)
	d.apply(t, control.Document{
		Issuers: []control.Issuer{{URL: issuerURL, JWKS: i.jwks()}},
		Roles:   []control.Role{{ARN: role, Trust: json.RawMessage(trusting), Policy: json.RawMessage(all)}},
		Secrets: []control.Secret{secret(v1, "one")},
	})
	out, err := d.sts().AssumeRoleWithWebIdentity(t.Context(), assume(i.token(t, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if got := *out.AssumedRoleUser.Arn; got != "arn:aws:sts::111122223333:assumed-role/app/web@shop" {
		t.Errorf("the session is %s", got)
	}
	if got := *out.AssumedRoleUser.AssumedRoleId; !strings.HasPrefix(got, "AROA") || !strings.HasSuffix(got, ":web@shop") {
		t.Errorf("its id is %s", got)
	}
	if *out.Audience != "sts.amazonaws.com" || *out.SubjectFromWebIdentityToken != "system:serviceaccount:shop:web" ||
		*out.Provider != "arn:aws:iam::111122223333:oidc-provider/oidc.example.com/id/ABC" {
		t.Errorf("got %s, %s, %s", *out.Audience, *out.SubjectFromWebIdentityToken, *out.Provider)
	}
	if left := time.Until(*out.Credentials.Expiration); left < 58*time.Minute || left > time.Hour {
		t.Errorf("expires in %s", left)
	}
	client := secretsmanager.NewFromConfig(d.configOf(control.Credentials{
		AccessKeyID: *out.Credentials.AccessKeyId, SecretAccessKey: *out.Credentials.SecretAccessKey, SessionToken: *out.Credentials.SessionToken,
	}, ""))
	value, err := client.GetSecretValue(t.Context(), &secretsmanager.GetSecretValueInput{SecretId: ptr("prod/db")})
	if err != nil || *value.SecretString != "one" {
		t.Errorf("with its credentials: %+v, %v", value, err)
	}
}

func TestAssumeRoleWithWebIdentityIsRefused(t *testing.T) {
	t.Parallel()
	d, i := start(t, aws.Config{}), newIssuer(t, issuerURL)
	d.apply(t, control.Document{
		Issuers: []control.Issuer{
			{URL: issuerURL, JWKS: i.jwks()},
			{URL: "https://other.example.com", JWKS: i.jwks()},
			{URL: "http://127.0.0.1:1"}, // nobody listens there
		},
		Roles: []control.Role{
			{ARN: role, Trust: json.RawMessage(trusting)},
			{ARN: "arn:aws:iam::111122223333:role/closed"},
		},
	})
	forged := i.token(t, nil)
	forged = forged[:len(forged)-6] + "AAAAAA"
	const denied = "Not authorized to perform sts:AssumeRoleWithWebIdentity"
	for name, test := range map[string]struct {
		token      string
		change     func(*sts.AssumeRoleWithWebIdentityInput)
		code, says string
	}{
		"other service account": {i.token(t, func(c *tokenOf) { c.subject = "system:serviceaccount:shop:db" }), nil, "AccessDenied", denied},
		"other issuer":          {i.token(t, func(c *tokenOf) { c.issuer = "https://other.example.com" }), nil, "AccessDenied", denied},
		"role that trusts nobody": {i.token(t, nil), func(in *sts.AssumeRoleWithWebIdentityInput) {
			in.RoleArn = ptr("arn:aws:iam::111122223333:role/closed")
		}, "AccessDenied", denied},
		"no such role": {i.token(t, nil), func(in *sts.AssumeRoleWithWebIdentityInput) {
			in.RoleArn = ptr("arn:aws:iam::111122223333:role/absent")
		}, "AccessDenied", denied},
		"no role at all": {i.token(t, nil), func(in *sts.AssumeRoleWithWebIdentityInput) {
			in.RoleArn = ptr("arn:aws:iam::111122223333:user/app")
		}, "AccessDenied", denied},
		"audience":          {i.token(t, func(c *tokenOf) { c.audience = []string{"vault"} }), nil, "InvalidIdentityToken", "Incorrect token audience"},
		"expired":           {i.token(t, func(c *tokenOf) { c.expiry = time.Now().Add(-time.Minute) }), nil, "ExpiredTokenException", ""},
		"unknown issuer":    {i.token(t, func(c *tokenOf) { c.issuer = "https://nobody.example.com" }), nil, "InvalidIdentityToken", "No OpenIDConnect provider found in your account for https://nobody.example.com"},
		"silent issuer":     {i.token(t, func(c *tokenOf) { c.issuer = "http://127.0.0.1:1" }), nil, "IDPCommunicationError", ""},
		"signature":         {forged, nil, "InvalidIdentityToken", "The web identity token that was passed could not be validated by AWS."},
		"unknown key":       {i.token(t, func(c *tokenOf) { c.keyID = "two" }), nil, "InvalidIdentityToken", "Couldn't retrieve verification key from your identity provider,  please reference AssumeRoleWithWebIdentity documentation for requirements"},
		"another algorithm": {i.token(t, func(c *tokenOf) { c.algorithm = "none" }), nil, "InvalidIdentityToken", "The web identity token that was passed could not be validated by AWS."},
		"no token":          {"abcd", nil, "InvalidIdentityToken", "The ID Token provided is not a valid JWT. (You may see this error if you sent an Access Token)"},
		"too long": {
			i.token(t, nil), func(in *sts.AssumeRoleWithWebIdentityInput) { in.DurationSeconds = ptr(int32(7200)) },
			"ValidationError", "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := assume(test.token)
			if test.change != nil {
				test.change(in)
			}
			_, err := d.sts().AssumeRoleWithWebIdentity(t.Context(), in)
			wantError(t, err, test.code, test.says)
			if test.token != "abcd" && strings.Contains(err.Error(), test.token) {
				t.Error("the error has the token")
			}
		})
	}
}

func TestKeysAreReadByDiscovery(t *testing.T) {
	t.Parallel()
	var i issuer
	reads := make(chan string, 100)
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reads <- r.URL.Path + " " + r.Header.Get("Authorization")
		switch r.URL.Path {
		case "/.well-known/openid-configuration":
			_ = json.NewEncoder(w).Encode(map[string]string{"issuer": i.url, "jwks_uri": i.url + "/keys"})
		case "/keys":
			_, _ = w.Write(i.jwks())
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(server.Close)
	i = newIssuer(t, server.URL)
	ca := pemOf(server.Certificate())
	for name, test := range map[string]struct {
		issuer control.Issuer
		want   []string
	}{
		"discovery": {control.Issuer{URL: i.url, CAPEM: ca, BearerToken: "b"}, []string{"/.well-known/openid-configuration Bearer b", "/keys Bearer b"}},
		"key set":   {control.Issuer{URL: i.url, CAPEM: ca, JWKSURL: i.url + "/keys"}, []string{"/keys "}},
	} {
		t.Run(name, func(t *testing.T) { // one after the other: they share the issuer
			d := start(t, aws.Config{Issuers: []control.Issuer{test.issuer}})
			d.apply(t, control.Document{Roles: []control.Role{{ARN: role, ServiceAccounts: []string{"shop/web"}}}})
			for range 2 { // the keys are kept
				if _, err := d.sts().AssumeRoleWithWebIdentity(t.Context(), assume(i.token(t, nil))); err != nil {
					t.Fatal(err)
				}
			}
			for _, want := range test.want {
				if got := <-reads; got != want {
					t.Errorf("it read %q, want %q", got, want)
				}
			}
			if len(reads) != 0 {
				t.Errorf("it read %q too", <-reads)
			}
		})
	}
}
