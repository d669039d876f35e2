package gcp_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/postern-dev/postern/test/gcp"
	"github.com/postern-dev/postern/test/gcp/control"
)

const (
	stsURL      = "https://sts.googleapis.com/v1/token"
	bindingURL  = "https://securetoken.googleapis.com/v1/identitybindingtoken"
	platform    = "https://www.googleapis.com/auth/cloud-platform"
	jwtType     = "urn:ietf:params:oauth:token-type:jwt"
	accessType  = "urn:ietf:params:oauth:token-type:access_token"
	exchangeURN = "urn:ietf:params:oauth:grant-type:token-exchange"
)

// exchange is a request for an access token, but for what change changes.
func exchange(audience, raw string) map[string]string {
	return map[string]string{
		"grant_type": exchangeURN, "subject_token_type": jwtType, "requested_token_type": accessType,
		"subject_token": raw, "audience": audience, "scope": platform,
	}
}

// granted returns the access token of an answer.
func granted(t *testing.T, status int, answer string) bearer {
	t.Helper()
	var a struct {
		AccessToken     string `json:"access_token"`
		IssuedTokenType string `json:"issued_token_type"`
		TokenType       string `json:"token_type"`
		ExpiresIn       int    `json:"expires_in"`
	}
	if err := json.Unmarshal([]byte(answer), &a); err != nil || status != http.StatusOK || a.ExpiresIn != 3600 || a.TokenType != "Bearer" || a.IssuedTokenType != accessType {
		t.Fatalf("%v: %d %s", err, status, answer)
	}
	return bearer(a.AccessToken)
}

// The three ways to ask give the same principal the same rights.
func TestExchange(t *testing.T) {
	t.Parallel()
	d := start(t, gcp.Config{})
	d.apply(t, control.Document{Secrets: []control.Secret{secret(db, "x")}})
	can := func(as bearer, want codes.Code) {
		t.Helper()
		reason := ""
		if want != codes.OK {
			reason = "IAM_PERMISSION_DENIED"
		}
		_, err := access(t, d.secretsAt(t, globalHost, as), db+"/versions/1")
		wantStatus(t, err, want, reason, "")
	}
	status, answer := d.post(t, bindingURL, exchange(gkeAudience, podToken(t, nil)), nil)
	gke := granted(t, status, answer)
	camel := map[string]string{
		"grantType": exchangeURN, "subjectTokenType": jwtType, "requestedTokenType": accessType,
		"subjectToken": podToken(t, func(c *claims) { c.Audience = []string{"https:" + onprem} }), "audience": onprem, "scope": platform,
	}
	status, answer = d.post(t, stsURL, camel, nil)
	federated := granted(t, status, answer)
	form := url.Values{}
	for name, value := range exchange(gkeAudience, podToken(t, nil)) {
		form.Set(name, value)
	}
	status, answer = d.send(t, http.MethodPost, stsURL, form.Encode(), http.Header{"Content-Type": {"application/x-www-form-urlencoded"}})
	again := granted(t, status, answer)
	for _, members := range [][2]string{
		{ksaMember, "//none"},
		{ksa, "//none"},
		{"principalSet://iam.googleapis.com/projects/" + number + "/locations/global/workloadIdentityPools/" + pool + "/*", "//none"},
		{"principalSet://iam.googleapis.com/projects/" + number + "/locations/global/workloadIdentityPools/" + pool + "/namespace/web", "//none"},
		{"//none", onpremUser},
		{"//none", "principalSet://iam.googleapis.com/projects/" + number + "/locations/global/workloadIdentityPools/onprem/*"},
	} {
		want := map[bool]codes.Code{true: codes.PermissionDenied, false: codes.OK}
		d.bind(t, db, accessor, members[0], members[1])
		can(gke, want[members[0] == "//none"])
		can(again, want[members[0] == "//none"])
		can(federated, want[members[1] == "//none"])
	}
	calls, err := d.Calls(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	principals := map[string]bool{}
	for _, c := range calls {
		if c.Operation == control.Token {
			principals[c.Service+" "+c.Principal] = true
		}
	}
	for _, want := range []string{"securetoken " + ksa, "sts " + ksa, "sts " + onpremUser} {
		if !principals[want] {
			t.Errorf("principals %v, want %s", principals, want)
		}
	}
}

func TestExchangesThatAreRefused(t *testing.T) {
	t.Parallel()
	d := startUnchecked(t, gcp.Config{})
	stranger := "https://stranger.example.com"
	d.apply(t, control.Document{Pools: []control.Pool{
		{Project: "shop", ID: "off", Disabled: true, Providers: []control.Provider{{ID: "k8s", Issuer: issuer}}},
		{Project: "shop", ID: "half", Providers: []control.Provider{
			{ID: "off", Issuer: issuer, Disabled: true},
			{ID: "strange", Issuer: stranger},
			{ID: "few", Issuer: issuer, Audiences: []string{"few"}, Subjects: []string{"system:serviceaccount:web:other"}},
		}},
	}})
	half := strings.Replace(strings.TrimSuffix(onprem, "k8s"), "onprem", "half", 1)
	gke, audience := podToken(t, nil), func(audiences ...string) string {
		return podToken(t, func(c *claims) { c.Audience = audiences })
	}
	for name, test := range map[string]struct {
		audience, raw, code, text string
	}{
		"form of audience":     {"projects/1/pool", gke, "invalid_request", `Invalid value for "audience".`},
		"pool as audience":     {strings.TrimSuffix(onprem, "/providers/k8s"), gke, "invalid_request", "full resource name"},
		"no such pool":         {"identitynamespace:other.svc.id.goog:" + issuer, gke, "invalid_target", "doesn't exist"},
		"no such cluster":      {gkeAudience + "2", gke, "invalid_target", "doesn't exist"},
		"not GKE's":            {"identitynamespace:onprem:k8s", gke, "invalid_target", "doesn't exist"},
		"pool is off":          {strings.Replace(onprem, "onprem", "off", 1), gke, "invalid_target", "disabled"},
		"provider is off":      {half + "off", gke, "invalid_target", "disabled"},
		"GKE's audience":       {gkeAudience, audience("https://kubernetes.default.svc"), "invalid_grant", "The audience in ID Token"},
		"federation's":         {onprem, gke, "invalid_grant", "The audience in ID Token"},
		"allowed audiences":    {half + "few", audience(half + "few"), "invalid_grant", "The audience in ID Token"},
		"condition":            {half + "few", audience("few"), "unauthorized_client", "attribute condition"},
		"issuer":               {half + "strange", gke, "invalid_grant", "The issuer in ID Token " + issuer},
		"unreachable":          {half + "strange", podToken(t, func(c *claims) { c.Issuer = stranger }), "invalid_grant", "Error connecting to the given credential's issuer."},
		"expired":              {gkeAudience, podToken(t, func(c *claims) { c.Expiry = time.Now().Add(-time.Minute).Unix() }), "invalid_grant", "is stale"},
		"early":                {gkeAudience, podToken(t, func(c *claims) { c.NotBefore = time.Now().Add(time.Hour).Unix() }), "invalid_grant", "is stale"},
		"signature":            {gkeAudience, gke[:len(gke)-8] + "AAAAAAAA", "invalid_grant", "signature"},
		"nonsense":             {gkeAudience, "nonsense", "invalid_request", "parse"},
		"nothing":              {gkeAudience, "", "invalid_request", "subject_token"},
		"good, for comparison": {gkeAudience, gke, "", "access_token"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			status, answer := d.post(t, stsURL, exchange(test.audience, test.raw), nil)
			var refused struct {
				Code string `json:"error"`
				Text string `json:"error_description"`
			}
			if err := json.Unmarshal([]byte(answer), &refused); err != nil {
				t.Fatal(err)
			}
			if refused.Code != test.code || (status == http.StatusOK) != (test.code == "") || !strings.Contains(refused.Text+answer, test.text) {
				t.Errorf("%d %s", status, answer)
			}
		})
	}
}

func TestExchangesOfTheWrongForm(t *testing.T) {
	t.Parallel()
	d := startUnchecked(t, gcp.Config{})
	refused := func(change map[string]string, violation string) {
		t.Helper()
		body := exchange(gkeAudience, podToken(t, nil))
		maps.Copy(body, change)
		if status, answer := d.post(t, stsURL, body, nil); status != http.StatusBadRequest {
			t.Errorf("%d %s", status, answer)
		}
		d.wantViolation(t, violation)
	}
	for _, name := range slices.Sorted(maps.Keys(exchange("", ""))) {
		refused(map[string]string{name: ""}, "Missing required parameter: "+name)
	}
	refused(map[string]string{"grant_type": "client_credentials"}, "unsupported_grant_type")
	refused(map[string]string{"requested_token_type": jwtType}, "requested_token_type")
	refused(map[string]string{"subject_token_type": accessType}, "subject_token_type")
	refused(map[string]string{"audiance": "x"}, `unknown member "audiance"`)
	if status, _ := d.send(t, http.MethodPost, stsURL, "{", http.Header{"Content-Type": {"application/json"}}); status != http.StatusBadRequest {
		t.Errorf("status %d", status)
	}
	d.wantViolation(t, "cannot be read as application/json")
	if status, _ := d.send(t, http.MethodPost, stsURL, "x", http.Header{"Content-Type": {"text/plain"}}); status != http.StatusBadRequest {
		t.Errorf("status %d", status)
	}
	d.wantViolation(t, "neither a form nor JSON")
	if status, _ := d.post(t, bindingURL+"/x", exchange(gkeAudience, "x"), nil); status != http.StatusNotFound {
		t.Errorf("status %d", status)
	}
	d.wantViolation(t, "no such request")
	d.post(t, stsURL+"?x=y", exchange(gkeAudience, podToken(t, nil)), http.Header{"Authorization": {"Bearer x"}})
	d.wantViolation(t, "it would be logged")
	d.post(t, stsURL, exchange(gkeAudience, podToken(t, nil)), http.Header{"Authorization": {"Bearer x"}})
	d.wantViolation(t, "credentials were sent")
}
