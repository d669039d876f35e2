package azure

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-dev/postern/providers/azure/internal/identity"
	"github.com/postern-dev/postern/providers/sdk"
)

func TestOptions(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		set  func(*options)
		want string // of the error; "" for none
	}{
		"defaults":         {func(*options) {}, ""},
		"a cloud":          {func(o *options) { o.cloudName = "azureusgovernment" }, ""},
		"no such cloud":    {func(o *options) { o.cloudName = "AzureMoonCloud" }, `--cloud-name: there is no cloud environment matching the name "AzureMoonCloud"`},
		"a cloud of files": {func(o *options) { o.cloudName = "AzureStackCloud" }, ""},
		"no directory":     {func(o *options) { o.cloudDir = "/nowhere" }, "--cloud-environment-dir"},
		"no sessions":      {func(o *options) { o.maxSessions = 0 }, "--max-sessions is 0"},
		"a proxy without a name": {func(o *options) {
			o.tokenProxy = identity.TokenProxy{CAFile: "/ca"}
		}, "set --sni-name"},
		"a proxy without TLS": {func(o *options) {
			o.tokenProxy = identity.TokenProxy{URL: "http://proxy"}
		}, "token proxy"},
		"a proxy": {func(o *options) { o.tokenProxy = identity.TokenProxy{SNIName: "a.ests.aks"} }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := options{cloudName: "AzurePublicCloud", maxSessions: 1}
			tt.set(&o)
			_, err := newProvider(o, sdk.Environment{Logger: slog.New(slog.DiscardHandler)})
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

// A cloud of the operator's own, by the file that the class names: under the path
// that the file has with the upstream provider.
func TestOwnCloud(t *testing.T) {
	t.Parallel()
	const suffix, authority = "vault.stack.test", "login.stack.test"
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "stack.json"), []byte(`{
		"name": "AzureStackCloud", "activeDirectoryEndpoint": "https://`+authority+`/", "keyVaultDNSSuffix": "`+suffix+`",
		"resourceIdentifiers": {"keyVault": "https://`+suffix+`"}
	}`), 0o600); err != nil {
		t.Fatal(err)
	}
	c := newCustomer(t, func(o *options) { o.cloudDir = dir })
	const elsewhere = "33333333-2222-3333-4444-555555555555"
	c.put(map[string]any{"tenants": []any{map[string]any{"id": elsewhere, "authority": authority}}})
	c.federate(map[string]any{"tenant": elsewhere})
	c.vault(map[string]any{
		"suffix": suffix, "tenant": elsewhere,
		"grants": []any{map[string]any{"clientId": c.client, "operations": readAll()}},
	})
	c.put(map[string]any{"secrets": []any{map[string]any{"vault": c.name + "." + suffix, "name": "a", "value": "canary-stack"}}})
	req := c.request(oneSecret)
	req.Parameters["tenantID"], req.Parameters["cloudName"] = elsewhere, "AzureStackCloud"
	req.Parameters["cloudEnvFileName"] = "/etc/kubernetes/stack.json"
	c.wantFiles(req, map[string]string{"a": "canary-stack"})
	req.Parameters["cloudEnvFileName"] = "/etc/passwd"
	c.wantError(req, sdk.ReasonInvalidParameters, "cloudName AzureStackCloud is not valid", `no file "passwd"`)
}
