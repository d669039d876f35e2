package gcp

import (
	"io/fs"
	"os"
	"testing"
	"time"

	"github.com/postern-dev/postern/providers/sdk"
	"github.com/postern-dev/postern/providers/sdk/providertest"
)

// TestConformance runs the sdk's suite with the provider's whole main body,
// against the test double.
func TestConformance(t *testing.T) {
	c := newCustomer(t)
	other := *c
	other.name = "n" + c.name[1:]
	c.secret("a", "canary-a", nil)
	c.secret("doc", `{"user":"canary-user","port":5432}`, nil)
	other.secret("other", "canary-other", nil)
	const secrets = `
- resourceName: SECRETSa/versions/latest
  path: a
- resourceName: SECRETSdoc/versions/latest
  path: sub/user
  extractJSONKey: user
`
	valid := func(c *customer, secrets string) func() *sdk.Request {
		return func() *sdk.Request {
			r := c.request(secrets)
			r.VolumeID, r.DefaultFileMode = "", 0
			r.Pod = sdk.Pod{Namespace: c.name, ServiceAccount: sdk.ServiceAccount{Name: "web"}}
			r.Tokens = c.tokens(map[string]any{"kubernetes.io": nil})
			return r
		}
	}
	contents := map[string]string{"a": "canary-a", "sub/user": "canary-user"}
	providertest.Run(t, providertest.Harness{
		Definition:    Definition,
		Args:          []string{"--project=" + project},
		Getenv:        os.Getenv,
		YAMLParameter: "secrets",
		Valid:         providertest.Case{Request: valid(c, secrets), Contents: contents},
		Modes: &providertest.Case{
			Request: valid(c, "[{resourceName: SECRETSa/versions/latest, path: a, mode: 0400}]"),
			Modes:   map[string]fs.FileMode{"a": 0o400},
		},
		Pods: []providertest.Case{
			{Request: valid(c, secrets), Contents: contents},
			{
				Request:  valid(&other, "[{resourceName: SECRETSother/versions/latest, path: o}]"),
				Contents: map[string]string{"o": "canary-other"},
			},
		},
		Mutate: func() error {
			c.secret("a", "canary-new", nil)
			return nil
		},
		Hang: c.hang,
		Errors: []providertest.ErrorCase{
			{
				Name: "no secrets", Request: func(r *sdk.Request) { delete(r.Parameters, "secrets") },
				Reason: sdk.ReasonInvalidParameters, Field: "secrets", Message: "missing required 'secrets' attribute",
			},
			{
				Name: "no token", Request: func(r *sdk.Request) { r.Tokens = nil },
				Reason: sdk.ReasonTokenMissing, Message: "tokenRequests",
			},
			{Name: "no such secret", Request: func(r *sdk.Request) {
				r.Parameters["secrets"] = c.named("[{resourceName: SECRETSnothing/versions/latest, path: x}]")
			}, Reason: sdk.ReasonAccessDenied, Object: c.resource("nothing") + "/versions/latest", Message: "or it may not exist"},
			{Name: "another's secret", Request: func(r *sdk.Request) {
				r.Parameters["secrets"] = other.named("[{resourceName: SECRETSother/versions/latest, path: x}]")
			}, Reason: sdk.ReasonAccessDenied, Object: other.resource("other") + "/versions/latest", Message: "roles/secretmanager.secretAccessor"},
			{
				Name: "throttled", Setup: c.during(map[string]any{"service": "secretmanager", "kind": "throttle", "retryAfter": 30}),
				Reason: sdk.ReasonRateLimited, Object: c.resource("a") + "/versions/latest", Message: "slow down",
			},
			{
				Name: "down", Setup: c.during(map[string]any{"service": "secretmanager", "kind": "unavailable"}),
				Reason: sdk.ReasonStoreUnavailable, Object: c.resource("a") + "/versions/latest", Message: "reach the endpoint",
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
	c.fault(map[string]any{"service": "secretmanager", "kind": "hang"})
	reached := make(chan struct{})
	go func() {
		defer close(reached)
		for len(since(before, c.calls())) == 0 {
			<-time.After(10 * time.Millisecond) // it cannot be waited for otherwise
		}
	}()
	return reached, func() { c.drop("/faults", nil) }
}
