package gcp

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/postern-dev/postern/providers/sdk"
)

// The node and the provider have an identity that may do everything. A pod without
// one of its own is refused all the same, and nothing is ever asked as that.
func TestNoIdentityOfItsOwn(t *testing.T) {
	t.Parallel()
	c := newCustomer(t)
	c.secret("a", "canary-a", nil)
	c.grant("a", "roles/secretmanager.secretAccessor", "serviceAccount:"+adminAccount)
	for name, tt := range map[string]struct {
		change func(*sdk.Request)
		reason sdk.Reason
	}{
		"no permission": {func(*sdk.Request) {}, sdk.ReasonAccessDenied},
		"no token":      {func(r *sdk.Request) { r.Tokens = nil }, sdk.ReasonTokenMissing},
		"the powerful one": {func(r *sdk.Request) {
			r.Pod.ServiceAccount.Annotations = map[string]string{accountAnnotation: adminAccount}
		}, sdk.ReasonLoginFailed},
		"the provider's": {func(r *sdk.Request) { r.Parameters["auth"] = "provider-adc" }, sdk.ReasonAccessDenied},
	} {
		t.Run(name, func(*testing.T) {
			req := c.request(oneSecret)
			tt.change(req)
			c.wantError(req, tt.reason)
		})
	}
	if calls := c.requestsAs(adminAccount); calls > 0 {
		t.Errorf("%d requests were made as the provider", calls)
	}
}

// requestsAs counts what was asked of the customer's secrets as somebody.
func (c *customer) requestsAs(principal string) int {
	c.t.Helper()
	var all struct {
		Requests []struct{ Resource, Principal string }
	}
	if err := c.control(http.MethodGet, "/requests", nil, &all); err != nil {
		c.t.Fatal(err)
	}
	count := 0
	for _, r := range all.Requests {
		if r.Principal == principal && strings.Contains(r.Resource, c.name) {
			count++
		}
	}
	return count
}

// What the provider itself refuses: a kept token of the same identity serves no pod
// that could not have got it.
func TestIdentity_Refused(t *testing.T) {
	t.Parallel()
	c := newCustomer(t)
	c.secret("a", "canary-a", nil)
	c.wantFiles(c.request(oneSecret), map[string]string{"a": "canary-a"})
	for name, tt := range map[string]struct {
		change func(*sdk.Request)
		reason sdk.Reason
		texts  []string
	}{
		"another service account's token": {
			func(r *sdk.Request) {
				r.Tokens = c.tokens(map[string]any{"sub": "system:serviceaccount:" + c.name + ":other"})
			},
			sdk.ReasonTokenInvalid,
			[]string{"not for the pod's"},
		},
		"another pod's token": {
			func(r *sdk.Request) {
				r.Tokens = c.tokens(map[string]any{"kubernetes.io": map[string]any{"pod": map[string]any{"uid": "other"}}})
			},
			sdk.ReasonTokenInvalid,
			[]string{"another pod"},
		},
		"expired": {
			func(r *sdk.Request) {
				r.Tokens = c.tokens(map[string]any{"exp": time.Now().Add(-time.Hour).Unix()})
			},
			sdk.ReasonTokenInvalid,
			[]string{"expired at"},
		},
		"no token": {func(r *sdk.Request) { r.Tokens = nil }, sdk.ReasonTokenMissing, []string{pool, "driver.tokenRequests"}},
		"delegates that are no list": {
			func(r *sdk.Request) {
				r.Pod.ServiceAccount.Annotations = map[string]string{accountAnnotation: adminAccount, delegatesAnnotation: "a@b.c"}
			},
			sdk.ReasonLoginFailed,
			[]string{delegatesAnnotation, "JSON array"},
		},
	} {
		t.Run(name, func(*testing.T) {
			req := c.request(oneSecret)
			tt.change(req)
			c.wantError(req, tt.reason, tt.texts...)
		})
	}
}

// What Google refuses, by a provider that has no token yet.
func TestIdentity_RefusedByGoogle(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		options func(*options)
		change  func(*customer, *sdk.Request)
		reason  sdk.Reason
		texts   []string
	}{
		"audience": {
			change: func(c *customer, r *sdk.Request) { r.Tokens = c.tokens(map[string]any{"aud": []string{"other"}}) },
			reason: sdk.ReasonLoginFailed, texts: []string{"unable to obtain auth for mount as service account NS/web"},
		},
		"issuer": {
			change: func(c *customer, r *sdk.Request) {
				r.Tokens = c.tokens(map[string]any{"iss": "https://elsewhere.test"})
			},
			reason: sdk.ReasonLoginFailed,
		},
		"pool": {
			options: func(o *options) {
				o.federation.Project, o.federation.ClusterName, o.federation.ClusterLocation = "other", "one", "europe-west1"
			},
			change: func(c *customer, r *sdk.Request) {
				r.Tokens = sdk.Tokens{c.issuer.Token(c.pod(), "other.svc.id.goog", nil)}
			},
			reason: sdk.ReasonLoginFailed,
		},
		"a service account of Google's that does not trust the pod": {
			change: func(_ *customer, r *sdk.Request) {
				r.Pod.ServiceAccount.Annotations = map[string]string{accountAnnotation: adminAccount}
			},
			reason: sdk.ReasonLoginFailed, texts: []string{"roles/iam.workloadIdentityUser", "serviceAccount:" + pool + "[NS/web]"},
		},
		"the token service throttles": {
			options: func(o *options) {
				o.federation.ClusterName, o.federation.ClusterLocation = "slow", "europe-west1"
			},
			change: func(c *customer, _ *sdk.Request) {
				c.fault(map[string]any{"service": "securetoken", "kind": "throttle", "retryAfter": 20, "resource": "identitynamespace:" + pool + ":" + slowCluster})
			},
			reason: sdk.ReasonRateLimited, texts: []string{"slow down"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCustomer(t)
			if tt.options != nil {
				c.provider = c.start(tt.options)
			}
			c.secret("a", "canary-a", nil)
			req := c.request(oneSecret)
			tt.change(c, req)
			c.wantError(req, tt.reason, tt.texts...)
		})
	}
}

// Whose identity it is: the pod's own in a pool of GKE's or of one's own, that of a
// service account of Google's, a key, or the provider's.
func TestIdentity_Modes(t *testing.T) {
	t.Parallel()
	const member = "principal://iam.googleapis.com/projects/123456789012/locations/global/workloadIdentityPools/clusters/subject/system:serviceaccount:NS:web"
	for name, tt := range map[string]struct {
		options func(*options)
		change  func(*testing.T, *customer, *sdk.Request)
		member  string // who reads; "" is the pod itself in GKE's pool
		reason  sdk.Reason
		texts   []string
	}{
		"the pod": {change: func(*testing.T, *customer, *sdk.Request) {}},
		"pod-adc": {change: func(_ *testing.T, _ *customer, r *sdk.Request) { r.Parameters["auth"] = "pod-adc" }},
		"the pod in a pool of one's own": {
			options: func(o *options) { o.audience = ownPool },
			change: func(_ *testing.T, c *customer, r *sdk.Request) {
				r.Tokens = sdk.Tokens{c.issuer.Token(c.pod(), ownPool, nil)}
			},
			member: member,
		},
		"the same, with https": {
			options: func(o *options) { o.audience = ownPool },
			change: func(_ *testing.T, c *customer, r *sdk.Request) {
				r.Tokens = sdk.Tokens{c.issuer.Token(c.pod(), "https:"+ownPool, nil)}
			},
			member: member,
		},
		"a service account of Google's": {
			change: func(_ *testing.T, c *customer, r *sdk.Request) {
				email := c.name + "@" + project + ".iam.gserviceaccount.com"
				c.put(map[string]any{
					"serviceAccounts": []any{map[string]any{"email": email}},
					"bindings": []any{map[string]any{
						"resource": "projects/-/serviceAccounts/" + email, "role": "roles/iam.workloadIdentityUser", "members": []string{c.member()},
					}},
				})
				r.Pod.ServiceAccount.Annotations = map[string]string{accountAnnotation: email}
			},
			member: "serviceAccount:NS@" + project + ".iam.gserviceaccount.com",
		},
		"a key": {
			options: func(o *options) { o.allowSecret = true },
			change: func(t *testing.T, c *customer, r *sdk.Request) {
				r.Tokens, r.Secrets = nil, map[string]sdk.SecretString{keyFile: c.key(t)}
			},
			member: "serviceAccount:NS@" + project + ".iam.gserviceaccount.com",
		},
		"a key that is not allowed": { // upstream ignores it, too
			change: func(_ *testing.T, _ *customer, r *sdk.Request) {
				r.Secrets = map[string]sdk.SecretString{keyFile: sdk.NewSecretString(`{"type":"canary"}`)}
			},
		},
		"a key and auth": {
			options: func(o *options) { o.allowSecret = true },
			change: func(_ *testing.T, _ *customer, r *sdk.Request) {
				r.Parameters["auth"] = "pod-adc"
				r.Secrets = map[string]sdk.SecretString{keyFile: sdk.NewSecretString(`{"type":"canary"}`)}
			},
			reason: sdk.ReasonInvalidParameters, texts: []string{"attempting to set both nodePublishSecretRef and auth"},
		},
		"the provider's, in a namespace that may": {
			options: func(o *options) { o.own = []string{"*"} },
			change: func(_ *testing.T, _ *customer, r *sdk.Request) {
				r.Tokens, r.Parameters["auth"] = nil, "provider-adc"
			},
			member: "serviceAccount:" + adminAccount,
		},
		"the provider's, in another": {
			options: func(o *options) { o.own = []string{"other"} },
			change:  func(_ *testing.T, _ *customer, r *sdk.Request) { r.Parameters["auth"] = "provider-adc" },
			reason:  sdk.ReasonAccessDenied, texts: []string{"namespace NS ", "provider-gcp.gcp.providerIdentity.namespaces"},
		},
		"nobody said which cluster it is": {
			options: func(o *options) { o.federation.Project = "" },
			change:  func(*testing.T, *customer, *sdk.Request) {},
			reason:  sdk.ReasonTokenMissing, texts: []string{"provider-gcp.gcp.project"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCustomer(t)
			req := c.request(oneSecret)
			if tt.options != nil {
				c.provider = c.start(tt.options)
			}
			c.secret("a", "canary-a", nil)
			tt.change(t, c, req)
			if tt.member != "" {
				c.grant("a", "roles/secretmanager.secretAccessor", c.named(tt.member))
			}
			if tt.reason != "" {
				c.wantError(req, tt.reason, tt.texts...)
				return
			}
			c.wantFiles(req, map[string]string{"a": "canary-a"})
		})
	}
}

// key makes a service account of Google's, and a key of it.
func (c *customer) key(t *testing.T) sdk.SecretString {
	t.Helper()
	email := c.name + "@" + project + ".iam.gserviceaccount.com"
	var made struct {
		ServiceAccounts []struct{ Keys []json.RawMessage }
	}
	if err := c.control(http.MethodPost, "/apply", map[string]any{
		"serviceAccounts": []any{map[string]any{"email": email, "keys": []string{"one"}}},
	}, &made); err != nil {
		t.Fatal(err)
	}
	return sdk.NewSecretString(string(made.ServiceAccounts[0].Keys[0]))
}

// A token that Google does not accept any more is replaced, once.
func TestIdentity_Replaced(t *testing.T) {
	t.Parallel()
	c := newCustomer(t)
	c.secret("a", "canary-a", nil)
	req := c.request(oneSecret)
	c.fetchOK(req)
	principal := "principal://iam.googleapis.com/projects/123456789012/locations/global/workloadIdentityPools/" + pool + "/subject/ns/" + c.name + "/sa/web"
	if err := c.control(http.MethodPost, "/revoke", map[string]string{"principal": principal}, nil); err != nil {
		t.Fatal(err)
	}
	before := c.calls()
	c.wantFiles(req, map[string]string{"a": "canary-a"})
	if got := since(before, c.calls())["securetoken token"]; got != 1 {
		t.Errorf("%d logins, want 1", got)
	}
}
