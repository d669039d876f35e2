package azure

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/postern-dev/postern/providers/sdk"
)

// There is somebody in the environment who may do everything. A pod without an
// identity is refused all the same, and nothing is ever asked as that client.
func TestNoIdentityOfItsOwn(t *testing.T) {
	t.Parallel()
	c := newCustomer(t)
	c.secret("a", "canary-a", nil)
	c.vault(map[string]any{"grants": []any{map[string]any{"clientId": adminClient, "operations": []string{"*"}}}})
	for name, tt := range map[string]struct {
		change func(*sdk.Request)
		reason sdk.Reason
	}{
		"no client":        {func(r *sdk.Request) { r.Pod.ServiceAccount.Annotations = nil }, sdk.ReasonLoginFailed},
		"an empty one":     {func(r *sdk.Request) { r.Pod.ServiceAccount.Annotations[clientAnnotation] = " " }, sdk.ReasonLoginFailed},
		"no token":         {func(r *sdk.Request) { r.Tokens = nil }, sdk.ReasonTokenMissing},
		"the powerful one": {func(r *sdk.Request) { r.Parameters["clientID"] = adminClient }, sdk.ReasonLoginFailed},
		"the node":         {func(r *sdk.Request) { r.Parameters["useVMManagedIdentity"] = "true" }, sdk.ReasonAccessDenied},
		"pod identity":     {func(r *sdk.Request) { r.Parameters["usePodIdentity"] = "true" }, sdk.ReasonAccessDenied},
	} {
		t.Run(name, func(*testing.T) {
			req := c.request(oneSecret)
			tt.change(req)
			c.wantError(req, tt.reason)
		})
	}
	var all struct {
		Requests []struct{ Service, Operation, ClientID, Code string }
	}
	if err := c.control(http.MethodGet, "/requests", nil, &all); err != nil {
		t.Fatal(err)
	}
	for _, r := range all.Requests {
		if r.ClientID == adminClient && r.Code == "" {
			t.Errorf("%s %s was asked as the client of the environment", r.Service, r.Operation)
		}
	}
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
		"no token": {
			func(r *sdk.Request) { r.Tokens = r.Tokens[1:] },
			sdk.ReasonTokenMissing,
			[]string{audienceExchange, "driver.tokenRequests"},
		},
		"a client that is no id": {
			func(r *sdk.Request) { r.Pod.ServiceAccount.Annotations[clientAnnotation] = "a/../b" },
			sdk.ReasonInvalidParameters,
			[]string{clientAnnotation},
		},
	} {
		t.Run(name, func(*testing.T) {
			req := c.request(oneSecret)
			tt.change(req)
			c.wantError(req, tt.reason, tt.texts...)
		})
	}
}

// What Entra and the vault refuse, by a provider that has no token yet.
func TestIdentity_RefusedByAzure(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change func(*customer, *sdk.Request)
		reason sdk.Reason
		texts  []string
	}{
		"audience": {
			func(c *customer, r *sdk.Request) { r.Tokens = c.tokens(map[string]any{"aud": []string{"other"}}) },
			sdk.ReasonLoginFailed,
			[]string{"AADSTS700212", "federated identity credential", "subject system:serviceaccount:NS:web, audience other"},
		},
		"issuer": {
			func(c *customer, _ *sdk.Request) {
				c.federate(map[string]any{"federatedCredentials": []any{map[string]any{
					"issuer": "https://elsewhere.test", "subject": "system:serviceaccount:" + c.name + ":web",
				}}})
			},
			sdk.ReasonLoginFailed,
			[]string{"AADSTS700211", "issuer " + issuer},
		},
		"subject": {
			func(c *customer, r *sdk.Request) {
				r.Pod.ServiceAccount.Name = "other"
				r.Tokens = c.tokens(map[string]any{"sub": "system:serviceaccount:" + c.name + ":other"})
			},
			sdk.ReasonLoginFailed,
			[]string{"AADSTS700213", "system:serviceaccount:NS:other"},
		},
		"client": {
			func(_ *customer, r *sdk.Request) { r.Parameters["clientID"] = "bbbbbbbb-0000-4000-8000-000000000000" },
			sdk.ReasonLoginFailed,
			[]string{"AADSTS700016", "is the client ID of an application"},
		},
		"tenant": {
			func(_ *customer, r *sdk.Request) {
				r.Parameters["tenantID"] = "99999999-0000-4000-8000-000000000000"
			},
			sdk.ReasonLoginFailed,
			[]string{"AADSTS90002"},
		},
		"a vault of another tenant": {
			func(c *customer, _ *sdk.Request) {
				c.vault(map[string]any{"tenant": "77777777-0000-4000-8000-000000000000"})
			},
			sdk.ReasonLoginFailed,
			[]string{"77777777-0000-4000-8000-000000000000", "the vault belongs to one tenant"},
		},
		"a challenge for something else": {
			func(c *customer, _ *sdk.Request) {
				c.vault(map[string]any{"challengeResource": "https://management.azure.com"})
			},
			sdk.ReasonAccessDenied,
			[]string{"a token of another domain than its own", "Check keyvaultName and cloudName"},
		},
		"Entra throttles": {
			func(c *customer, _ *sdk.Request) {
				c.fault(map[string]any{"service": "entra", "kind": "throttle", "retryAfter": 20})
			},
			sdk.ReasonRateLimited,
			[]string{"slow down"},
		},
		"Entra is down": {
			func(c *customer, _ *sdk.Request) { c.fault(map[string]any{"service": "entra", "kind": "unavailable"}) },
			sdk.ReasonStoreUnavailable,
			[]string{"failed to acquire a token"},
		},
		"no federated credential for binding": {
			func(_ *customer, r *sdk.Request) {
				r.Parameters["useAzureTokenProxy"] = "true"
				r.Pod.ServiceAccount.Annotations = nil
			},
			sdk.ReasonInvalidParameters,
			[]string{"clientID is required for identity binding"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCustomer(t)
			c.secret("a", "canary-a", nil)
			req := c.request(oneSecret)
			tt.change(c, req)
			c.wantError(req, tt.reason, tt.texts...)
		})
	}
}

// Whose identity it is: clientID, the annotation, the Secret of nodePublishSecretRef.
func TestIdentity_Modes(t *testing.T) {
	t.Parallel()
	const principal = "cccccccc-0000-4000-8000-000000000000"
	secrets := func(names ...string) map[string]sdk.SecretString {
		all := map[string]sdk.SecretString{}
		for i := 0; i < len(names); i += 2 {
			all[names[i]] = sdk.NewSecretString(names[i+1])
		}
		return all
	}
	for name, tt := range map[string]struct {
		change func(*customer, *sdk.Request)
		client string // who reads; "" is the customer's own
		reason sdk.Reason
		texts  []string
	}{
		"annotation": {change: func(*customer, *sdk.Request) {}},
		"clientID": {change: func(c *customer, r *sdk.Request) {
			r.Parameters["clientID"], r.Pod.ServiceAccount.Annotations = c.client, nil
		}},
		"clientID goes over the annotation": {change: func(c *customer, r *sdk.Request) {
			r.Parameters["clientID"] = c.client
			r.Pod.ServiceAccount.Annotations[clientAnnotation] = principal
		}},
		"clientID goes over a service principal": {change: func(c *customer, r *sdk.Request) {
			r.Parameters["clientID"] = c.client
			r.Secrets = secrets("clientid", principal, "clientsecret", "canary-secret")
		}},
		"the tenant of the annotation": {change: func(_ *customer, r *sdk.Request) {
			delete(r.Parameters, "tenantID")
			r.Pod.ServiceAccount.Annotations[tenantAnnotation] = tenant
		}},
		"service principal": {client: principal, change: func(_ *customer, r *sdk.Request) {
			r.Tokens = nil
			r.Secrets = secrets("clientid", principal, "clientsecret", "canary-secret")
		}},
		"service principal goes over the annotation": {client: principal, change: func(_ *customer, r *sdk.Request) {
			r.Secrets = secrets("clientid", principal, "clientsecret", "canary-secret")
		}},
		"service principal, keys in another case": {client: principal, change: func(_ *customer, r *sdk.Request) {
			r.Secrets = secrets("clientID", principal, "ClientSecret", "canary-secret", "other", "x")
		}},
		"service principal where clientID has no token": {client: principal, change: func(c *customer, r *sdk.Request) {
			r.Tokens, r.Parameters["clientID"] = nil, c.client
			r.Secrets = secrets("clientid", principal, "clientsecret", "canary-secret")
		}},
		"no client secret": {
			change: func(_ *customer, r *sdk.Request) { r.Secrets = secrets("clientid", principal) },
			reason: sdk.ReasonLoginFailed, texts: []string{"could not find clientsecret"},
		},
		"no client id": {
			change: func(_ *customer, r *sdk.Request) { r.Secrets = secrets("clientsecret", "canary-secret") },
			reason: sdk.ReasonLoginFailed, texts: []string{"could not find clientid"},
		},
		"wrong client secret": {
			change: func(_ *customer, r *sdk.Request) {
				r.Secrets = secrets("clientid", principal, "clientsecret", "canary-other")
			},
			reason: sdk.ReasonLoginFailed, texts: []string{"AADSTS7000215", "nodePublishSecretRef"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCustomer(t)
			c.secret("a", "canary-a", nil)
			c.put(map[string]any{"applications": []any{map[string]any{
				"tenant": tenant, "clientId": principal, "secrets": []any{map[string]any{"value": "canary-secret"}},
			}}})
			reader := tt.client
			if reader == "" {
				reader = c.client
			}
			c.vault(map[string]any{"grants": []any{map[string]any{"clientId": reader, "operations": []string{"secrets/get"}}}})
			req := c.request(oneSecret)
			tt.change(c, req)
			if tt.reason != "" {
				c.wantError(req, tt.reason, tt.texts...)
				return
			}
			c.wantFiles(req, map[string]string{"a": "canary-a"})
		})
	}
}

// The node's identities are for the namespaces that the operator says, and for no
// other.
func TestIdentity_OfTheNode(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		allowed []string // NS is the customer's name
		ok      bool
	}{
		"nobody":          {nil, false},
		"others":          {[]string{"other", "NS-not"}, false},
		"the namespace":   {[]string{"other", "NS"}, true},
		"every namespace": {[]string{"*"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCustomer(t)
			c.provider = c.start(func(o *options) {
				for _, namespace := range tt.allowed {
					o.nodeIdentity = append(o.nodeIdentity, strings.ReplaceAll(namespace, "NS", c.name))
				}
			})
			c.secret("a", "canary-a", nil)
			c.put(map[string]any{"podIdentities": []any{map[string]any{
				"namespace": c.name, "pod": "web-1", "tenant": tenant, "clientId": c.client,
			}}})
			req := c.request(oneSecret)
			req.Tokens, req.Pod.ServiceAccount.Annotations = nil, nil
			req.Parameters["usePodIdentity"] = "true"
			if !tt.ok {
				c.wantError(req, sdk.ReasonAccessDenied, "usePodIdentity", "provider-azure.azure.managedIdentity.namespaces", "namespace NS ")
				return
			}
			resp := c.fetchOK(req)
			if got := contentsOf(resp)["a"]; got != "canary-a" {
				t.Errorf("a: %q", got)
			}
			if resp.Sharing != sdk.SharingPod {
				t.Errorf("sharing %s: the identity is the pod's", resp.Sharing)
			}
		})
	}
}

// A token that the vault does not accept any more is replaced, once.
func TestIdentity_Replaced(t *testing.T) {
	t.Parallel()
	c := newCustomer(t)
	c.secret("a", "canary-a", nil)
	req := c.request(oneSecret)
	c.fetchOK(req)
	if err := c.control(http.MethodPost, "/revoke", map[string]string{"clientId": c.client}, nil); err != nil {
		t.Fatal(err)
	}
	before := c.calls()
	c.wantFiles(req, map[string]string{"a": "canary-a"})
	if got := since(before, c.calls())["entra token"]; got != 1 {
		t.Errorf("%d logins, want 1", got)
	}
	before = c.calls()
	c.wantFiles(req, map[string]string{"a": "canary-a"})
	c.wantCalls(before, map[string]int{"secrets get": 1})
}

// Two namespaces with the same names of everything: each with its own identity.
func TestIdentity_NeverShared(t *testing.T) {
	t.Parallel()
	c := newCustomer(t)
	n := c.neighbour()
	c.secret("a", "canary-own", nil)
	n.secret("a", "canary-neighbour", nil)
	c.wantFiles(c.request(oneSecret), map[string]string{"a": "canary-own"})
	n.wantFiles(n.request(oneSecret), map[string]string{"a": "canary-neighbour"})
	stolen := n.request(oneSecret)
	stolen.Parameters["keyvaultName"] = c.name
	n.wantError(stolen, sdk.ReasonAccessDenied)
	stolen.Parameters["clientID"] = c.client
	n.wantError(stolen, sdk.ReasonLoginFailed, "AADSTS700213")
}
