package identity

import (
	"errors"
	"strings"
	"testing"

	"github.com/postern-dev/postern/providers/sdk"
)

// failure is the *Error of a login that failed.
func failure(t *testing.T, err error) *Error {
	t.Helper()
	e, ok := errors.AsType[*Error](err)
	if !ok {
		t.Fatalf("error %v (%T), want an *Error", err, err)
	}
	return e
}

// TestUseIsIncomplete: nobody is asked for a token for nobody.
func TestUseIsIncomplete(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		kind   Kind
		change func(*Use)
		want   string
	}{
		"kind":                         {WorkloadIdentity, func(u *Use) { u.Kind = "other" }, `no kind of identity "other"`},
		"namespace":                    {WorkloadIdentity, func(u *Use) { u.Subject.Namespace = "" }, "no service account"},
		"service account":              {ManagedIdentity, func(u *Use) { u.Subject.ServiceAccount = "" }, "no service account"},
		"authority":                    {WorkloadIdentity, func(u *Use) { u.Cloud.AuthorityHost = "" }, "no cloud"},
		"scope":                        {ManagedIdentity, func(u *Use) { u.Cloud.VaultScope = "" }, "no cloud"},
		"tenant":                       {WorkloadIdentity, func(u *Use) { u.TenantID = "" }, "no tenant"},
		"tenant of a secret":           {ServicePrincipal, func(u *Use) { u.TenantID = "" }, "no tenant"},
		"client":                       {WorkloadIdentity, func(u *Use) { u.ClientID = "" }, "no client ID"},
		"client of a secret":           {ServicePrincipal, func(u *Use) { u.ClientID = "" }, "no client ID"},
		"client of a binding":          {IdentityBinding, func(u *Use) { u.ClientID = "" }, "no client ID"},
		"token":                        {WorkloadIdentity, func(u *Use) { u.Token = sdk.SecretString{} }, "no token"},
		"token of a binding":           {IdentityBinding, func(u *Use) { u.Token = sdk.SecretString{} }, "no token"},
		"secret":                       {ServicePrincipal, func(u *Use) { u.Secret = sdk.SecretString{} }, "no client secret"},
		"pod":                          {PodIdentity, func(u *Use) { u.PodName = "" }, "no pod"},
		"tenant that is none":          {WorkloadIdentity, func(u *Use) { u.TenantID = "a/../b" }, "tenantID"},
		"authority without TLS":        {WorkloadIdentity, func(u *Use) { u.Cloud.AuthorityHost = "http://login.example/" }, "https"},
		"name of the proxy in TLS":     {IdentityBinding, func(*Use) {}, "--sni-name"},
		"authority that is no address": {ServicePrincipal, func(u *Use) { u.Cloud.AuthorityHost = "https://a b/" }, "invalid character"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := entra()
			use := of(test.kind, "a")
			test.change(&use)
			_, err := manager(s, nil).Acquire(t.Context(), use)
			if e := failure(t, err); e.Kind != Invalid || !strings.Contains(e.Error(), test.want) {
				t.Errorf("error %v, want Invalid with %q", err, test.want)
			}
			if len(s.all()) != 0 {
				t.Errorf("%v was asked", s.all())
			}
			noCanary(t, err)
		})
	}
}

// TestIdentity: how messages say whose a token is.
func TestIdentity(t *testing.T) {
	t.Parallel()
	for want, use := range map[string]Use{
		"client " + clientA + " of tenant " + tenantA + " by workload identity of service account shop/cart": of(WorkloadIdentity, "a"),
		"client " + clientA + " of tenant " + tenantA + " by identity binding of service account shop/cart":  of(IdentityBinding, "a"),
		"service principal " + clientA + " of tenant " + tenantA:                                             of(ServicePrincipal, "a"),
		"the node's user-assigned managed identity " + clientA:                                               of(ManagedIdentity, "a"),
		"pod shop/pod-a by AAD Pod Identity":                                                                 of(PodIdentity, "a"),
	} {
		if got := keyOf(use).String(); got != want {
			t.Errorf("identity %q, want %q", got, want)
		}
	}
	system := of(ManagedIdentity, "a")
	system.ClientID = ""
	if got := keyOf(system).String(); got != "the node's system-assigned managed identity" {
		t.Errorf("identity %q", got)
	}
}
