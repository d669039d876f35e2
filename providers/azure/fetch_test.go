package azure

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/postern-dev/postern/providers/sdk"
)

const oneSecret = "[{objectName: a, objectType: secret}]"

// What users of the upstream provider mount, in the form of its documents: an array
// of texts, with a secret, a key, a certificate and its key, a version, a path.
func TestFetch(t *testing.T) {
	t.Parallel()
	c := newCustomer(t)
	first := "00000000000000000000000000000001"
	c.secret("secret1", "canary-first", map[string]any{"version": first, "created": "2026-01-01T00:00:00Z"})
	c.secret("secret1", "canary-second", map[string]any{"created": "2026-02-01T00:00:00Z"})
	c.secret("binary", base64.StdEncoding.EncodeToString([]byte("canary-\x00\xff")), nil)
	c.put(map[string]any{
		"keys":         []any{map[string]any{"vault": c.name, "name": "key1", "kty": "RSA"}},
		"certificates": []any{map[string]any{"vault": c.name, "name": "cert1", "subject": "CN=web.test", "dnsNames": []string{"web.test"}}},
	})
	req := c.request(`
array:
  - |
    objectName: secret1
    objectType: secret        # object types: secret, key or cert
    objectAlias: SECRET_1
    objectVersion: ""         # [OPTIONAL] object versions, default to latest if empty
    filePermission: "0400"
  - |
    objectName: secret1
    objectType: secret
    objectAlias: old/secret1
    objectVersion: ` + first + `
  - |
    objectName: key1
    objectType: key
  - |
    objectName: cert1
    objectType: cert
    objectAlias: cert1.crt
  - |
    objectName: cert1
    objectType: secret
    objectAlias: cert1.pem
  - |
    objectName: cert1
    objectType: secret
    objectAlias: cert1.pfx
    objectFormat: pfx
    objectEncoding: base64
  - |
    objectName: binary
    objectType: secret
    objectEncoding: base64
`)
	resp := c.fetchOK(req)
	got := contentsOf(resp)
	for path, want := range map[string]string{
		"SECRET_1": "canary-second", "old/secret1": "canary-first", "binary": "canary-\x00\xff",
	} {
		if got[path] != want {
			t.Errorf("%s: %q, want %q", path, got[path], want)
		}
	}
	if block, rest := pem.Decode([]byte(got["key1"])); block == nil || block.Type != "PUBLIC KEY" || len(rest) > 0 {
		t.Errorf("key1: %q, want a public key in PEM", got["key1"])
	}
	pair, err := tls.X509KeyPair([]byte(got["cert1.pem"]), []byte(got["cert1.pem"]))
	if err != nil {
		t.Fatalf("cert1.pem: %v", err)
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil || leaf.Subject.CommonName != "web.test" || len(pair.Certificate) != 3 {
		t.Errorf("cert1.pem has %d certificates, the first of %v (%v); want 3, that of web.test first", len(pair.Certificate), leaf.Subject, err)
	}
	if block, _ := pem.Decode([]byte(got["cert1.crt"])); block == nil || !slices.Equal(block.Bytes, pair.Certificate[0]) {
		t.Error("cert1.crt is not the certificate of cert1.pem")
	}
	if len(got["cert1.pfx"]) == 0 || got["cert1.pfx"][0] != 0x30 {
		t.Errorf("cert1.pfx is no PFX: %q", got["cert1.pfx"])
	}
	modes := map[string]fs.FileMode{"SECRET_1": 0o400, "old/secret1": 0}
	for _, f := range resp.Files {
		if mode, ok := modes[f.Path]; ok && f.Mode != mode {
			t.Errorf("%s has mode %o, want %o", f.Path, f.Mode, mode)
		}
	}
	if resp.Sharing != sdk.SharingServiceAccount || resp.FreshFor != freshFor {
		t.Errorf("sharing %s, fresh for %s", resp.Sharing, resp.FreshFor)
	}
	wantIDs(t, resp, "secret/secret1", "secret/secret1 in old/secret1", "key/key1", "cert/cert1",
		"secret/cert1", "secret/cert1 in cert1.pfx", "secret/binary")
}

func wantIDs(t *testing.T, resp *sdk.Response, want ...string) {
	t.Helper()
	var ids []string
	for _, o := range resp.Objects {
		ids = append(ids, o.ID)
	}
	if !slices.Equal(ids, want) {
		t.Errorf("ids %q, want %q", ids, want)
	}
}

// Twenty pods with five objects each, of one service account: one login, one
// challenge for each type of object, and five reads for each refresh.
func TestFetch_Calls(t *testing.T) {
	t.Parallel()
	c := newCustomer(t)
	var objects strings.Builder
	for i := range 5 {
		c.secret(fmt.Sprint("s", i), fmt.Sprintf("canary-%d", i), nil)
		fmt.Fprintf(&objects, "- {objectName: s%d, objectType: secret}\n", i)
	}
	req := c.request(objects.String())
	before := c.calls()
	again := refreshed(req, c.fetchOK(req))
	for range 30 { // an hour of two minutes; the gateway makes one of all pods' calls
		if resp := c.fetchOK(again); !resp.NotModified {
			t.Fatal("what has not changed is answered as changed")
		}
	}
	c.wantCalls(before, map[string]int{
		"entra token": 1, "challenge": 1, "secrets get": 155,
	})
}

// A refresh finds what has changed, whatever it is, and answers all of it.
func TestRefresh(t *testing.T) {
	t.Parallel()
	const objects = `
- {objectName: a, objectType: secret}
- {objectName: b, objectType: secret, objectAlias: dir/b}
- {objectName: maybe, objectType: secret, optional: true}
`
	files := func(a, b string) map[string]string { return map[string]string{"a": a, "dir/b": b} }
	edited := func(old, replacement string) func(*customer, *sdk.Request) {
		return func(_ *customer, r *sdk.Request) {
			r.Parameters["objects"] = strings.Replace(r.Parameters["objects"], old, replacement, 1)
		}
	}
	for name, tt := range map[string]struct {
		change func(*customer, *sdk.Request)
		want   map[string]string // nil: nothing has changed
	}{
		"nothing":  {func(*customer, *sdk.Request) {}, nil},
		"a secret": {func(c *customer, _ *sdk.Request) { c.secret("a", "canary-2", nil) }, files("canary-2", "canary-b")},
		"the same value in a new version": {
			func(c *customer, _ *sdk.Request) { c.secret("a", "canary-1", nil) }, files("canary-1", "canary-b"),
		},
		"an optional one came": {
			func(c *customer, _ *sdk.Request) { c.secret("maybe", "canary-maybe", nil) },
			map[string]string{"a": "canary-1", "dir/b": "canary-b", "maybe": "canary-maybe"},
		},
		"the class: a path":         {edited("dir/b", "other"), map[string]string{"a": "canary-1", "other": "canary-b"}},
		"the class: another secret": {edited("objectName: a,", "objectName: b, objectAlias: a,"), files("canary-b", "canary-b")},
		"the class: a mode":         {edited("objectAlias: dir/b", `objectAlias: dir/b, filePermission: "0600"`), files("canary-1", "canary-b")},
		"the class: one less":       {edited("- {objectName: a, objectType: secret}\n", ""), map[string]string{"dir/b": "canary-b"}},
		"the default mode":          {func(_ *customer, r *sdk.Request) { r.DefaultFileMode = 0o600 }, files("canary-1", "canary-b")},
		"a type of content that changes nothing in the file": {func(c *customer, _ *sdk.Request) {
			c.put(map[string]any{"secrets": []any{map[string]any{"vault": c.name, "name": "a", "contentType": "text/plain"}}})
		}, files("canary-1", "canary-b")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCustomer(t)
			c.secret("a", "canary-1", nil)
			c.secret("b", "canary-b", nil)
			req := c.request(objects)
			again := refreshed(req, c.fetchOK(req))
			again.Parameters = maps.Clone(req.Parameters)
			tt.change(c, again)
			resp := c.fetchOK(again)
			if resp.NotModified != (tt.want == nil) {
				t.Fatalf("not modified: %v", resp.NotModified)
			}
			if tt.want != nil && !maps.Equal(contentsOf(resp), tt.want) {
				t.Errorf("files %q, want %q", contentsOf(resp), tt.want)
			}
		})
	}
}

// Each version of a history is a file, the newest first; what is disabled is none
// of them. There are as many as the class says, and not one more.
func TestHistory(t *testing.T) {
	t.Parallel()
	const objects = "[{objectName: a, objectType: secret, objectVersionHistory: 3}]"
	prepare := func(t *testing.T, change ...func(*options)) *customer {
		c := newCustomer(t, change...)
		c.grant("secrets/get", "secrets/list")
		for i := range 6 {
			c.secret("a", fmt.Sprintf("canary-%d", i), map[string]any{
				"created": fmt.Sprintf("2026-01-0%dT00:00:00Z", i+1), "enabled": i != 4,
			})
		}
		return c
	}
	t.Run("three", func(t *testing.T) {
		t.Parallel()
		c := prepare(t)
		before := c.calls()
		resp := c.fetchOK(c.request(objects))
		want := map[string]string{"a/0": "canary-5", "a/1": "canary-3", "a/2": "canary-2"}
		if got := contentsOf(resp); !maps.Equal(got, want) {
			t.Errorf("files %q, want %q", got, want)
		}
		wantIDs(t, resp, "secret/a/0", "secret/a/1", "secret/a/2")
		if calls := since(before, c.calls()); calls["secrets list-versions"] != 1 || calls["secrets get"] != 3 {
			t.Errorf("calls %v, want one of the list and three reads", calls)
		}
	})
	t.Run("one more, as upstream", func(t *testing.T) {
		t.Parallel()
		c := prepare(t, func(o *options) { o.inclusiveHistory = true })
		c.wantFiles(c.request(objects), map[string]string{"a/0": "canary-5", "a/1": "canary-3", "a/2": "canary-2", "a/3": "canary-1"})
	})
	t.Run("may not list", func(t *testing.T) {
		t.Parallel()
		c := prepare(t)
		c.grant("secrets/get")
		c.wantError(c.request(objects), sdk.ReasonAccessDenied, `object "a"`, "ForbiddenByRbac", "Key Vault Secrets User")
	})
}

// Certificates with their key beside them, where the operator wants that.
func TestSeparateFiles(t *testing.T) {
	t.Parallel()
	c := newCustomer(t, func(o *options) { o.content.SeparateFiles = true })
	c.put(map[string]any{"certificates": []any{map[string]any{"vault": c.name, "name": "tls", "subject": "CN=web.test"}}})
	got := contentsOf(c.fetchOK(c.request("[{objectName: tls, objectType: secret, objectAlias: web}]")))
	if len(got) != 3 {
		t.Errorf("%d files, want 3", len(got))
	}
	if _, err := tls.X509KeyPair([]byte(got["web.crt"]), []byte(got["web.key"])); err != nil {
		t.Errorf("web.crt and web.key: %v", err)
	}
	if got["web"] == "" || strings.Contains(got["web.crt"], "PRIVATE KEY") || strings.Contains(got["web.key"], "CERTIFICATE") {
		t.Error("the files do not hold what their names say")
	}
}
