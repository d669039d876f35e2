package gcp_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/auth"
	"cloud.google.com/go/auth/credentials"
	"google.golang.org/grpc/codes"

	"github.com/postern-dev/postern/test/gcp"
	"github.com/postern-dev/postern/test/gcp/control"
)

const (
	middle      = "middle@shop.iam.gserviceaccount.com"
	generateURL = "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/"
	user        = "roles/iam.workloadIdentityUser"
	creator     = "roles/iam.serviceAccountTokenCreator"
)

func accountResource(email string) string { return "projects/-/serviceAccounts/" + email }

// generate asks for an access token of app.
func (d *double) generate(t *testing.T, as bearer, body map[string]any) (status int, answer string) {
	t.Helper()
	header := http.Header{}
	if as != "" {
		header.Set("Authorization", "Bearer "+string(as))
	}
	if body["scope"] == nil {
		body["scope"] = []string{platform}
	}
	return d.post(t, generateURL+app+":generateAccessToken", body, header)
}

func TestImpersonation(t *testing.T) {
	t.Parallel()
	d := start(t, gcp.Config{})
	d.apply(t, control.Document{Secrets: []control.Secret{secret(db, "x")}})
	as := d.given(t, control.TokenRequest{Principal: ksa})
	status, answer := d.generate(t, as, map[string]any{})
	if status != http.StatusForbidden || !strings.Contains(answer, "Permission 'iam.serviceAccounts.getAccessToken' denied on resource (or it may not exist).") ||
		!strings.Contains(answer, `"IAM_PERMISSION_DENIED"`) || !strings.Contains(answer, `"status":"PERMISSION_DENIED"`) {
		t.Errorf("%d %s", status, answer)
	}
	for _, resource := range []string{accountResource(app), "projects/shop"} {
		d.bind(t, resource, user, ksa)
		status, answer = d.generate(t, as, map[string]any{"lifetime": "600s"})
		var got struct {
			AccessToken string    `json:"accessToken"`
			ExpireTime  time.Time `json:"expireTime"`
		}
		if err := json.Unmarshal([]byte(answer), &got); err != nil || status != http.StatusOK {
			t.Fatalf("%v: %d %s", err, status, answer)
		}
		if left := time.Until(got.ExpireTime); left > 10*time.Minute || left < time.Minute {
			t.Errorf("it expires in %v", left)
		}
		if _, err := access(t, d.secretsAt(t, globalHost, bearer(got.AccessToken)), db+"/versions/1"); err != nil {
			t.Error(err)
		}
		d.bind(t, resource, user)
	}
	d.bind(t, accountResource(app), user, ksa)
	d.apply(t, control.Document{ServiceAccounts: []control.ServiceAccount{{Email: app, Disabled: true}}})
	if status, answer = d.generate(t, as, map[string]any{}); status != http.StatusForbidden {
		t.Errorf("disabled: %d %s", status, answer)
	}
	if err := d.DeleteServiceAccount(t.Context(), app); err != nil {
		t.Error(err)
	}
	status, answer = d.generate(t, as, map[string]any{})
	if status != http.StatusNotFound || !strings.Contains(answer, "Not found; Gaia id not found for email "+app) {
		t.Errorf("deleted: %d %s", status, answer)
	}
	if status, answer = d.generate(t, "", map[string]any{}); status != http.StatusUnauthorized || !strings.Contains(answer, "CREDENTIALS_MISSING") {
		t.Errorf("no bearer: %d %s", status, answer)
	}
}

// Each of a chain has to be allowed to delegate to the next.
func TestDelegates(t *testing.T) {
	t.Parallel()
	d := start(t, gcp.Config{})
	d.apply(t, control.Document{ServiceAccounts: []control.ServiceAccount{{Email: middle}}})
	as := d.given(t, control.TokenRequest{Principal: ksa})
	chain := map[string]any{"delegates": []string{"projects/-/serviceAccounts/" + middle}}
	try := func(want int) {
		t.Helper()
		if status, answer := d.generate(t, as, chain); status != want {
			t.Errorf("%d %s, want %d", status, answer, want)
		}
	}
	try(http.StatusForbidden)
	d.bind(t, accountResource(app), creator, ksa)
	try(http.StatusForbidden)
	d.bind(t, accountResource(app), creator, "serviceAccount:"+middle)
	try(http.StatusForbidden)
	d.bind(t, accountResource(middle), user, ksa)
	try(http.StatusForbidden)
	d.bind(t, accountResource(middle), creator, ksa)
	try(http.StatusOK)
	chain = map[string]any{"delegates": []string{"projects/-/serviceAccounts/none@shop.iam.gserviceaccount.com"}}
	try(http.StatusNotFound)
}

func TestGenerationsOfTheWrongForm(t *testing.T) {
	t.Parallel()
	d := startUnchecked(t, gcp.Config{})
	as := d.given(t, control.TokenRequest{Principal: ksa})
	d.bind(t, accountResource(app), user, ksa)
	for problem, body := range map[string]map[string]any{
		"no scope":      {"scope": []string{}},
		"up to an hour": {"lifetime": "3601s"},
		"lifetime 1h":   {"lifetime": "1h"},
		"delegate":      {"delegates": []string{middle}},
		"JSON":          {"delegates": "x"},
	} {
		if status, answer := d.generate(t, as, body); status != http.StatusBadRequest || !strings.Contains(answer, "INVALID_ARGUMENT") {
			t.Errorf("%s: %d %s", problem, status, answer)
		}
		d.wantViolation(t, problem)
	}
	if status, _ := d.post(t, generateURL+app+":signJwt", nil, nil); status != http.StatusNotFound {
		t.Errorf("status %d", status)
	}
	d.wantViolation(t, "no such request")
}

// redeem trades a key for a token, with Google's library.
func (d *double) redeem(ctx context.Context, key []byte, scopes ...string) (string, error) {
	c, err := credentials.NewCredentialsFromJSON(credentials.ServiceAccount, key, &credentials.DetectOptions{Scopes: scopes, Client: d.http})
	if err != nil {
		return "", err
	}
	got, err := c.Token(ctx)
	if err != nil {
		return "", err
	}
	return got.Value, nil
}

func TestKeys(t *testing.T) {
	t.Parallel()
	d := start(t, gcp.Config{})
	applied := d.apply(t, control.Document{
		Secrets:         []control.Secret{secret(db, "x")},
		ServiceAccounts: []control.ServiceAccount{{Email: app, Keys: []string{"one"}}, {Email: middle, Keys: []string{"two"}}},
	})
	key := applied.ServiceAccounts[0].Keys[0]
	raw, err := d.redeem(t.Context(), key, platform)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := access(t, d.secretsAt(t, globalHost, bearer(raw)), db+"/versions/1"); err != nil {
		t.Error(err)
	}
	raw, err = d.redeem(t.Context(), key, "openid")
	if err != nil {
		t.Fatal(err)
	}
	_, err = access(t, d.secretsAt(t, globalHost, bearer(raw)), db+"/versions/1")
	wantStatus(t, err, codes.PermissionDenied, "ACCESS_TOKEN_SCOPE_INSUFFICIENT", "")
	again := d.apply(t, control.Document{ServiceAccounts: []control.ServiceAccount{{Email: app, Keys: []string{"one"}}}})
	if string(again.ServiceAccounts[0].Keys[0]) != string(key) {
		t.Error("a key is made again")
	}
	refused := func(key []byte, want string) {
		t.Helper()
		_, err := d.redeem(t.Context(), key, platform)
		var e *auth.Error
		if !errors.As(err, &e) || !strings.Contains(string(e.Body), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	var mixed map[string]string
	if err := json.Unmarshal(applied.ServiceAccounts[1].Keys[0], &mixed); err != nil {
		t.Fatal(err)
	}
	mixed["client_email"] = app
	encoded, err := json.Marshal(mixed)
	if err != nil {
		t.Fatal(err)
	}
	refused(encoded, "Invalid JWT Signature.")
	d.apply(t, control.Document{ServiceAccounts: []control.ServiceAccount{{Email: app, Disabled: true}}})
	refused(key, "account is disabled")
	if err := d.DeleteServiceAccount(t.Context(), app); err != nil {
		t.Fatal(err)
	}
	refused(key, "account not found")
}

// What keys sign is checked, though the double's own keys are the only ones.
func TestAssertionsThatAreRefused(t *testing.T) {
	t.Parallel()
	now := time.Now()
	clock := now
	d := startUnchecked(t, gcp.Config{Now: func() time.Time { return clock }})
	key := d.apply(t, control.Document{ServiceAccounts: []control.ServiceAccount{{Email: app, Keys: []string{"one"}}}}).ServiceAccounts[0].Keys[0]
	redeem := func(assertion string) string {
		t.Helper()
		_, answer := d.present(t, assertion)
		return answer
	}
	for name, test := range map[string]struct {
		change func(*assertion)
		want   string
	}{
		"good":       {func(*assertion) {}, "access_token"},
		"audience":   {func(a *assertion) { a.Audience = "https://example.com/token" }, "Failed audience check"},
		"expired":    {func(a *assertion) { a.Expiry, a.IssuedAt = now.Add(-time.Second).Unix(), now.Add(-time.Minute).Unix() }, "short-lived"},
		"long":       {func(a *assertion) { a.Expiry = now.Add(2 * time.Hour).Unix() }, "short-lived"},
		"future":     {func(a *assertion) { a.IssuedAt = now.Add(30 * time.Minute).Unix() }, "short-lived"},
		"no scope":   {func(a *assertion) { a.Scope = "" }, "invalid_scope"},
		"other user": {func(a *assertion) { a.Issuer = middle }, "account not found"},
	} {
		a := assertion{Issuer: app, Audience: "https://oauth2.googleapis.com/token", Scope: platform, IssuedAt: now.Unix(), Expiry: now.Add(time.Hour).Unix()}
		test.change(&a)
		if answer := redeem(a.sign(t, key)); !strings.Contains(answer, test.want) {
			t.Errorf("%s: %s", name, answer)
		}
	}
	if violations, err := d.Violations(t.Context()); err != nil || len(violations) != 0 {
		t.Errorf("%v, %+v", err, violations)
	}
	if answer := redeem("nonsense"); !strings.Contains(answer, "invalid_grant") {
		t.Error(answer)
	}
	d.wantViolation(t, "no token")
	if answer := redeem(""); !strings.Contains(answer, "unsupported_grant_type") {
		t.Error(answer)
	}
	d.wantViolation(t, "not a form with an assertion")
}

// present asks for a token with an assertion.
func (d *double) present(t *testing.T, assertion string) (status int, answer string) {
	t.Helper()
	form := url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "assertion": {assertion}}
	return d.send(t, http.MethodPost, "https://oauth2.googleapis.com/token", form.Encode(), http.Header{"Content-Type": {"application/x-www-form-urlencoded"}})
}

// redeemAs asks for a token of app, of which file has a key.
func (d *double) redeemAs(t *testing.T, file []byte) (status int, answer string) {
	t.Helper()
	now := time.Now()
	a := assertion{Issuer: app, Audience: "https://oauth2.googleapis.com/token", Scope: platform, IssuedAt: now.Unix(), Expiry: now.Add(time.Hour).Unix()}
	return d.present(t, a.sign(t, file))
}
