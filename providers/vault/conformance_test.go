package vault

import (
	"io/fs"
	"net/http"
	"strings"
	"testing"

	"github.com/postern-dev/postern/providers/sdk"
	"github.com/postern-dev/postern/providers/sdk/providertest"
)

// TestConformance runs the sdk's suite with the provider's whole main body and
// the real server.
func TestConformance(t *testing.T) {
	n := newTenant(t, readAll)
	n.put(t, "app", map[string]any{"username": "canary-user-name", "password": "canary-pass-word"})
	n.put(t, "other", map[string]any{"username": "canary-other-name"})
	n.role(t, "open", map[string]any{"bound_subject": ""})
	objects := `
- {objectName: user, secretPath: KV/data/app, secretKey: username}
- {objectName: sub/password, secretPath: KV/data/app, secretKey: password}
`
	valid := func(objects, account string) func() *sdk.Request {
		return func() *sdk.Request {
			r := n.request(t, n.address, objects)
			r.VolumeID = ""
			r.Parameters["roleName"] = "open"
			r.Pod = sdk.Pod{Namespace: "shop", ServiceAccount: sdk.ServiceAccount{Name: account}}
			r.Tokens[0].Token = sdk.NewSecretString(n.jwt(t, map[string]any{"sub": "system:serviceaccount:shop:" + account}))
			r.DefaultFileMode = 0
			return r
		}
	}
	contents := map[string]string{"user": "canary-user-name", "sub/password": "canary-pass-word"}
	rec := record(t, n.bao)
	throughProxy := func() *sdk.Request {
		r := valid(objects, "cart")()
		r.Parameters["vaultAddress"] = rec.URL
		return r
	}
	providertest.Run(t, providertest.Harness{
		Definition: Definition,
		Valid:      providertest.Case{Request: throughProxy, Contents: contents},
		Modes: &providertest.Case{
			Request: valid(strings.ReplaceAll(objects, "secretKey: password", "secretKey: password, filePermission: 0400"), "cart"),
			Modes:   map[string]fs.FileMode{"sub/password": 0o400},
		},
		Pods: []providertest.Case{
			{Request: valid(objects, "cart"), Contents: contents},
			{
				Request:  valid("- {objectName: user, secretPath: KV/data/other, secretKey: username}", "other"),
				Contents: map[string]string{"user": "canary-other-name"},
			},
		},
		Mutate: func() error {
			n.put(t, "app", map[string]any{"username": "canary-user-new", "password": "canary-pass-new"})
			return nil
		},
		Hang: rec.hang,
		Errors: []providertest.ErrorCase{
			{
				Name: "role", Request: func(r *sdk.Request) { r.Parameters["roleName"] = "nobody" },
				Reason: sdk.ReasonLoginFailed, Message: "failed to login",
			},
			{
				Name: "no role", Request: func(r *sdk.Request) { delete(r.Parameters, "roleName") },
				Reason: sdk.ReasonInvalidParameters, Field: "roleName", Message: "missing 'roleName' in SecretProviderClass definition",
			},
			{
				Name: "no objects", Request: func(r *sdk.Request) { delete(r.Parameters, "objects") },
				Reason: sdk.ReasonInvalidParameters, Field: "objects", Message: "no secrets configured",
			},
			{
				Name: "no token", Request: func(r *sdk.Request) { r.Tokens = nil },
				Reason: sdk.ReasonTokenMissing, Message: "tokenRequests",
			},
			{Name: "path", Request: func(r *sdk.Request) {
				r.Parameters["objects"] = "- {objectName: o, secretPath: " + n.name + "/data/nowhere}"
			}, Reason: sdk.ReasonObjectNotFound, Object: "o", Message: "there is nothing at this path"},
			{Name: "policy", Request: func(r *sdk.Request) {
				r.Parameters["objects"] = "- {objectName: o, secretPath: secret/data/app}"
			}, Reason: sdk.ReasonAccessDenied, Object: "o", Message: "The policies of role"},
			{
				Name: "no server", Request: func(r *sdk.Request) { r.Parameters["vaultAddress"] = "http://127.0.0.1:1" },
				Reason: sdk.ReasonStoreUnavailable, Message: "cannot be reached",
			},
		},
		Canaries: []string{"canary-"},
	})
}

// hang lets reads wait until they are released or their caller leaves.
func (r *recorder) hang() (<-chan struct{}, func()) {
	reached, released := make(chan struct{}, 1), make(chan struct{})
	r.failing(func(_ http.ResponseWriter, req *http.Request) bool {
		if req.Method != http.MethodGet {
			return false
		}
		select {
		case reached <- struct{}{}:
		default:
		}
		select {
		case <-released:
		case <-req.Context().Done():
		}
		return true
	})
	return reached, func() {
		r.failing(nil)
		close(released)
	}
}
