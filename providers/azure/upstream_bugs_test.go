package azure

import (
	"maps"
	"testing"

	"github.com/postern-dev/postern/providers/sdk"
)

// What the upstream provider gets wrong and users have learned to live with is right
// here. Other tests have the rest: TestHistory that there are as many versions as the class
// says, package params that a bad mode is refused, that "PFX" is checked as "pfx" is and
// that a class names no file of the process, package content that a certificate's
// secret without a content type is no crash and that .crt and .key of a PFX are not empty.

// Upstream leaves the alias out of ids: of two aliases of one secret only one is in
// the status, so that nothing can be told of the other.
func TestUpstream_TwoAliasesOfOneSecret(t *testing.T) {
	t.Parallel()
	c := newCustomer(t)
	c.secret("a", "canary-a", nil)
	before := c.calls()
	resp := c.fetchOK(c.request("[{objectName: a, objectType: secret, objectAlias: one}, {objectName: a, objectType: secret, objectAlias: two}]"))
	if got, want := contentsOf(resp), map[string]string{"one": "canary-a", "two": "canary-a"}; !maps.Equal(got, want) {
		t.Errorf("files %q, want %q", got, want)
	}
	wantIDs(t, resp, "secret/a", "secret/a in two")
	if calls := since(before, c.calls()); calls["secrets get"] != 1 {
		t.Errorf("calls %v, want the secret to be read once", calls)
	}
}

// Upstream takes an empty list for success, and leaves it to the driver to fail.
func TestUpstream_EmptyList(t *testing.T) {
	t.Parallel()
	c := newCustomer(t)
	c.wantError(c.request("array: []"), sdk.ReasonInvalidParameters, "objects")
}

// Upstream asks the node for its identity for any class that says so.
func TestUpstream_NodeIdentity(t *testing.T) {
	t.Parallel()
	c := newCustomer(t)
	c.secret("a", "canary-a", nil)
	req := c.request(oneSecret)
	req.Parameters["useVMManagedIdentity"], req.Parameters["userAssignedIdentityID"] = "true", c.client
	c.wantError(req, sdk.ReasonAccessDenied, "useVMManagedIdentity", "provider-azure.azure.managedIdentity.namespaces")
}
