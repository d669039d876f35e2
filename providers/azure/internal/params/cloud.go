package params

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Cloud is where Entra and the vaults of a cloud are.
type Cloud struct {
	// Name is the cloud's, such as AzurePublicCloud.
	Name string
	// AuthorityHost is where tokens are asked for, such as
	// https://login.microsoftonline.com/.
	AuthorityHost string
	// VaultDNSSuffix is what follows a vault's name, such as vault.azure.net.
	VaultDNSSuffix string
	// VaultScope is what tokens are for, such as https://vault.azure.net/.default.
	VaultScope string
}

// Names of clouds, which are known in any case.
const (
	// PublicCloud is that of classes and operators that name none.
	PublicCloud = "AzurePublicCloud"
	// StackCloud is that of a file.
	StackCloud = "AzureStackCloud"

	governmentCloud = "AzureUSGovernmentCloud"
)

// builtin are the clouds that Azure runs, or did: the German one is closed, and a
// class that names it is told by its vault, not by us.
func builtin() []Cloud {
	return []Cloud{
		newCloud(PublicCloud, "login.microsoftonline.com", "vault.azure.net"),
		newCloud(governmentCloud, "login.microsoftonline.us", "vault.usgovcloudapi.net"),
		newCloud("AzureChinaCloud", "login.chinacloudapi.cn", "vault.azure.cn"),
		newCloud("AzureGermanCloud", "login.microsoftonline.de", "vault.microsoftazure.de"),
	}
}

func newCloud(name, authority, suffix string) Cloud {
	return Cloud{Name: name, AuthorityHost: "https://" + authority + "/", VaultDNSSuffix: suffix, VaultScope: scope("https://" + suffix)}
}

// otherName is what Azure's tools call a cloud, where that is another name.
func otherName(cloud string) string {
	switch cloud {
	case PublicCloud:
		return "AzureCloud"
	case governmentCloud:
		return "AzureUSGovernment"
	default:
		return cloud
	}
}

// scope returns that of all permissions on a resource.
func scope(resource string) string { return strings.TrimSuffix(resource, "/") + "/.default" }

// Clouds knows the clouds: Azure's, and those of the operator's files. A nil one
// knows Azure's alone. It never changes.
type Clouds struct {
	// files are by name, without directories.
	files map[string]Cloud
}

// NewClouds reads the operator's clouds: the files *.json of a directory, each with
// an environment as go-autorest has them. "" is no directory.
func NewClouds(dir string) (*Clouds, error) {
	clouds := &Clouds{files: make(map[string]Cloud)}
	if dir == "" {
		return clouds, nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read clouds: %w", err)
	}
	for _, entry := range entries {
		if path.Ext(entry.Name()) != ".json" {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			return nil, fmt.Errorf("read cloud: %w", err)
		}
		if clouds.files[entry.Name()], err = decodeCloud(text); err != nil {
			return nil, fmt.Errorf("cloud of %s: %w", filepath.Join(dir, entry.Name()), err)
		}
	}
	return clouds, nil
}

// Lookup returns a cloud by its name, "" for the public one. AzureStackCloud is that
// of a file, of which only the last part of the path counts: classes have that of
// another provider's container. Any other cloud of a file goes by the name in it.
func (c *Clouds) Lookup(name, file string) (Cloud, error) {
	name = cmp.Or(name, PublicCloud)
	if strings.EqualFold(name, StackCloud) {
		return c.stack(file)
	}
	for _, known := range builtin() {
		if strings.EqualFold(name, known.Name) || strings.EqualFold(name, otherName(known.Name)) {
			return known, nil
		}
	}
	switch named := c.named(name); len(named) {
	case 0:
		return Cloud{}, fmt.Errorf("there is no cloud environment matching the name %q: write one of %s", name, c.names())
	case 1:
		return named[0], nil
	default:
		return Cloud{}, fmt.Errorf("%d files of the provider have a cloud %q", len(named), name)
	}
}

// stack returns the cloud of a file, which need not be named if there is one alone.
func (c *Clouds) stack(file string) (Cloud, error) {
	if file == "" {
		if named := c.named(StackCloud); len(named) == 1 {
			return named[0], nil
		}
		return Cloud{}, errors.New("it is described by a file: set cloudEnvFileName")
	}
	base := path.Base(file)
	if c != nil {
		if found, ok := c.files[base]; ok {
			return found, nil
		}
	}
	return Cloud{}, fmt.Errorf("the provider has no file %q: its operator adds it to --cloud-environment-dir", base)
}

func (c *Clouds) named(name string) []Cloud {
	if c == nil {
		return nil
	}
	var named []Cloud
	for _, known := range c.files {
		if strings.EqualFold(name, known.Name) {
			named = append(named, known)
		}
	}
	return named
}

// names lists the clouds for messages.
func (c *Clouds) names() string {
	var names []string
	for _, known := range builtin() {
		names = append(names, known.Name)
	}
	names = append(names, StackCloud)
	if c != nil {
		for _, known := range c.files {
			names = append(names, known.Name)
		}
	}
	slices.Sort(names)
	return strings.Join(slices.Compact(names), ", ")
}

// environment is what counts here of go-autorest's Environment.
type environment struct {
	Name                    string `json:"name"`
	ActiveDirectoryEndpoint string `json:"activeDirectoryEndpoint"`
	KeyVaultEndpoint        string `json:"keyVaultEndpoint"`
	KeyVaultDNSSuffix       string `json:"keyVaultDNSSuffix"`
	ResourceIdentifiers     struct {
		KeyVault string `json:"keyVault"`
	} `json:"resourceIdentifiers"`
}

// given returns a value, "" for what go-autorest writes where a cloud has none.
func given(value string) string {
	if value = strings.TrimSpace(value); value == "N/A" {
		return ""
	}
	return value
}

// decodeCloud decodes a file, which may begin with a byte order mark.
func decodeCloud(text []byte) (Cloud, error) {
	var env environment
	if err := json.Unmarshal(bytes.TrimPrefix(text, []byte("\ufeff")), &env); err != nil {
		return Cloud{}, fmt.Errorf("decode JSON: %w", err)
	}
	authority, err := authorityHost(given(env.ActiveDirectoryEndpoint))
	if err != nil {
		return Cloud{}, fmt.Errorf("activeDirectoryEndpoint: %w", err)
	}
	suffix, err := vaultSuffix(given(env.KeyVaultDNSSuffix), given(env.KeyVaultEndpoint))
	if err != nil {
		return Cloud{}, err
	}
	resource := cmp.Or(given(env.ResourceIdentifiers.KeyVault), given(env.KeyVaultEndpoint), "https://"+suffix)
	if _, err := secureURL(resource); err != nil {
		return Cloud{}, fmt.Errorf("resourceIdentifiers.keyVault: %w", err)
	}
	return Cloud{
		Name:          cmp.Or(strings.TrimSpace(env.Name), StackCloud),
		AuthorityHost: authority, VaultDNSSuffix: suffix, VaultScope: scope(resource),
	}, nil
}

// authorityHost returns where tokens are asked for. That of an AD FS may end with the
// path that the tenant adfs stands for already.
func authorityHost(text string) (string, error) {
	u, err := secureURL(text)
	if err != nil {
		return "", err
	}
	u.Path = strings.TrimSuffix(strings.TrimSuffix(u.Path, "/"), "/"+ADFS) + "/"
	return u.String(), nil
}

var suffixSyntax = regexp.MustCompile(`^[0-9a-z]([0-9a-z-]{0,61}[0-9a-z])?(\.[0-9a-z]([0-9a-z-]{0,61}[0-9a-z])?)+$`)

// vaultSuffix returns what follows the vaults' names: as it is given, or else the
// host of their endpoint.
func vaultSuffix(suffix, endpoint string) (string, error) {
	field := "keyVaultDNSSuffix"
	if suffix == "" {
		field = "keyVaultEndpoint"
		u, err := secureURL(endpoint)
		if err != nil {
			return "", fmt.Errorf("keyVaultDNSSuffix is not there, and keyVaultEndpoint: %w", err)
		}
		suffix = u.Host
	}
	suffix = strings.ToLower(suffix)
	if len(suffix) > maxDomain || !suffixSyntax.MatchString(suffix) {
		return "", fmt.Errorf("%s: %q is not a domain, such as vault.azure.net", field, suffix)
	}
	return suffix, nil
}

// secureURL parses an URL of which scheme, host and path are all there is.
func secureURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case text == "":
		return nil, errors.New("is not there")
	case err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("%q is not an URL such as https://vault.azure.net", text)
	}
	return u, nil
}
