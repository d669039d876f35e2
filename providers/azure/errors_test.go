package azure

import (
	"testing"

	"github.com/postern-dev/postern/providers/sdk"
)

// What a user reads of each way in which a vault refuses, with what has to be done.
func TestErrors(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		objects string
		change  func(*customer)
		fault   map[string]any
		reason  sdk.Reason
		texts   []string
	}{
		"no such secret": {
			objects: "[{objectName: none, objectType: secret}]", reason: sdk.ReasonObjectNotFound,
			texts: []string{"failed to get objectType:secret, objectName:none, objectVersion:: Check objectName", "SecretNotFound", "https://NS.vault.azure.net/"},
		},
		"no such version": {
			objects: "[{objectName: a, objectType: secret, objectVersion: ffffffffffffffffffffffffffffffff}]", reason: sdk.ReasonObjectNotFound,
			texts: []string{"objectVersion:ffffffffffffffffffffffffffffffff"},
		},
		"no such key": {
			objects: "[{objectName: none, objectType: key}]", reason: sdk.ReasonObjectNotFound, texts: []string{"objectType:key", "KeyNotFound"},
		},
		"no such certificate": {
			objects: "[{objectName: none, objectType: cert}]", reason: sdk.ReasonObjectNotFound, texts: []string{"objectType:cert", "CertificateNotFound"},
		},
		"two do not exist": {
			objects: "[{objectName: x, objectType: secret}, {objectName: y, objectType: secret}]", reason: sdk.ReasonObjectNotFound,
			texts: []string{`object "x"`, "nor can be had: y"},
		},
		"deleted": {
			objects: oneSecret, reason: sdk.ReasonObjectNotFound, texts: []string{"even if it can be recovered"},
			change: func(c *customer) {
				c.put(map[string]any{"secrets": []any{map[string]any{"vault": c.name, "name": "a", "deleted": true}}})
			},
		},
		"disabled": {
			objects: oneSecret, reason: sdk.ReasonAccessDenied, texts: []string{`object "a"`, "SecretDisabled", "enable it"},
			change: func(c *customer) {
				c.put(map[string]any{"secrets": []any{map[string]any{"vault": c.name, "name": "a", "enabled": false}}})
			},
		},
		"may not read secrets": {
			objects: oneSecret, change: func(c *customer) { c.grant("keys/get") }, reason: sdk.ReasonAccessDenied,
			texts: []string{"ForbiddenByRbac", `"Key Vault Secrets User"`, "service account NS/web"},
		},
		"may not read keys": {
			objects: "[{objectName: k, objectType: key}]", change: func(c *customer) { c.grant("secrets/get") }, reason: sdk.ReasonAccessDenied,
			texts: []string{`"Key Vault Reader"`},
		},
		"may not read certificates": {
			objects: "[{objectName: c, objectType: cert}]", change: func(c *customer) { c.grant("secrets/get") }, reason: sdk.ReasonAccessDenied,
			texts: []string{`"Key Vault Reader"`},
		},
		"no access policy": {
			objects: oneSecret, change: func(c *customer) { c.vault(map[string]any{"authorization": "policy"}) }, reason: sdk.ReasonAccessDenied,
			texts: []string{"access policies", "the permission get of secrets"},
		},
		"firewall": {
			objects: oneSecret, reason: sdk.ReasonAccessDenied, texts: []string{"ForbiddenByFirewall", "network rules"},
			change: func(c *customer) {
				c.vault(map[string]any{"network": "firewall", "grants": []any{map[string]any{"operations": []string{"*"}}}})
			},
		},
		"no such vault": {
			objects: oneSecret, change: func(c *customer) { c.drop("/vaults", map[string][]string{"vault": {c.name}}) },
			reason: sdk.ReasonStoreUnavailable, texts: []string{"Check keyvaultName"},
		},
		"throttled for long": {
			objects: oneSecret, fault: map[string]any{"service": "secrets", "bearer": true, "kind": "throttle", "retryAfter": 17},
			reason: sdk.ReasonRateLimited, texts: []string{"slow down"},
		},
		"throttled, and then not": {
			objects: oneSecret, fault: map[string]any{"service": "secrets", "bearer": true, "kind": "throttle", "retryAfter": 1, "count": 1},
		},
		"broken once": {
			objects: oneSecret, fault: map[string]any{"service": "secrets", "bearer": true, "kind": "unavailable", "count": 1},
		},
		"no JSON": {
			objects: oneSecret, fault: map[string]any{"service": "secrets", "bearer": true, "kind": "garbage"}, reason: sdk.ReasonStoreUnavailable,
		},
		"the connection breaks": {
			objects: oneSecret, fault: map[string]any{"service": "secrets", "kind": "close"}, reason: sdk.ReasonStoreUnavailable,
			texts: []string{"reach the vault"},
		},
		"wrong contents for hex": {
			objects: "[{objectName: a, objectType: secret, objectEncoding: hex}]", reason: sdk.ReasonInvalidParameters, texts: []string{"objects[0]", "secret a", "hex"},
		},
		"a key of a kind that has no PEM": {
			objects: "[{objectName: koblitz, objectType: key}]", reason: sdk.ReasonInvalidParameters, texts: []string{"objects[0]", "P-256K"},
			change: func(c *customer) {
				c.put(map[string]any{"keys": []any{map[string]any{"vault": c.name, "name": "koblitz", "kty": "EC", "curve": "P-256K"}}})
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCustomer(t)
			c.secret("a", "canary-a", nil)
			if tt.change != nil {
				tt.change(c)
			}
			if tt.fault != nil {
				c.fault(tt.fault)
			}
			req := c.request(tt.objects)
			if tt.reason == "" {
				c.wantFiles(req, map[string]string{"a": "canary-a"})
				return
			}
			c.wantError(req, tt.reason, tt.texts...)
		})
	}
}

// How long to wait is the store's word, for the gateway's budgets.
func TestErrors_RetryAfter(t *testing.T) {
	t.Parallel()
	c := newCustomer(t)
	c.secret("a", "canary-a", nil)
	c.fault(map[string]any{"service": "secrets", "bearer": true, "kind": "throttle", "retryAfter": 17})
	_, err := c.Fetch(t.Context(), c.request(oneSecret))
	e, ok := err.(*sdk.Error) //nolint:errorlint // the edge wants the type itself
	if !ok || e.RetryAfter.Seconds() != 17 {
		t.Errorf("got %v (%#v), want to be told 17 s", err, e)
	}
}
