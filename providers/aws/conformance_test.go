package aws

import (
	"fmt"
	"io/fs"
	"testing"
	"time"

	"github.com/postern-dev/postern/providers/sdk"
	"github.com/postern-dev/postern/providers/sdk/providertest"
)

// TestConformance runs the sdk's suite with the provider's whole main body,
// against the test double.
func TestConformance(t *testing.T) {
	n := newTenant(t)
	n.secret("db", `{"username":"canary-user-name","password":"canary-pass-word"}`, nil)
	n.secret("other", "canary-other-name", nil)
	n.parameter("url", "canary-parameter-url", map[string]any{"type": "SecureString"})
	otherRole := n.role + "-other"
	n.put(map[string]any{"roles": []any{map[string]any{
		"arn": otherRole, "serviceAccounts": []string{n.name + "/other"}, "policy": n.readAll(),
	}}})
	objects := `
- objectName: NS/db
  objectType: secretsmanager
  objectAlias: db
  jmesPath:
  - {path: username, objectAlias: user}
  - {path: password, objectAlias: sub/password}
- {objectName: /NS/url, objectType: ssmparameter, objectAlias: url}
`
	valid := func(objects, account, role string) func() *sdk.Request {
		return func() *sdk.Request {
			r := n.request(objects)
			r.VolumeID, r.DefaultFileMode, r.Parameters["pathTranslation"] = "", 0, "False"
			r.Pod = sdk.Pod{Namespace: n.name, ServiceAccount: sdk.ServiceAccount{
				Name: account, Annotations: map[string]string{roleAnnotation: role},
			}}
			r.Tokens = n.tokens(map[string]any{"sub": "system:serviceaccount:" + n.name + ":" + account, "kubernetes.io": nil})
			return r
		}
	}
	contents := map[string]string{
		"db":   `{"username":"canary-user-name","password":"canary-pass-word"}`,
		"user": "canary-user-name", "sub/password": "canary-pass-word", "url": "canary-parameter-url",
	}
	providertest.Run(t, providertest.Harness{
		Definition: Definition,
		Args:       []string{"--pod-identity-ipv4-endpoint=" + n.PodIdentity},
		Valid:      providertest.Case{Request: valid(objects, "web", n.role), Contents: contents},
		Modes: &providertest.Case{
			Request: valid("- {objectName: NS/db, objectType: secretsmanager, objectAlias: db, filePermission: '0400'}", "web", n.role),
			Modes:   map[string]fs.FileMode{"db": 0o400},
		},
		Pods: []providertest.Case{
			{Request: valid(objects, "web", n.role), Contents: contents},
			{
				Request:  valid("- {objectName: NS/other, objectType: secretsmanager, objectAlias: o}", "other", otherRole),
				Contents: map[string]string{"o": "canary-other-name"},
			},
		},
		Mutate: func() error {
			n.secret("db", `{"username":"canary-user-new","password":"canary-pass-new"}`, nil)
			n.parameter("url", "canary-parameter-new", map[string]any{"type": "SecureString"})
			return nil
		},
		Hang: n.hang,
		Errors: []providertest.ErrorCase{
			{
				Name: "no role", Request: func(r *sdk.Request) { r.Pod.ServiceAccount.Annotations = nil },
				Reason: sdk.ReasonLoginFailed, Message: "An IAM role must be associated with service account",
			},
			{
				Name: "another's role", Request: func(r *sdk.Request) {
					r.Pod.ServiceAccount.Annotations = map[string]string{roleAnnotation: otherRole}
				},
				Reason: sdk.ReasonLoginFailed, Message: "Not authorized to perform sts:AssumeRoleWithWebIdentity",
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
				r.Parameters["objects"] = fmt.Sprintf("- {objectName: %s/nothing, objectType: secretsmanager}", n.name)
			}, Reason: sdk.ReasonObjectNotFound, Object: n.name + "/nothing", Message: "ResourceNotFoundException"},
			{Name: "policy", Request: func(r *sdk.Request) {
				r.Parameters["objects"] = "- {objectName: elsewhere, objectType: secretsmanager}"
			}, Reason: sdk.ReasonAccessDenied, Object: "elsewhere", Message: "must allow secretsmanager:GetSecretValue"},
			{
				Name: "throttled", Setup: n.during(map[string]any{"service": "secretsmanager", "kind": "throttle"}),
				Reason: sdk.ReasonRateLimited, Object: n.name + "/db", Message: "ThrottlingException",
			},
			{
				Name: "down", Setup: n.during(map[string]any{"service": "secretsmanager", "kind": "unavailable"}),
				Reason: sdk.ReasonStoreUnavailable, Object: n.name + "/db", Message: "reach the endpoints",
			},
		},
		WithoutV1alpha1: "the upstream protocol has no annotations",
		Canaries:        []string{"canary-"},
	})
}

// during breaks the double for the tenant until undo is called.
func (n *tenant) during(fault map[string]any) func() (undo func(), err error) {
	return func() (func(), error) {
		n.fault(fault)
		return func() { n.drop("/faults", nil) }, nil
	}
}

// hang lets reads wait until they are released or their caller leaves.
func (n *tenant) hang() (<-chan struct{}, func()) {
	before := n.calls()
	n.fault(map[string]any{"service": "secretsmanager", "kind": "hang"})
	reached := make(chan struct{})
	go func() {
		defer close(reached)
		for len(since(before, n.calls())) == 0 {
			<-time.After(10 * time.Millisecond) // it cannot be waited for otherwise
		}
	}()
	return reached, func() { n.drop("/faults", nil) }
}
