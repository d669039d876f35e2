package keyvault

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/postern-dev/postern/providers/azure/internal/params"
)

func TestAnswersThatAreErrors(t *testing.T) {
	t.Parallel()
	long := `{"error":{"code":"BadParameter","message":"x` + strings.Repeat("ä", maxMessage) + `"}}`
	for name, tt := range map[string]struct {
		answer      *reply
		kind        Kind
		code, inner string
		text        string
	}{
		"no secret":             {failure(404, "SecretNotFound", ""), NotFound, "SecretNotFound", "", "text of SecretNotFound second line"},
		"no key":                {failure(404, "KeyNotFound", ""), NotFound, "KeyNotFound", "", "text of"},
		"no certificate":        {failure(404, "CertificateNotFound", ""), NotFound, "CertificateNotFound", "", "text of"},
		"no vault":              {failure(404, "VaultNotFound", ""), Invalid, "VaultNotFound", "", "text of"},
		"no page":               {&reply{status: 404, body: "<html>canary</html>"}, Unavailable, "", "", "of HTTP status 404, is not a vault's"},
		"not found, of another": {&reply{status: 404, body: `{"message":"canary"}`}, Unavailable, "", "", "is not a vault's"},
		"disabled":              {failure(403, "Forbidden", "SecretDisabled"), Disabled, "Forbidden", "SecretDisabled", "text of"},
		"disabled key":          {failure(403, "Forbidden", "KeyDisabled"), Disabled, "Forbidden", "KeyDisabled", "text of"},
		"by RBAC":               {failure(403, "Forbidden", "ForbiddenByRbac"), Denied, "Forbidden", "ForbiddenByRbac", "text of"},
		"by policy":             {failure(403, "Forbidden", "ForbiddenByPolicy"), Denied, "Forbidden", "ForbiddenByPolicy", "text of"},
		"by policy, old":        {failure(403, "Forbidden", "AccessDenied"), Denied, "Forbidden", "AccessDenied", "text of"},
		"by firewall":           {failure(403, "Forbidden", "ForbiddenByFirewall"), Denied, "Forbidden", "ForbiddenByFirewall", "text of"},
		"by connection":         {failure(403, "Forbidden", "ForbiddenByConnection"), Denied, "Forbidden", "ForbiddenByConnection", "text of"},
		"forbidden":             {failure(403, "Forbidden", ""), Denied, "Forbidden", "", "text of"},
		"forbidden by a proxy":  {&reply{status: 403, body: "canary"}, Unavailable, "", "", "is not a vault's"},
		"bad name":              {failure(400, "BadParameter", ""), Invalid, "BadParameter", "", "text of"},
		"conflict":              {failure(409, "Conflict", "ObjectIsDeletedButRecoverable"), Invalid, "Conflict", "ObjectIsDeletedButRecoverable", "text of"},
		"throttled":             {failure(429, "Throttled", ""), Throttled, "Throttled", "", "text of"},
		"throttled, wordless":   {&reply{status: 429}, Throttled, "", "", "is not a vault's"},
		"broken":                {failure(500, "InternalServerError", ""), Unavailable, "InternalServerError", "", "text of"},
		"busy":                  {&reply{status: 503, body: "canary"}, Unavailable, "", "", "of HTTP status 503, is not a vault's"},
		"too slow":              {&reply{status: 408}, Unavailable, "", "", "is not a vault's"},
		"elsewhere":             {&reply{status: 302, header: http.Header{"Location": {"https://portal/?canary"}}}, Unavailable, "", "", "of HTTP status 302"},
		"not JSON":              {&reply{status: 200, body: `canary`}, Unavailable, "", "", "of HTTP status 200, is not a vault's"},
		"half of it":            {&reply{status: 200, body: `{"id":"https://kv.vault.azure.net/secrets/a/v1","value":"canary`}, Unavailable, "", "", "of HTTP status 200"},
		"a number for a value":  {&reply{status: 200, body: `{"id":"https://kv.vault.azure.net/secrets/a/v1","value":"x","attributes":{"exp":"canary"}}`}, Unavailable, "", "", "of HTTP status 200"},
		"a list":                {&reply{status: 200, body: `["canary"]`}, Unavailable, "", "", "of HTTP status 200"},
		"created":               {&reply{status: 201, body: `{"value":"canary"}`}, Unavailable, "", "", "of HTTP status 201"},
		"no message":            {&reply{status: 403, body: `{"error":{"code":"Forbidden"}}`}, Denied, "Forbidden", "", "the vault gave no reason"},
		"endless message":       {&reply{status: 400, body: long}, Invalid, "BadParameter", "", "ää..."},
		"the token in it":       {&reply{status: 400, body: `{"error":{"code":"BadParameter","message":"not ` + tokenOf + `web!"}}`}, Invalid, "BadParameter", "", "not [redacted]!"},
		"the token as a code":   {failure(400, tokenOf+"web", ""), Unavailable, "", "", "is not a vault's"},
		"a sentence as a code":  {failure(400, "not canary", ""), Unavailable, "", "", "is not a vault's"},
		"a sentence inside":     {failure(400, "BadParameter", "not canary"), Invalid, "BadParameter", "", "text of"},
		"error in a header":     {&reply{status: 403, header: http.Header{"X-Ms-Error-Code": {"Forbidden"}}, body: "canary"}, Denied, "Forbidden", "", "the vault gave no reason"},
		"error that is a text":  {&reply{status: 403, body: `{"error":"canary"}`}, Unavailable, "", "", "is not a vault's"},
		"message that is none":  {&reply{status: 403, body: `{"error":{"code":"Forbidden","message":{"a":"canary"}}}`}, Denied, "Forbidden", "", "gave no reason"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { // some are tried again
				m := &memoryVault{script: func(r request) *reply {
					if r.token == "" {
						return nil
					}
					return tt.answer
				}}
				e := refused(t, m.store(), as("web"), secret("a"))
				if e.Kind != tt.kind || e.Code != tt.code || e.InnerCode != tt.inner || !strings.Contains(e.Message, tt.text) {
					t.Errorf("%s, code %q (%q): %v", e.Kind, e.Code, e.InnerCode, e)
				}
				if e.Status != tt.answer.status || e.Operation != "secrets/get" || e.Object != "a" || e.Vault != vaultURL {
					t.Errorf("status %d of %s %s %s", e.Status, e.Vault, e.Operation, e.Object)
				}
				if len(e.Message) > maxMessage+len("...") {
					t.Errorf("a message of %d bytes", len(e.Message))
				}
			})
		})
	}
}

// sent is an error as http.Client wraps it.
func sent(err error) error {
	return &url.Error{Op: "Get", URL: vaultURL + "secrets/a/?canary", Err: err}
}

func TestNoAnswer(t *testing.T) {
	t.Parallel()
	lookup := func(name string) error {
		return &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}}
	}
	for name, tt := range map[string]struct {
		err   error
		text  string
		tries int
	}{
		"no such vault":        {sent(lookup("kv.vault.azure.net")), "the vault may not exist in this cloud", 1},
		"no such vault.":       {sent(lookup("kv.vault.azure.net.")), "the vault may not exist in this cloud", 1},
		"no such vault, kv":    {sent(lookup("KV.vault.azure.net")), "the vault may not exist in this cloud", 1},
		"no such proxy":        {sent(lookup("proxy")), "lookup proxy: no such host", 1},
		"no DNS":               {sent(&net.DNSError{Err: "server misbehaving", Name: "kv.vault.azure.net", IsTemporary: true}), "server misbehaving", tries},
		"proxy refuses":        {sent(errors.New("Bad Gateway")), "the proxy does not connect to it (Bad Gateway)", 1},
		"proxy forbids":        {sent(errors.New("Forbidden")), "the proxy does not connect to it (Forbidden)", 1},
		"proxy wants a login":  {sent(errors.New("Proxy Authentication Required")), "the proxy does not connect to it", 1},
		"untrusted":            {sent(&tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}), "certificate signed by unknown authority: if a proxy ends TLS", 1},
		"another host's":       {sent(&tls.CertificateVerificationError{Err: x509.HostnameError{Host: "kv", Certificate: &x509.Certificate{}}}), "if a proxy ends TLS", 1},
		"refused":              {sent(&net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}), "connection refused", tries},
		"reset":                {sent(errors.New("connection reset by peer")), "connection reset by peer", tries},
		"cut":                  {sent(io.ErrUnexpectedEOF), "unexpected EOF", tries},
		"not from http.Client": {errors.New("broken"), "broken", tries},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				m := &memoryVault{script: func(request) *reply { return &reply{err: tt.err} }}
				e := refused(t, m.store(), as("web"), secret("a"))
				if e.Kind != Unavailable || e.Status != 0 || !strings.Contains(e.Message, tt.text) {
					t.Errorf("%s, status %d: %v", e.Kind, e.Status, e)
				}
				if got := len(m.requests); got != tt.tries {
					t.Errorf("%d requests, want %d", got, tt.tries)
				}
			})
		})
	}
	t.Run("as a cause", func(t *testing.T) {
		t.Parallel()
		m := &memoryVault{script: func(request) *reply {
			return &reply{err: &net.DNSError{Err: "no such host", Name: "kv.vault.azure.net", IsNotFound: true}}
		}}
		if _, ok := errors.AsType[*net.DNSError](refused(t, m.store(), as("web"), secret("a"))); !ok {
			t.Error("the cause is not in the error")
		}
	})
}

func TestErrorText(t *testing.T) {
	t.Parallel()
	e := &Error{Vault: vaultURL, Operation: "keys/get", Object: "a", Code: "Forbidden", InnerCode: "ForbiddenByRbac", Message: "no"}
	if got, want := e.Error(), vaultURL+": keys/get a: Forbidden (ForbiddenByRbac): no"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	e = &Error{Vault: vaultURL, Operation: "secrets/list", Code: "Throttled", Message: "slow down"}
	if got, want := e.Error(), vaultURL+": secrets/list: Throttled: slow down"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	e.Code = ""
	if got, want := e.Error(), vaultURL+": secrets/list: slow down"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestKindNames(t *testing.T) {
	t.Parallel()
	seen := make(map[string]bool)
	for kind := Kind(0); kind <= Invalid; kind++ {
		seen[kind.String()] = true
	}
	if len(seen) != int(Invalid)+1 || !seen["unknown"] {
		t.Errorf("names: %v", seen)
	}
}

// TestNothingSecretInPrints prints what holds contents or tokens in every way.
func TestNothingSecretInPrints(t *testing.T) {
	t.Parallel()
	m := &memoryVault{objects: []*object{current(params.Secret, "a")}}
	s := m.store()
	answers, err := s.Read(t.Context(), as("web"), []Ref{secret("a"), secret("b")})
	if err != nil {
		t.Fatal(err)
	}
	for _, printed := range prints(answers, answers[0], answers[0].Objects[0], &answers[0].Objects[0], answers[1].Err) {
		if strings.Contains(printed, "canary") {
			t.Errorf("printed: %s", printed)
		}
	}
}
