package params

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-dev/postern/providers/sdk"
)

func TestBuiltinClouds(t *testing.T) {
	t.Parallel()
	for _, want := range []Cloud{
		public(),
		{"AzureUSGovernmentCloud", "https://login.microsoftonline.us/", "vault.usgovcloudapi.net", "https://vault.usgovcloudapi.net/.default"},
		{"AzureChinaCloud", "https://login.chinacloudapi.cn/", "vault.azure.cn", "https://vault.azure.cn/.default"},
		{"AzureGermanCloud", "https://login.microsoftonline.de/", "vault.microsoftazure.de", "https://vault.microsoftazure.de/.default"},
	} {
		for _, name := range []string{want.Name, strings.ToUpper(want.Name), strings.ToLower(want.Name)} {
			for _, clouds := range []*Clouds{nil, {}} {
				// Beside a cloud of Azure's own, a file means nothing.
				got, err := clouds.Lookup(name, "/etc/clouds/x.json")
				if err != nil || got != want {
					t.Errorf("%s = %+v, %v", name, got, err)
				}
			}
		}
	}
}

// The names that go-autorest knows, in addition, and which classes have.
func TestBuiltinClouds_OtherNames(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"AZURECLOUD": PublicCloud, "AzureCloud": PublicCloud,
		"AZUREUSGOVERNMENT": "AzureUSGovernmentCloud", "AzureUSGovernment": "AzureUSGovernmentCloud",
	} {
		if got, err := (*Clouds)(nil).Lookup(name, ""); err != nil || got.Name != want {
			t.Errorf("%s = %+v, %v; want %s", name, got, err, want)
		}
	}
}

// clouds writes files and reads them.
func clouds(t *testing.T, files map[string]string) (*Clouds, string, error) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, err := NewClouds(dir)
	return c, dir, err
}

const stackFile = `{
  "name": "AzureStackCloud",
  "managementPortalURL": "https://portal.local.azurestack.external/",
  "activeDirectoryEndpoint": "https://adfs.local.azurestack.external/adfs/",
  "keyVaultEndpoint": "N/A",
  "keyVaultDNSSuffix": "Vault.local.azurestack.external",
  "resourceIdentifiers": {"graph": "N/A", "keyVault": "https://vault.adfs.azurestack.local/0123-abc"}
}`

func stack() Cloud {
	return Cloud{
		Name: "AzureStackCloud", AuthorityHost: "https://adfs.local.azurestack.external/",
		VaultDNSSuffix: "vault.local.azurestack.external", VaultScope: "https://vault.adfs.azurestack.local/0123-abc/.default",
	}
}

func TestCloudsOfFiles(t *testing.T) {
	t.Parallel()
	c, _, err := clouds(t, map[string]string{
		"stack.json": "\ufeff" + stackFile,
		"own.json":   `{"name": "OwnCloud", "activeDirectoryEndpoint": "https://login.own.example", "keyVaultEndpoint": "https://vault.own.example/"}`,
		"bare.json":  `{"activeDirectoryEndpoint": "https://login.bare.example:8443/x/", "keyVaultDNSSuffix": "vault.bare.example"}`,
		"notes.txt":  "these are no JSON",
	})
	if err != nil {
		t.Fatal(err)
	}
	own := Cloud{"OwnCloud", "https://login.own.example/", "vault.own.example", "https://vault.own.example/.default"}
	bare := Cloud{"AzureStackCloud", "https://login.bare.example:8443/x/", "vault.bare.example", "https://vault.bare.example/.default"}
	for name, tt := range map[string]struct {
		cloud, file string
		want        Cloud
	}{
		"file":           {"AzureStackCloud", "stack.json", stack()},
		"path":           {"AZURESTACKCLOUD", "/etc/kubernetes/../stack.json", stack()},
		"other file":     {"azurestackcloud", "bare.json", bare},
		"any file":       {"AzureStackCloud", "own.json", own},
		"name":           {"owncloud", "", own},
		"name and file":  {"OwnCloud", "stack.json", own},
		"public":         {"", "stack.json", public()},
		"public by name": {"AzurePublicCloud", "stack.json", public()},
	} {
		if got, err := c.Lookup(tt.cloud, tt.file); err != nil || got != tt.want {
			t.Errorf("%s: %+v, %v, want %+v", name, got, err, tt.want)
		}
	}
	for name, tt := range map[string]struct{ cloud, file, want string }{
		"two stacks": {"AzureStackCloud", "", "it is described by a file: set cloudEnvFileName"},
		"no file":    {"AzureStackCloud", "/stack.json/x.json", `the provider has no file "x.json"`},
		"not JSON":   {"AzureStackCloud", "notes.txt", `the provider has no file "notes.txt"`},
		"way out":    {"AzureStackCloud", "..", `the provider has no file ".."`},
		"name":       {"x", "", `there is no cloud environment matching the name "x": write one of AzureChinaCloud, AzureGermanCloud, AzurePublicCloud, AzureStackCloud, AzureUSGovernmentCloud, OwnCloud`},
	} {
		if got, err := c.Lookup(tt.cloud, tt.file); err == nil || !strings.HasPrefix(err.Error(), tt.want) || got != (Cloud{}) {
			t.Errorf("%s: %+v, %v, want %s", name, got, err, tt.want)
		}
	}
}

func TestCloudsOfOneFile(t *testing.T) {
	t.Parallel()
	c, _, err := clouds(t, map[string]string{"a.json": stackFile})
	if err != nil {
		t.Fatal(err)
	}
	spec, err := Parse(with(sdk.Parameters{CloudName: "AzureStackCloud", TenantID: "adfs"}), Defaults{Clouds: c})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(stack(), spec.Cloud); diff != "" || spec.VaultURL != "https://kv1.vault.local.azurestack.external/" {
		t.Errorf("%s %s", spec.VaultURL, diff)
	}
}

func TestTwoCloudsOfOneName(t *testing.T) {
	t.Parallel()
	own := `{"name": "OwnCloud", "activeDirectoryEndpoint": "https://login.own.example", "keyVaultDNSSuffix": "vault.own.example"}`
	c, _, err := clouds(t, map[string]string{"a.json": own, "b.json": own})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Lookup("OwnCloud", ""); err == nil || err.Error() != `2 files of the provider have a cloud "OwnCloud"` {
		t.Error(err)
	}
}

func TestBadCloudFiles(t *testing.T) {
	t.Parallel()
	const authority = `"activeDirectoryEndpoint": "https://login.own.example/", `
	for name, tt := range map[string]struct{ text, want string }{
		"no JSON":          {`{`, "decode JSON: "},
		"no authority":     {`{"keyVaultDNSSuffix": "vault.own.example"}`, "activeDirectoryEndpoint: is not there"},
		"N/A":              {`{"activeDirectoryEndpoint": "N/A"}`, "activeDirectoryEndpoint: is not there"},
		"no TLS":           {`{"activeDirectoryEndpoint": "http://login.own.example/"}`, `activeDirectoryEndpoint: "http://login.own.example/" is not an URL`},
		"no host":          {`{"activeDirectoryEndpoint": "https://:443/"}`, "activeDirectoryEndpoint: "},
		"no URL":           {`{"activeDirectoryEndpoint": "https://[/"}`, "activeDirectoryEndpoint: "},
		"user":             {`{"activeDirectoryEndpoint": "https://a@login.own.example/"}`, "activeDirectoryEndpoint: "},
		"query":            {`{"activeDirectoryEndpoint": "https://login.own.example/?a"}`, "activeDirectoryEndpoint: "},
		"fragment":         {`{"activeDirectoryEndpoint": "https://login.own.example/#a"}`, "activeDirectoryEndpoint: "},
		"no vault":         {`{` + authority + `"name": "x"}`, "keyVaultDNSSuffix is not there, and keyVaultEndpoint: is not there"},
		"vault's endpoint": {`{` + authority + `"keyVaultEndpoint": "http://vault.own.example/"}`, "keyVaultDNSSuffix is not there, and keyVaultEndpoint: "},
		"endpoint's port":  {`{` + authority + `"keyVaultEndpoint": "https://vault.own.example:8443/"}`, `keyVaultEndpoint: "vault.own.example:8443" is not a domain`},
		"suffix's path":    {`{` + authority + `"keyVaultDNSSuffix": "own.example/x"}`, `keyVaultDNSSuffix: "own.example/x" is not a domain`},
		"suffix's dot":     {`{` + authority + `"keyVaultDNSSuffix": ".own.example"}`, `keyVaultDNSSuffix: ".own.example" is not a domain`},
		"one label":        {`{` + authority + `"keyVaultDNSSuffix": "example"}`, `keyVaultDNSSuffix: "example" is not a domain`},
		"long suffix":      {`{` + authority + `"keyVaultDNSSuffix": "` + strings.Repeat("a.", 130) + `a"}`, `keyVaultDNSSuffix: "a.a.`},
		"resource":         {`{` + authority + `"keyVaultDNSSuffix": "a.example", "resourceIdentifiers": {"keyVault": "urn:x"}}`, "resourceIdentifiers.keyVault: "},
	} {
		_, dir, err := clouds(t, map[string]string{"x.json": tt.text})
		want := "cloud of " + filepath.Join(dir, "x.json") + ": " + tt.want
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
	}
}

func TestNoCloudFiles(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "none")
	if _, err := NewClouds(dir); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("%v, want the directory", err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "a.json"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := NewClouds(dir); err == nil || !strings.Contains(err.Error(), filepath.Join(dir, "a.json")) {
		t.Errorf("%v, want the file", err)
	}
	c, err := NewClouds("")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := c.Lookup("", ""); err != nil || got != public() {
		t.Errorf("%+v, %v", got, err)
	}
}
