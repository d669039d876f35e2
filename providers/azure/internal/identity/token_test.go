package identity

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
)

// TestGetToken: a token is given for its own scope and tenant alone.
func TestGetToken(t *testing.T) {
	t.Parallel()
	const vault = "https://vault.azure.net/.default"
	for name, test := range map[string]struct {
		kind   Kind
		tenant string // of the class, if not tenantA
		opts   policy.TokenRequestOptions
		want   string // in the error; "": none
	}{
		"as asked":                {kind: WorkloadIdentity, opts: policy.TokenRequestOptions{Scopes: []string{vault}, TenantID: tenantA}},
		"without a tenant":        {kind: WorkloadIdentity, opts: policy.TokenRequestOptions{Scopes: []string{vault}}},
		"in other letters":        {kind: WorkloadIdentity, tenant: "Contoso.Example", opts: policy.TokenRequestOptions{Scopes: []string{strings.ToUpper(vault[:20]) + vault[20:]}, TenantID: "CONTOSO.example"}},
		"with a slash":            {kind: WorkloadIdentity, opts: policy.TokenRequestOptions{Scopes: []string{"https://vault.azure.net//.default"}, TenantID: tenantA}},
		"domain name":             {kind: WorkloadIdentity, tenant: "contoso.example", opts: policy.TokenRequestOptions{Scopes: []string{vault}, TenantID: tenantA}},
		"ADFS":                    {kind: WorkloadIdentity, tenant: "adfs", opts: policy.TokenRequestOptions{Scopes: []string{vault}, TenantID: "adfs"}},
		"other tenant":            {kind: WorkloadIdentity, opts: policy.TokenRequestOptions{Scopes: []string{vault}, TenantID: tenantB}, want: "a token of tenant " + tenantB + ", and the identity's is of tenant " + tenantA},
		"other tenant, by secret": {kind: ServicePrincipal, opts: policy.TokenRequestOptions{Scopes: []string{vault}, TenantID: tenantB}, want: "belongs to another tenant or cloud"},
		"other cloud":             {kind: WorkloadIdentity, opts: policy.TokenRequestOptions{Scopes: []string{"https://vault.azure.cn/.default"}, TenantID: tenantA}, want: "scope https://vault.azure.cn/.default"},
		"other service":           {kind: WorkloadIdentity, opts: policy.TokenRequestOptions{Scopes: []string{"https://management.azure.com/.default"}}, want: "scope https://management.azure.com/.default"},
		"two scopes":              {kind: WorkloadIdentity, opts: policy.TokenRequestOptions{Scopes: []string{vault, "https://management.azure.com/.default"}}, want: "management"},
		"the node's tenant":       {kind: ManagedIdentity, tenant: "whatever", opts: policy.TokenRequestOptions{Scopes: []string{vault}, TenantID: tenantA}},
		"not the node's tenant":   {kind: ManagedIdentity, opts: policy.TokenRequestOptions{Scopes: []string{vault}, TenantID: tenantB}, want: "the identity's is of tenant " + tenantA},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				use := of(test.kind, "a")
				if test.tenant != "" {
					use.TenantID = test.tenant
				}
				token := acquire(t, manager(entra(), nil), use)
				got, err := token.GetToken(t.Context(), test.opts)
				if test.want == "" {
					if err != nil || got.Token != access(1, tenantA) || !got.ExpiresOn.Equal(token.Expires()) {
						t.Errorf("got %v, error %v", got.ExpiresOn, err)
					}
					return
				}
				e, ok := errors.AsType[*ScopeError](err)
				if !ok || !strings.Contains(e.Error(), test.want) || got.Token != "" {
					t.Errorf("error %v, want a *ScopeError with %q", err, test.want)
				}
				if _, ok := errors.AsType[interface {
					error
					NonRetriable()
				}](err); !ok {
					t.Error("the SDK would ask again")
				}
				noCanary(t, err)
			})
		})
	}
}

// TestGetTokenOfAnOpaqueToken: what says nothing of a tenant is left to the vault.
func TestGetTokenOfAnOpaqueToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for body, want := range map[string]string{
			`{"token_type": "Bearer", "expires_in": 60, "access_token": "canary"}`:       "canary",
			`{"token_type": "Bearer", "expires_in": 60, "access_token": "canary.!.b"}`:   "canary.!.b",
			`{"token_type": "Bearer", "expires_in": 60, "access_token": "canary.e30.b"}`: "canary.e30.b",
		} {
			s := &transport{answer: always(200, body)}
			token := acquire(t, manager(s, nil), of(ManagedIdentity, "a"))
			got, err := token.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{"https://vault.azure.net/.default"}, TenantID: tenantB})
			if err != nil || got.Token != want {
				t.Errorf("error %v", err)
			}
		}
	})
}
