package azure

import (
	"io/fs"
	"testing"
	"time"

	"github.com/postern-dev/postern/providers/sdk"
	"github.com/postern-dev/postern/providers/sdk/providertest"
)

// TestConformance runs the sdk's suite with the provider's whole main body,
// against the test double.
func TestConformance(t *testing.T) {
	c := newCustomer(t)
	other := c.neighbour()
	c.secret("db", "canary-db", nil)
	c.secret("url", "canary-url", nil)
	other.secret("other", "canary-other", nil)
	const objects = `array:
- |
  objectName: db
  objectType: secret
- |
  objectName: url
  objectType: secret
  objectAlias: sub/url
`
	valid := func(c *customer, objects string) func() *sdk.Request {
		return func() *sdk.Request {
			r := c.request(objects)
			r.VolumeID, r.DefaultFileMode = "", 0
			r.Pod = sdk.Pod{Namespace: c.name, ServiceAccount: c.pod().ServiceAccount}
			r.Parameters["clientID"] = c.client // the upstream protocol has no annotations
			r.Tokens = c.tokens(map[string]any{"kubernetes.io": nil})[:1]
			return r
		}
	}
	contents := map[string]string{"db": "canary-db", "sub/url": "canary-url"}
	providertest.Run(t, providertest.Harness{
		Definition: Definition,
		Valid:      providertest.Case{Request: valid(c, objects), Contents: contents},
		Modes: &providertest.Case{
			Request: valid(c, `[{objectName: db, objectType: secret, filePermission: "0400"}]`),
			Modes:   map[string]fs.FileMode{"db": 0o400},
		},
		Pods: []providertest.Case{
			{Request: valid(c, objects), Contents: contents},
			{
				Request:  valid(other, "[{objectName: other, objectType: secret, objectAlias: o}]"),
				Contents: map[string]string{"o": "canary-other"},
			},
		},
		Mutate: func() error {
			c.secret("db", "canary-new", nil)
			return nil
		},
		Hang: c.hang,
		Errors: []providertest.ErrorCase{
			{
				Name: "no identity", Request: func(r *sdk.Request) {
					delete(r.Parameters, "clientID")
					r.Pod.ServiceAccount.Annotations = nil
				},
				Reason: sdk.ReasonLoginFailed, Message: "nothing says which identity to use",
			},
			{
				Name: "another's application", Request: func(r *sdk.Request) { r.Parameters["clientID"] = other.client },
				Reason: sdk.ReasonLoginFailed, Message: "AADSTS700213",
			},
			{
				Name: "no objects", Request: func(r *sdk.Request) { delete(r.Parameters, "objects") },
				Reason: sdk.ReasonInvalidParameters, Field: "objects",
			},
			{
				Name: "no token", Request: func(r *sdk.Request) { r.Tokens = nil },
				Reason: sdk.ReasonTokenMissing, Message: "tokenRequests",
			},
			{Name: "no such secret", Request: func(r *sdk.Request) {
				r.Parameters["objects"] = "[{objectName: nothing, objectType: secret}]"
			}, Reason: sdk.ReasonObjectNotFound, Object: "nothing", Message: "SecretNotFound"},
			{Name: "another's vault", Request: func(r *sdk.Request) {
				r.Parameters["keyvaultName"] = other.name
			}, Reason: sdk.ReasonAccessDenied, Object: "db", Message: "Key Vault Secrets User"},
			{
				Name: "throttled", Setup: c.during(map[string]any{"service": "secrets", "kind": "throttle", "retryAfter": 30}),
				Reason: sdk.ReasonRateLimited, Object: "db", Message: "slow down",
			},
			{
				Name: "down", Setup: c.during(map[string]any{"service": "secrets", "kind": "unavailable"}),
				Reason: sdk.ReasonStoreUnavailable, Object: "db", Message: "reach the vault",
			},
		},
		Canaries: []string{"canary-", "eyJ"},
	})
}

// during breaks the double for the customer until undo is called.
func (c *customer) during(fault map[string]any) func() (undo func(), err error) {
	return func() (func(), error) {
		c.fault(fault)
		return func() { c.drop("/faults", nil) }, nil
	}
}

// hang lets reads wait until they are released or their caller leaves.
func (c *customer) hang() (<-chan struct{}, func()) {
	before := c.calls()
	c.fault(map[string]any{"service": "secrets", "kind": "hang"})
	reached := make(chan struct{})
	go func() {
		defer close(reached)
		for len(since(before, c.calls())) == 0 {
			<-time.After(10 * time.Millisecond) // it cannot be waited for otherwise
		}
	}()
	return reached, func() { c.drop("/faults", nil) }
}
