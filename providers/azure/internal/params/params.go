// Package params decodes what a SecretProviderClass asks for.
//
// Names, rules and the first words of each problem are those of the Azure Key Vault
// provider that these classes were written for, so that they work unchanged and its
// users find the texts that they know. What can never be mounted, or would reach
// another place than the class's vault, is refused here, before anything is sent.
package params

import (
	"regexp"
	"strconv"
	"strings"

	"github.com/postern-dev/postern/providers/sdk"
)

// Names of parameters.
const (
	KeyvaultName           = "keyvaultName"
	Objects                = "objects"
	TenantID               = "tenantID"
	TenantIDOld            = "tenantId"
	ClientID               = "clientID"
	CloudName              = "cloudName"
	CloudEnvFileName       = "cloudEnvFileName"
	UsePodIdentity         = "usePodIdentity"
	UseVMManagedIdentity   = "useVMManagedIdentity"
	UseAzureTokenProxy     = "useAzureTokenProxy"
	UserAssignedIdentityID = "userAssignedIdentityID"
)

// Parameters are those of a class that the provider knows.
func Parameters() []sdk.Parameter {
	return []sdk.Parameter{
		{Name: KeyvaultName, Description: "Name of the vault.", Required: true, LocatesStore: true},
		{Name: Objects, Description: "YAML list of what to read.", Required: true},
		{Name: TenantID, Description: "Tenant of the vault; default that of the service account's annotation.", LocatesStore: true},
		{Name: TenantIDOld, Description: "The same as tenantID, which counts if both are there.", LocatesStore: true},
		{Name: ClientID, Description: "Client id of the identity that trusts the service account; default that of the annotation."},
		{Name: CloudName, Description: "Cloud of the vault; default the provider's.", LocatesStore: true},
		{Name: CloudEnvFileName, Description: "File of the provider that describes AzureStackCloud.", LocatesStore: true},
		{Name: UsePodIdentity, Description: "Identity of AAD Pod Identity; default false."},
		{Name: UseVMManagedIdentity, Description: "Managed identity of the node; default false."},
		{Name: UseAzureTokenProxy, Description: "Identity binding; default false."},
		{Name: UserAssignedIdentityID, Description: "Client id of the managed identity; default the system-assigned one."},
	}
}

// Mode says which identity a class asks for.
type Mode int

// The modes.
const (
	// ModeDefault is workload identity, or a service principal.
	ModeDefault Mode = iota
	// ModeManagedIdentity is useVMManagedIdentity.
	ModeManagedIdentity
	// ModePodIdentity is usePodIdentity.
	ModePodIdentity
	// ModeIdentityBinding is useAzureTokenProxy.
	ModeIdentityBinding
)

// Defaults is what a class need not say.
type Defaults struct {
	// CloudName is the operator's; "" is AzurePublicCloud.
	CloudName string
	// TenantID is that of the service account's annotation; "" if it has none.
	TenantID string
	// Clouds may be nil: the built-in ones.
	Clouds *Clouds
}

// Spec is a class, decoded.
type Spec struct {
	Cloud     Cloud
	VaultName string
	// VaultURL is https://<name>.<suffix>/.
	VaultURL string
	// TenantID is an id, a domain, or [ADFS].
	TenantID string
	Mode     Mode
	// ClientID is the class's own; "" if it has none.
	ClientID string
	// UserAssignedIdentityID is a client id; "" is the system-assigned identity.
	UserAssignedIdentityID string
	// Objects are in the class's order; there is at least one.
	Objects []Object
}

// ADFS is the tenant that stands for a cloud's own AD FS.
const ADFS = "adfs"

// Parse decodes parameters. The error is an [*sdk.Error] with all violations, in the
// order in which the provider that these classes were written for finds them.
func Parse(p sdk.Parameters, defaults Defaults) (*Spec, error) {
	d := sdk.NewDecoder(trimmed(p))
	spec := &Spec{VaultName: vaultName(d), TenantID: tenantID(d, defaults)}
	spec.Mode = mode(d)
	spec.Cloud = cloud(d, defaults)
	spec.ClientID = clientID(d, ClientID)
	if spec.Mode == ModeManagedIdentity { // elsewhere it has never meant anything
		spec.UserAssignedIdentityID = clientID(d, UserAssignedIdentityID)
	}
	spec.VaultURL = "https://" + spec.VaultName + "." + spec.Cloud.VaultDNSSuffix + "/"
	spec.Objects = decodeObjects(d)
	if err := d.Err(); err != nil {
		return nil, err
	}
	return spec, nil
}

// trimmed returns the parameters that the provider knows, without spaces around them.
func trimmed(p sdk.Parameters) sdk.Parameters {
	known := make(sdk.Parameters)
	for _, parameter := range Parameters() {
		known[parameter.Name] = strings.TrimSpace(p.Get(parameter.Name))
	}
	return known
}

// A vault's name becomes a label of a host's name, and nothing but one: to that host
// goes the token.
var vaultNameSyntax = regexp.MustCompile(`^[-A-Za-z0-9]+$`)

func vaultName(d *sdk.Decoder) string {
	name := d.Required(KeyvaultName, "keyvaultName is not provided")
	switch {
	case name == "":
	case len(name) < 3 || len(name) > 24:
		d.Violate(KeyvaultName, "Invalid vault name: %q, must be between 3 and 24 chars", name)
	case !vaultNameSyntax.MatchString(name):
		d.Violate(KeyvaultName, "Invalid vault name: %q, must match [-a-zA-Z0-9]{3,24}: "+
			"write the vault's name alone, without its domain", name)
	case strings.HasPrefix(name, "-") || strings.HasSuffix(name, "-"):
		d.Violate(KeyvaultName, "Invalid vault name: %q, must neither begin nor end with -", name)
	}
	return name
}

// tenantSyntax is that of ids and domains. A tenant becomes a part of an URL's path,
// and must not leave it.
var tenantSyntax = regexp.MustCompile(`^[0-9A-Za-z]([0-9A-Za-z-]*[0-9A-Za-z])?(\.[0-9A-Za-z]([0-9A-Za-z-]*[0-9A-Za-z])?)*$`)

// maxDomain is how long a domain's name may be.
const maxDomain = 253

func tenantID(d *sdk.Decoder, defaults Defaults) string {
	name, tenant := TenantID, d.String(TenantID, "")
	if tenant == "" {
		if tenant = d.String(TenantIDOld, ""); tenant != "" {
			name = TenantIDOld
		} else {
			tenant = strings.TrimSpace(defaults.TenantID)
		}
	}
	switch {
	case tenant == "":
		d.Violate(TenantID, "tenantId is not provided: set tenantID, or the service account's annotation azure.workload.identity/tenant-id")
	case strings.EqualFold(tenant, ADFS):
		return ADFS
	case len(tenant) > maxDomain || !tenantSyntax.MatchString(tenant):
		d.Violate(name, "%q is not a tenant: write its id, or a domain of it such as contoso.onmicrosoft.com", tenant)
	}
	return tenant
}

// mode decodes the three flags, of which one may be set.
func mode(d *sdk.Decoder) Mode {
	mode, chosen := ModeDefault, ""
	for _, flag := range []struct {
		name string
		mode Mode
	}{
		{UsePodIdentity, ModePodIdentity},
		{UseVMManagedIdentity, ModeManagedIdentity},
		{UseAzureTokenProxy, ModeIdentityBinding},
	} {
		set, err := strconv.ParseBool(d.String(flag.name, "false"))
		switch {
		case err != nil:
			d.Violate(flag.name, "failed to parse %s flag, error: %v", flag.name, err)
		case set && chosen != "":
			d.Violate(flag.name, "only one identity mode can be enabled at a time: %s is true too", chosen)
		case set:
			mode, chosen = flag.mode, flag.name
		}
	}
	return mode
}

func cloud(d *sdk.Decoder, defaults Defaults) Cloud {
	name := d.String(CloudName, defaults.CloudName)
	c, err := defaults.Clouds.Lookup(name, d.String(CloudEnvFileName, ""))
	if err != nil {
		d.Violate(CloudName, "cloudName %s is not valid, error: %v", name, err)
	}
	return c
}

// clientIDSyntax is more than ids need, as those of AD FS may be names, and no more
// than what means nothing in a form or in an URL's query.
var clientIDSyntax = regexp.MustCompile(`^[0-9A-Za-z._-]{1,128}$`)

func clientID(d *sdk.Decoder, parameter string) string {
	id := d.String(parameter, "")
	if id != "" {
		checkClientID(d, parameter, id)
	}
	return id
}

// CheckClientID checks a client id that is not the class's, of which field says where
// it is from. The error is an [*sdk.Error].
func CheckClientID(field, id string) error {
	d := sdk.NewDecoder(nil)
	checkClientID(d, field, id)
	return d.Err()
}

func checkClientID(d *sdk.Decoder, field, id string) {
	if !clientIDSyntax.MatchString(id) {
		d.Violate(field, "%q is not a client id, such as 11111111-2222-3333-4444-555555555555", id)
	}
}
