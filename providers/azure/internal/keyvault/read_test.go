package keyvault

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-dev/postern/providers/azure/internal/params"
	"github.com/postern-dev/postern/providers/sdk"
)

// vaultOf answers each request that has a token with the same.
func vaultOf(status int, body string) *memoryVault {
	return &memoryVault{script: func(r request) *reply {
		if r.token == "" {
			return nil
		}
		return &reply{status: status, body: body}
	}}
}

func TestReadEachType(t *testing.T) {
	t.Parallel()
	const id = "https://kv.vault.azure.net/%s/App/0123456789abcdef"
	for name, tt := range map[string]struct {
		kind params.ObjectType
		body string
		want Object
	}{
		"secret": {
			params.Secret, `{"id":"` + id + `","value":"canary-contents","attributes":{"enabled":true}}`,
			Object{Value: sdk.NewSecret([]byte("canary-contents"))},
		},
		"secret with a content type": {
			params.Secret, `{"id":"` + id + `","value":"x","contentType":"text/plain"}`,
			Object{Value: sdk.NewSecret([]byte("x")), ContentType: "text/plain"},
		},
		"empty secret": {params.Secret, `{"id":"` + id + `","value":""}`, Object{Value: sdk.NewSecret(nil)}},
		"secret of a certificate": {
			params.Secret, `{"id":"` + id + `","value":"x","contentType":"application/x-pkcs12","kid":"https://kv.vault.azure.net/keys/app/1","managed":true}`,
			Object{Value: sdk.NewSecret([]byte("x")), ContentType: "application/x-pkcs12", CertificateBacked: true},
		},
		"secret of a certificate without a content type": {
			params.Secret, `{"id":"` + id + `","value":"x","contentType":null,"kid":"https://kv.vault.azure.net/keys/app/1"}`,
			Object{Value: sdk.NewSecret([]byte("x")), CertificateBacked: true},
		},
		"RSA key": {
			params.Key, `{"key":{"kid":"` + id + `","kty":"RSA","n":"AQID","e":"AQAB"}}`,
			Object{Key: &PublicKey{Kty: "RSA", N: []byte{1, 2, 3}, E: []byte{1, 0, 1}}},
		},
		"EC key of an HSM": {
			params.Key, `{"key":{"kid":"` + id + `","kty":"EC-HSM","crv":"P-256","x":"AQ","y":"Ag"}}`,
			Object{Key: &PublicKey{Kty: "EC-HSM", Curve: "P-256", X: []byte{1}, Y: []byte{2}}},
		},
		"symmetric key": {params.Key, `{"key":{"kid":"` + id + `","kty":"oct-HSM"}}`, Object{Key: &PublicKey{Kty: "oct-HSM"}}},
		"certificate": {
			params.Certificate, `{"id":"` + id + `","cer":"AQID","sid":"x","attributes":{"enabled":true}}`, Object{CER: []byte{1, 2, 3}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := vaultOf(http.StatusOK, strings.ReplaceAll(tt.body, "%s", collection(tt.kind)))
			tt.want.Type, tt.want.Name, tt.want.Version = tt.kind, "App", "0123456789abcdef"
			for _, version := range []string{"", "0123456789ABCDEF"} {
				got := one(t, m.store(), as("web"), Ref{Type: tt.kind, Name: "app", Version: version})
				if diff := cmp.Diff(tt.want, got, cmp.Comparer(sameSecret)); diff != "" {
					t.Error(diff)
				}
			}
		})
	}
}

func sameSecret(a, b sdk.Secret) bool { return string(a.Reveal()) == string(b.Reveal()) }

func TestIncompleteAnswers(t *testing.T) {
	t.Parallel()
	const id = "https://kv.vault.azure.net/%s/app/v1"
	type answers map[string]string
	for kind, bodies := range map[params.ObjectType]answers{
		params.Secret: {
			`{}`:                               "an id",
			`{"value":"canary"}`:               "an id",
			`{"id":"` + id + `"}`:              "the secret's value",
			`{"id":"` + id + `","value":null}`: "the secret's value",
			`{"id":"https://kv.vault.azure.net/secrets/app","value":"canary"}`:      "the version of what it is",
			`{"id":"https://kv.vault.azure.net/secrets/other/v1","value":"canary"}`: "this is another object",
			`{"id":"https://kv.vault.azure.net/keys/app/v1","value":"canary"}`:      "a proper id",
			`{"id":"https://kv.vault.azure.net/secrets//v1","value":"canary"}`:      "a proper id",
			`{"id":"https://kv.vault.azure.net/","value":"canary"}`:                 "a proper id",
			`{"id":"https://kv.vault.azure.net/secrets/app/v1/x","value":"canary"}`: "a proper id",
			`{"id":"%zz","value":"canary"}`:                                         "a proper id",
			`{"id":"","value":"canary"}`:                                            "a proper id",
			`null`:                                                                  "an id",
			"":                                                                      "an id",
		},
		params.Key: {
			`{}`:                           "the key",
			`{"key":{}}`:                   "an id",
			`{"key":{"kid":"` + id + `"}}`: "the key's type",
			`{"key":{"kid":"` + id + `","kty":"RSA"}}`:                           "the modulus or the exponent",
			`{"key":{"kid":"` + id + `","kty":"RSA-HSM","n":"AQ"}}`:              "the modulus or the exponent",
			`{"key":{"kid":"` + id + `","kty":"RSA","e":"AQ"}}`:                  "the modulus or the exponent",
			`{"key":{"kid":"` + id + `","kty":"EC","crv":"P-256"}}`:              "the curve or the point",
			`{"key":{"kid":"` + id + `","kty":"EC","crv":"P-256","x":"AQ"}}`:     "the curve or the point",
			`{"key":{"kid":"` + id + `","kty":"EC-HSM","x":"AQ","y":"AQ"}}`:      "the curve or the point",
			`{"key":{"kid":"` + id + `","kty":"EC","crv":"P-256","y":"AQ"}}`:     "the curve or the point",
			`{"key":{"kid":"https://kv.vault.azure.net/keys/b/v1","kty":"oct"}}`: "this is another object",
		},
		params.Certificate: {
			`{}`:                           "an id",
			`{"cer":"AQ=="}`:               "an id",
			`{"id":"` + id + `"}`:          "it may not have been issued yet",
			`{"id":"` + id + `","cer":""}`: "it may not have been issued yet",
			`{"id":"https://kv.vault.azure.net/certificates/b/v1","cer":"AQ=="}`: "this is another object",
		},
	} {
		for body, want := range bodies {
			m := vaultOf(http.StatusOK, strings.ReplaceAll(body, "%s", collection(kind)))
			e := refused(t, m.store(), as("web"), Ref{Type: kind, Name: "app"})
			if e.Kind != Unavailable || !strings.Contains(e.Message, "the vault answered without") || !strings.Contains(e.Message, want) {
				t.Errorf("%s %s: %s: %v", kind, body, e.Kind, e)
			}
		}
	}
	t.Run("another version", func(t *testing.T) {
		t.Parallel()
		m := vaultOf(http.StatusOK, `{"id":"https://kv.vault.azure.net/secrets/app/v1","value":"canary"}`)
		if e := refused(t, m.store(), as("web"), Ref{Type: params.Secret, Name: "app", Version: "v2"}); !strings.Contains(e.Message, "this is another object") {
			t.Error(e)
		}
	})
}

func TestReadAsksForEachOnce(t *testing.T) {
	t.Parallel()
	m := &memoryVault{objects: []*object{
		current(params.Secret, "a"), current(params.Secret, "b"), current(params.Key, "a"), current(params.Certificate, "a"),
	}}
	s := m.store()
	refs := []Ref{
		secret("b"), secret("a"),
		{Type: params.Key, Name: "a"},
		secret("b"),
		{Type: params.Certificate, Name: "a"},
		{Type: params.Secret, Name: "a", History: 1},
		{Type: params.Secret, Name: "a", Version: "v1"},
		secret("none"),
	}
	for i, want := range []string{
		"certificates/challenge=1 certificates/get=1 keys/challenge=1 keys/get=1 secrets/challenge=1 secrets/get=4",
		"certificates/get=1 keys/get=1 secrets/get=4",
	} {
		answers, err := s.Read(t.Context(), as("web"), refs)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for j, answer := range answers {
			if answer.Ref != refs[j] {
				t.Errorf("answer %d is of %v", j, answer.Ref)
			}
			for _, o := range answer.Objects {
				got = append(got, fmt.Sprint(o.Type, " ", o.Name, " ", string(o.Value.Reveal()), string(o.CER)))
			}
		}
		if diff := cmp.Diff([]string{
			"secret b " + contentsOf + "bv1", "secret a " + contentsOf + "av1", "key a ", "secret b " + contentsOf + "bv1",
			"cert a av1", "secret a " + contentsOf + "av1", "secret a " + contentsOf + "av1",
		}, got); diff != "" {
			t.Error(diff)
		}
		if e := asError(t, answers[7].Err); e.Kind != NotFound || answers[7].Objects != nil {
			t.Errorf("what is not there: %v", e)
		}
		if got := m.operations(); got != want {
			t.Errorf("read %d: %s, want %s", i, got, want)
		}
	}
}

func TestReadNothing(t *testing.T) {
	t.Parallel()
	m := &memoryVault{}
	if answers, err := m.store().Read(t.Context(), as("web"), nil); err != nil || len(answers) != 0 || m.operations() != "" {
		t.Errorf("%v %v", answers, err)
	}
}

func TestInvalidRefs(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		url string
		ref Ref
	}{
		"no name":    {vaultURL, secret("")},
		"no type":    {vaultURL, Ref{Name: "a"}},
		"other type": {vaultURL, Ref{Type: "certificate", Name: "a"}},
		"no address": {"", secret("a")},
		"no TLS":     {"http://kv.vault.azure.net/", secret("a")},
		"bad host":   {"https://%zz/", secret("a")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := &memoryVault{}
			vault := as("web")
			vault.URL = tt.url
			if e := refused(t, m.store(), vault, tt.ref); e.Kind != Invalid {
				t.Errorf("%s: %v", e.Kind, e)
			}
			if got := m.operations(); got != "" {
				t.Errorf("requests: %s", got)
			}
		})
	}
}

func TestIdentitiesAreApart(t *testing.T) {
	t.Parallel()
	m := &memoryVault{objects: []*object{current(params.Secret, "a")}}
	s := m.store()
	for _, identity := range []string{"web", "batch", "web", "batch"} {
		m.mu.Lock()
		m.requests = nil
		m.mu.Unlock()
		one(t, s, as(identity), secret("a"))
		for _, r := range m.requests {
			if r.token != "" && r.token != tokenOf+identity {
				t.Errorf("a request as %s has another's token", identity)
			}
		}
	}
}
