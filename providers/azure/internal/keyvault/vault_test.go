package keyvault

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-dev/postern/providers/azure/internal/params"
)

func read(t *testing.T, s *Store, vault Vault, refs ...Ref) []Answer {
	t.Helper()
	answers, err := s.Read(t.Context(), vault, refs)
	if err != nil {
		t.Fatal(err)
	}
	return answers
}

// text is an answer in short: versions and contents, or what failed.
func text(t *testing.T, answer Answer) string {
	t.Helper()
	if answer.Err != nil {
		e := asError(t, answer.Err)
		return fmt.Sprintf("%s %s %s %s/%s", e.Kind, e.Operation, e.Object, e.Code, e.InnerCode)
	}
	var all []string
	for _, o := range answer.Objects {
		contents := string(o.Value.Reveal())
		if o.Key != nil {
			contents = strings.Join(strings.Fields(fmt.Sprintf("%s %s %d %d", o.Key.Kty, o.Key.Curve, len(o.Key.N), len(o.Key.X))), " ")
		}
		if o.CER != nil {
			certificate, err := x509.ParseCertificate(o.CER)
			if err != nil {
				t.Fatal(err)
			}
			contents = certificate.Subject.CommonName
		}
		all = append(all, fmt.Sprintf("%s %s@%s", contents, o.Name, o.Version[:2]))
	}
	return strings.Join(all, ", ")
}

func TestDouble(t *testing.T) {
	t.Parallel()
	d := startDouble(t)
	id := func(of string) string { return strings.Repeat(of, 16) } // 32 hex digits
	at := func(n int) string { return day(n).Format(time.RFC3339) }
	grants := func(operations ...string) []any {
		return []any{document{"clientId": "reader", "operations": operations}, document{"clientId": "narrow", "operations": []string{"secrets/get"}, "objects": []string{"db"}}}
	}
	all := grants("secrets/get", "secrets/list", "keys/get", "keys/list", "certificates/get", "certificates/list")
	d.apply(document{
		"applications": []any{document{"tenant": tenant, "clientId": "reader"}, document{"tenant": tenant, "clientId": "narrow"}},
		"vaults": []any{
			document{"name": "shop", "tenant": tenant, "grants": all},
			document{"name": "policy", "tenant": tenant, "grants": all, "authorization": "policy"},
			document{"name": "walled", "tenant": tenant, "grants": all, "network": "firewall"},
			document{"name": "private", "tenant": tenant, "grants": all, "network": "private"},
			document{"name": "moved", "tenant": otherTenant, "grants": all},
			document{"name": "lies", "tenant": tenant, "grants": all, "challengeResource": "https://vault.example.com"},
		},
		"secrets": []any{
			document{"vault": "shop", "name": "db", "value": "first", "version": id("01"), "created": at(1)},
			document{"vault": "shop", "name": "db", "value": "third", "version": id("03"), "created": at(3), "contentType": "text/plain"},
			document{"vault": "shop", "name": "db", "value": "second", "version": id("02"), "created": at(2), "enabled": false},
			document{"vault": "shop", "name": "db", "value": "fourth", "version": id("04"), "created": at(4)},
			document{"vault": "shop", "name": "Mixed-Case", "value": "x", "version": id("0a"), "tags": document{"env": "prod"}},
			document{"vault": "shop", "name": "off", "value": "x", "version": id("0b"), "enabled": false},
			document{"vault": "shop", "name": "gone", "value": "x", "version": id("0c"), "deleted": true},
			document{"vault": "policy", "name": "db", "value": "x"},
			document{"vault": "walled", "name": "db", "value": "x"},
			document{"vault": "private", "name": "db", "value": "x"},
		},
		"keys": []any{
			document{"vault": "shop", "name": "rsa", "kty": "RSA", "version": id("0d")},
			document{"vault": "shop", "name": "ec", "kty": "EC-HSM", "curve": "P-384", "version": id("0e")},
			document{"vault": "shop", "name": "oct", "kty": "oct-HSM", "version": id("0f")},
		},
		"certificates": []any{document{"vault": "shop", "name": "tls", "subject": "CN=shop.example.com", "version": id("10")}},
		"pageSize":     2,
	})
	t.Run("objects", d.testObjects)
	t.Run("refusals", d.testRefusals)
	t.Run("lists", d.testLists)
	t.Run("faults", d.testFaults)
}

func (d *double) testObjects(t *testing.T) {
	d = d.of(t)
	s, vault := d.store(), d.as("shop", "reader", time.Hour)
	refs := []Ref{
		secret("db"), secret("DB"),
		{Type: params.Secret, Name: "db", Version: strings.Repeat("01", 16)},
		secret("mixed-case"),
		{Type: params.Secret, Name: "db", History: 5},
		{Type: params.Secret, Name: "db", History: 2, Version: strings.Repeat("03", 16)},
		{Type: params.Key, Name: "rsa"},
		{Type: params.Key, Name: "ec"},
		{Type: params.Key, Name: "oct"},
		{Type: params.Key, Name: "ec", History: 2},
		{Type: params.Certificate, Name: "tls"},
		{Type: params.Certificate, Name: "tls", History: 2},
		{Type: params.Key, Name: "tls"},
		secret("none"), secret("gone"), secret("off"),
		{Type: params.Key, Name: "none"},
		{Type: params.Certificate, Name: "none"},
		{Type: params.Secret, Name: "db", Version: strings.Repeat("02", 16)},
		{Type: params.Secret, Name: "none", History: 2},
	}
	want := []string{
		"fourth db@04", "fourth db@04", "first db@01", "x Mixed-Case@0a",
		"fourth db@04, third db@03, first db@01", "third db@03, first db@01",
		"RSA 256 0 rsa@0d", "EC-HSM P-384 0 48 ec@0e", "oct-HSM 0 0 oct@0f", "EC-HSM P-384 0 48 ec@0e",
		"shop.example.com tls@10", "shop.example.com tls@10", "RSA 256 0 tls@10",
		"not found secrets/get none SecretNotFound/", "not found secrets/get gone SecretNotFound/", "disabled secrets/get off Forbidden/SecretDisabled",
		"not found keys/get none KeyNotFound/", "not found certificates/get none CertificateNotFound/",
		"disabled secrets/get db Forbidden/SecretDisabled", "not found secrets/list none /",
	}
	d.requests()
	for i, counts := range []string{
		"certificates/challenge=1 certificates/get=3 certificates/list-versions=1 keys/challenge=1 keys/get=6 keys/list-versions=1 secrets/challenge=1 secrets/get=10 secrets/list-versions=3",
		"certificates/get=3 certificates/list-versions=1 keys/get=6 keys/list-versions=1 secrets/get=10 secrets/list-versions=3",
	} {
		var got []string
		for _, answer := range read(t, s, vault, refs...) {
			got = append(got, text(t, answer))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		if got := d.requests(); got != counts {
			t.Errorf("read %d: %s, want %s", i, got, counts)
		}
	}
	backed := one(t, s, vault, secret("tls"))
	if !backed.CertificateBacked || backed.ContentType != "application/x-pkcs12" || one(t, s, vault, secret("db")).CertificateBacked {
		t.Errorf("a certificate's secret: %+v", backed)
	}
}

func (d *double) testRefusals(t *testing.T) {
	d = d.of(t)
	s := d.store()
	for _, tt := range []struct {
		vault Vault
		ref   Ref
		want  string
		text  string
	}{
		{d.as("shop", "narrow", time.Hour), secret("db"), "fourth db@04", ""},
		{d.as("shop", "narrow", time.Hour), secret("off"), "denied secrets/get off Forbidden/ForbiddenByRbac", "Microsoft.KeyVault/vaults/secrets/getSecret/action"},
		{d.as("shop", "narrow", time.Hour), Ref{Type: params.Secret, Name: "db", History: 2}, "denied secrets/list db Forbidden/ForbiddenByRbac", ""},
		{d.as("shop", "nobody", time.Hour), Ref{Type: params.Key, Name: "rsa"}, "denied keys/get rsa Forbidden/ForbiddenByRbac", ""},
		{d.as("policy", "nobody", time.Hour), secret("db"), "denied secrets/get db Forbidden/", ""},
		{d.as("walled", "reader", time.Hour), secret("db"), "denied secrets/get db Forbidden/ForbiddenByFirewall", ""},
		{d.as("private", "reader", time.Hour), secret("db"), "denied secrets/get db Forbidden/ForbiddenByConnection", ""},
		{d.as("moved", "reader", time.Hour), secret("db"), "denied secrets/get db /", "belongs to tenant " + otherTenant},
		{d.as("lies", "reader", time.Hour), secret("db"), "denied secrets/get db /", "another domain than its own"},
		{d.as("shop", "reader", -time.Hour), secret("db"), "bad credentials secrets/get db Unauthorized/", ""},
		{d.as("nosuch", "reader", time.Hour), secret("db"), "unavailable secrets/get db /", "may not exist in this cloud"},
	} {
		answer := read(t, s, tt.vault, tt.ref)[0]
		got := text(t, answer)
		if !strings.HasPrefix(got, tt.want) {
			t.Errorf("%s: %s, want %s", tt.vault.URL, got, tt.want)
		}
		if answer.Err != nil && !strings.Contains(answer.Err.Error(), tt.text) {
			t.Errorf("%v does not say %q", answer.Err, tt.text)
		}
	}
	if own, ok := errors.AsType[*otherTenantError](read(t, s, d.as("moved", "reader", time.Hour), secret("db"))[0].Err); !ok || own.asked != otherTenant {
		t.Errorf("the credential's own error: %v", own)
	}
}

func (d *double) testLists(t *testing.T) {
	d = d.of(t)
	s, vault := d.store(), d.as("shop", "reader", time.Hour)
	for _, tt := range []struct {
		kind params.ObjectType
		sel  params.Select
		want []string
	}{
		{params.Secret, params.Select{Pattern: "*", Limit: 50}, []string{"Mixed-Case", "db", "tls"}},
		{params.Secret, params.Select{Pattern: "mixed*", Limit: 50}, []string{"Mixed-Case"}},
		{params.Secret, params.Select{Pattern: "*", Tags: map[string]string{"env": "prod"}, Limit: 50}, []string{"Mixed-Case"}},
		{params.Key, params.Select{Pattern: "*", Limit: 50}, []string{"ec", "oct", "rsa", "tls"}},
		{params.Certificate, params.Select{Pattern: "*", Limit: 50}, []string{"tls"}},
	} {
		got, err := s.List(t.Context(), vault, tt.kind, &tt.sel)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s %s: %s", tt.kind, tt.sel.Pattern, diff)
		}
	}
	if got, err := s.List(t.Context(), vault, params.Secret, &params.Select{Pattern: "*", Limit: 1}); err != nil || len(got) != 2 {
		t.Errorf("%v, %v, want one beyond the limit", got, err)
	}
	_, err := s.List(t.Context(), d.as("shop", "narrow", time.Hour), params.Secret, &params.Select{Pattern: "*", Limit: 5})
	if e := asError(t, err); e.Kind != Denied || e.InnerCode != "ForbiddenByRbac" || e.Operation != "secrets/list" {
		t.Errorf("%s: %v", e.Kind, e)
	}
}

func (d *double) testFaults(t *testing.T) {
	d = d.of(t)
	for name, tt := range map[string]struct {
		fault document
		want  string
		after time.Duration
	}{
		"throttled":     {document{"kind": "throttle", "retryAfter": 60, "bearer": true}, "throttled secrets/get db ", time.Minute},
		"once":          {document{"kind": "unavailable", "count": 1, "bearer": true}, "fourth db@04", 0},
		"closed once":   {document{"kind": "close", "count": 1, "bearer": true}, "fourth db@04", 0},
		"garbage":       {document{"kind": "garbage", "bearer": true}, "unavailable secrets/get db /", 0},
		"teapot":        {document{"kind": "error", "status": 418, "code": "Teapot", "bearer": true}, "invalid secrets/get db Teapot/", 0},
		"not for this":  {document{"service": "keys", "kind": "throttle", "retryAfter": 60}, "fourth db@04", 0},
		"no such vault": {document{"service": "proxy", "kind": "unresolved", "vault": "shop.vault.azure.net"}, "unavailable secrets/get db /", 0},
	} {
		t.Run(name, func(t *testing.T) {
			d := d.of(t)
			if tt.fault["service"] == nil {
				tt.fault["service"] = "secrets"
			}
			d.apply(document{"faults": []any{tt.fault}})
			defer d.call(http.MethodDelete, "/faults", nil, nil)
			d.vaults.CloseIdleConnections() // so that there is a CONNECT
			answer := read(t, d.store(), d.as("shop", "reader", time.Hour), secret("db"))[0]
			if got := text(t, answer); !strings.HasPrefix(got, tt.want) {
				t.Errorf("%s, want %s", got, tt.want)
			}
			if e, ok := errors.AsType[*Error](answer.Err); ok && e.RetryAfter != tt.after {
				t.Errorf("to be tried again after %s, want %s", e.RetryAfter, tt.after)
			}
		})
	}
	t.Run("revoked", func(t *testing.T) {
		d := d.of(t)
		s, vault := d.store(), d.as("shop", "reader", time.Hour)
		one(t, s, vault, secret("db"))
		d.call(http.MethodPost, "/revoke", document{"clientId": "reader"}, nil)
		if got := text(t, read(t, s, vault, secret("db"))[0]); !strings.HasPrefix(got, "bad credentials secrets/get db Unauthorized/") {
			t.Error(got)
		}
	})
}
