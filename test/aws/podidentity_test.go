package aws_test

import (
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/postern-dev/postern/test/aws"
	"github.com/postern-dev/postern/test/aws/control"
)

const agentAudience = "pods.eks.amazonaws.com"

// fetch asks the agent for credentials.
func (d *double) fetch(t *testing.T, url, token string) (status int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", token)
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

// forAgent signs a token for the agent, but for what change changes.
func (i issuer) forAgent(t *testing.T, change func(*tokenOf)) string {
	t.Helper()
	return i.token(t, func(c *tokenOf) {
		c.audience = []string{agentAudience}
		if change != nil {
			change(c)
		}
	})
}

func TestPodIdentity(t *testing.T) {
	t.Parallel()
	d, i := start(t, aws.Config{PodIdentity6: "127.0.0.1:0"}), newIssuer(t, issuerURL)
	// The role may read what is named after the pod's namespace.
	d.apply(t, control.Document{
		Issuers: []control.Issuer{{URL: issuerURL, JWKS: i.jwks()}},
		Roles: []control.Role{{ARN: role, ServiceAccounts: []string{"shop/web"}, Policy: json.RawMessage(
			`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"secretsmanager:GetSecretValue",
			"Resource":"arn:aws:secretsmanager:*:*:secret:${aws:PrincipalTag/kubernetes-namespace}/*"}}`)}},
		Associations: []control.Association{{Namespace: "shop", ServiceAccount: "web", Role: role}},
		Secrets: []control.Secret{
			{Region: region, Name: "shop/db", String: ptr("s")}, {Region: region, Name: "bank/db", String: ptr("s")},
		},
	})
	for _, url := range []string{d.server.Addresses.PodIdentity, d.server.Addresses.PodIdentity6} {
		status, body := d.fetch(t, url, i.forAgent(t, nil))
		var got struct {
			AccessKeyID     string `json:"AccessKeyId"`
			SecretAccessKey string
			Token           string
			AccountID       string `json:"AccountId"`
			Expiration      time.Time
		}
		if err := json.Unmarshal([]byte(body), &got); err != nil || status != http.StatusOK {
			t.Fatalf("%d %s: %v", status, body, err)
		}
		if left := time.Until(got.Expiration); got.AccountID != "111122223333" || left < 5*time.Hour || left > 6*time.Hour {
			t.Errorf("account %s, expires in %s", got.AccountID, left)
		}
		client := secretsmanager.NewFromConfig(d.configOf(control.Credentials{
			AccessKeyID: got.AccessKeyID, SecretAccessKey: got.SecretAccessKey, SessionToken: got.Token,
		}, ""))
		if _, err := client.GetSecretValue(t.Context(), &secretsmanager.GetSecretValueInput{SecretId: ptr("shop/db")}); err != nil {
			t.Errorf("its own namespace's secret: %v", err)
		}
		_, err := client.GetSecretValue(t.Context(), &secretsmanager.GetSecretValueInput{SecretId: ptr("bank/db")})
		wantError(t, err, "AccessDeniedException", "")
	}
	calls, err := d.Calls(t.Context())
	want := control.Call{Service: "podidentity", Operation: "AssumeRoleForPodIdentity", Role: role, Count: 2}
	if err != nil || !slices.Contains(calls, want) {
		t.Errorf("calls %+v, %v, want %+v among them", calls, err, want)
	}
}

func TestPodIdentityIsRefused(t *testing.T) {
	t.Parallel()
	d, i := startUnchecked(t, aws.Config{}), newIssuer(t, issuerURL)
	d.apply(t, control.Document{
		Issuers: []control.Issuer{
			{URL: "https://other.example.com", JWKS: i.jwks()}, {URL: issuerURL, JWKS: i.jwks(), PodIdentity: true},
		},
		Roles: []control.Role{{ARN: role, ServiceAccounts: []string{"shop/web"}}, {ARN: "arn:aws:iam::111122223333:role/closed"}},
		Associations: []control.Association{
			{Namespace: "shop", ServiceAccount: "web", Role: role},
			{Namespace: "shop", ServiceAccount: "closed", Role: "arn:aws:iam::111122223333:role/closed"},
		},
	})
	agent := d.server.Addresses.PodIdentity
	for name, test := range map[string]struct {
		url, token string
		status     int
		says       string
	}{
		"no token":           {agent, "", 400, "Service account token cannot be empty"},
		"no JSON web token":  {agent, "x", 400, "Service account token cannot be parsed"},
		"with a scheme":      {agent, "Bearer " + i.forAgent(t, nil), 400, "Service account token cannot be parsed"},
		"expired":            {agent, i.forAgent(t, func(c *tokenOf) { c.expiry = time.Now().Add(-time.Minute) }), 400, "token is expired"},
		"audience of STS":    {agent, i.token(t, nil), 400, "(InvalidTokenException)"},
		"another issuer":     {agent, i.forAgent(t, func(c *tokenOf) { c.issuer = "https://other.example.com" }), 400, "(InvalidTokenException)"},
		"unknown key":        {agent, i.forAgent(t, func(c *tokenOf) { c.keyID = "two" }), 400, "(InvalidTokenException)"},
		"no association":     {agent, i.forAgent(t, func(c *tokenOf) { c.subject = "system:serviceaccount:shop:db" }), 404, "(ResourceNotFoundException): No Pod Identity association found for service account shop/db, fault: client"},
		"role that does not": {agent, i.forAgent(t, func(c *tokenOf) { c.subject = "system:serviceaccount:shop:closed" }), 400, "(AccessDeniedException): Unauthorized Exception! EKS does not have permissions to assume the associated role., fault: client"},
		"other path":         {strings.TrimSuffix(agent, "/v1/credentials") + "/v2", i.forAgent(t, nil), 404, "404"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			status, body := d.fetch(t, test.url, test.token)
			if status != test.status || !strings.Contains(body, test.says) {
				t.Errorf("%d %s, want %d %s", status, body, test.status, test.says)
			}
		})
	}
}

func TestAssociationsAreDeleted(t *testing.T) {
	t.Parallel()
	d, i := start(t, aws.Config{}), newIssuer(t, issuerURL)
	d.apply(t, control.Document{
		Issuers:      []control.Issuer{{URL: issuerURL, JWKS: i.jwks()}},
		Roles:        []control.Role{{ARN: role, ServiceAccounts: []string{"shop/web"}}},
		Associations: []control.Association{{Namespace: "shop", ServiceAccount: "web", Role: role}},
	})
	if status, body := d.fetch(t, d.server.Addresses.PodIdentity, i.forAgent(t, nil)); status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	if err := d.DeleteAssociation(t.Context(), "shop", "web"); err != nil {
		t.Fatal(err)
	}
	if status, _ := d.fetch(t, d.server.Addresses.PodIdentity, i.forAgent(t, nil)); status != 404 {
		t.Errorf("status %d, want 404", status)
	}
	if err := d.DeleteAssociation(t.Context(), "shop", "web"); err == nil {
		t.Error("deleted twice: want an error")
	}
}
