package identity

import (
	"strings"
	"testing"

	"github.com/postern-dev/postern/providers/sdk"
)

// TestUseIsIncomplete: nobody is asked for a token for nobody.
func TestUseIsIncomplete(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		kind   Kind
		change func(*Use)
		want   string
	}{
		"kind":            {WorkloadIdentity, func(u *Use) { u.Kind = "other" }, `no kind of identity "other"`},
		"namespace":       {WorkloadIdentity, func(u *Use) { u.Subject.Namespace = "" }, "no service account"},
		"service account": {Provider, func(u *Use) { u.Subject.ServiceAccount = "" }, "no service account"},
		"audience":        {WorkloadIdentity, func(u *Use) { u.Federation.Audience = "" }, "no workload identity pool"},
		"address":         {WorkloadIdentity, func(u *Use) { u.Federation.TokenURL = "" }, "no https URL"},
		"address with no TLS": {
			WorkloadIdentity, func(u *Use) { u.Federation.TokenURL = "http://sts.googleapis.com/v1/token" }, "no https URL",
		},
		"token":               {WorkloadIdentity, func(u *Use) { u.Token = sdk.SecretString{} }, "no token"},
		"key":                 {ServiceAccountKey, func(u *Use) { u.Key = sdk.SecretString{} }, "no key"},
		"path as account":     {WorkloadIdentity, func(u *Use) { u.ServiceAccount = "../secrets@x" }, "not the address of a service account"},
		"query as account":    {WorkloadIdentity, func(u *Use) { u.ServiceAccount = "a@b.example?x" }, "not the address of a service account"},
		"name as account":     {WorkloadIdentity, func(u *Use) { u.ServiceAccount = "cart" }, "not the address of a service account"},
		"lines in account":    {WorkloadIdentity, func(u *Use) { u.ServiceAccount = googleSA + "\n" }, "not the address of a service account"},
		"delegate":            {WorkloadIdentity, func(u *Use) { u.ServiceAccount, u.Delegates = googleSA, []string{googleSA, "a b@c"} }, `the delegate "a b@c"`},
		"delegates to nobody": {WorkloadIdentity, func(u *Use) { u.Delegates = []string{googleSA} }, "no service account that they lead to"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := googles()
			use := of(test.kind, "a")
			test.change(&use)
			_, err := manager(s, nil).Acquire(t.Context(), use)
			if e := failure(t, err); e.Kind != Invalid || !strings.Contains(e.Error(), test.want) {
				t.Errorf("error %v, want Invalid with %q", err, test.want)
			}
			if s.count() != 0 {
				t.Errorf("%v was asked", s.all())
			}
			noCanary(t, err)
		})
	}
}

// TestKeyIsUnfit: what a class brings is looked at before anything is sent.
func TestKeyIsUnfit(t *testing.T) {
	t.Parallel()
	with := func(name string, value any) sdk.SecretString { return keyJSON(map[string]any{name: value}) }
	for name, test := range map[string]struct {
		key  sdk.SecretString
		want string
	}{
		"no JSON":         {sdk.NewSecretString("canary"), "not the JSON"},
		"a list":          {sdk.NewSecretString(`["canary"]`), "not the JSON"},
		"another type":    {with("type", "external_account"), `of type "external_account", and only service_account is allowed`},
		"no type":         {with("type", nil), `of type ""`},
		"user":            {with("type", "authorized_user"), `of type "authorized_user"`},
		"universe":        {with("universe_domain", "apis.example"), `universe "apis.example"`},
		"no address":      {with("client_email", nil), "client_email"},
		"no key":          {with("private_key", nil), "private_key"},
		"no PEM":          {with("private_key", "canary"), "private_key"},
		"PEM of no key":   {with("private_key", "-----BEGIN PRIVATE KEY-----\nY2FuYXJ5\n-----END PRIVATE KEY-----\n"), "private_key"},
		"elsewhere":       {with("token_uri", "https://evil.example/token"), `token_uri "https://evil.example/token"`},
		"without TLS":     {with("token_uri", "http://oauth2.googleapis.com/token"), `token_uri "http://oauth2.googleapis.com/token"`},
		"a path below":    {with("token_uri", DefaultTokenURI+"/x"), "token_uri"},
		"another account": {with("token_uri", "https://oauth2.googleapis.com@evil.example/token"), "token_uri"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := googles()
			use := of(ServiceAccountKey, "a")
			use.Key = test.key
			_, err := manager(s, nil).Acquire(t.Context(), use)
			if e := failure(t, err); e.Kind != Invalid || e.Operation != OperationOAuth2 || !strings.Contains(e.Message, test.want) {
				t.Errorf("error %v, want Invalid with %q", err, test.want)
			}
			if s.count() != 0 {
				t.Errorf("%v was asked", s.all())
			}
			noCanary(t, err)
		})
	}
}

// TestIdentity: how messages say whose a token is, and how IAM does.
func TestIdentity(t *testing.T) {
	t.Parallel()
	elsewhere := of(WorkloadIdentity, "a")
	elsewhere.Federation = wif()
	broken := of(ServiceAccountKey, "a")
	broken.Key = sdk.NewSecretString("{}")
	principal := "principal:" + wifPool + "/subject/system:serviceaccount:shop:cart"
	for name, test := range map[string]struct {
		use              Use
		identity, member string
	}{
		"GKE":        {of(WorkloadIdentity, "a"), "serviceAccount:shop-1.svc.id.goog[shop/cart]", "serviceAccount:shop-1.svc.id.goog[shop/cart]"},
		"federation": {elsewhere, principal, principal},
		"service account": {
			impersonating(), "service account " + googleSA + " by workload identity of shop/cart", "serviceAccount:" + googleSA,
		},
		"delegates": {
			impersonating("a@b.example", "c@d.example"),
			"service account " + googleSA + " by workload identity of shop/cart, through a@b.example and c@d.example", "serviceAccount:" + googleSA,
		},
		"key":        {of(ServiceAccountKey, "a"), "the service account key of shop/cart", "serviceAccount:" + googleSA},
		"broken key": {broken, "the service account key of shop/cart", ""},
		"provider":   {of(Provider, "a"), "the provider's own identity", ""},
	} {
		if got := keyOf(test.use).String(); got != test.identity {
			t.Errorf("%s: identity %q, want %q", name, got, test.identity)
		}
		if got := test.use.Member(); got != test.member {
			t.Errorf("%s: member %q, want %q", name, got, test.member)
		}
	}
	odd := Federation{Audience: "identitynamespace:corp.example:shop.svc.id.goog:" + cluster}
	if got := odd.Member(Subject{"a", "b"}); got != "serviceAccount:corp.example:shop.svc.id.goog[a/b]" {
		t.Errorf("member %q", got)
	}
}
