package params

import (
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-dev/postern/providers/sdk"
)

const (
	tenant = "72f988bf-86f1-41af-91ab-2d7cd011db47"
	one    = "- {objectName: o, objectType: secret}"
)

func valid() sdk.Parameters {
	return sdk.Parameters{KeyvaultName: "kv1", TenantID: tenant, Objects: one}
}

func with(set sdk.Parameters) sdk.Parameters {
	p := valid()
	maps.Copy(p, set)
	return p
}

// violations are "field: description" of each violation.
func violations(t *testing.T, err error) []string {
	t.Helper()
	e, ok := errors.AsType[*sdk.Error](err)
	if !ok || e.Reason != sdk.ReasonInvalidParameters {
		t.Fatalf("error = %v, want INVALID_PARAMETERS", err)
	}
	texts := make([]string, len(e.Fields))
	for i, f := range e.Fields {
		texts[i] = f.Field + ": " + f.Description
	}
	return texts
}

// wantViolations checks the beginnings of all violations.
func wantViolations(t *testing.T, err error, want ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want %s", want)
	}
	got := violations(t, err)
	if !slices.EqualFunc(got, want, strings.HasPrefix) {
		t.Errorf("violations:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func public() Cloud {
	return Cloud{
		Name: "AzurePublicCloud", AuthorityHost: "https://login.microsoftonline.com/",
		VaultDNSSuffix: "vault.azure.net", VaultScope: "https://vault.azure.net/.default",
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	base := func(change func(*Spec)) *Spec {
		s := &Spec{
			Cloud: public(), VaultName: "kv1", VaultURL: "https://kv1.vault.azure.net/", TenantID: tenant,
			Objects: []Object{{Type: Secret, Name: "o", Format: PEM, Encoding: UTF8}},
		}
		change(s)
		return s
	}
	mode := func(m Mode) *Spec { return base(func(s *Spec) { s.Mode = m }) }
	for name, tt := range map[string]struct {
		set      sdk.Parameters
		defaults Defaults
		want     *Spec
	}{
		"defaults":           {nil, Defaults{}, base(func(*Spec) {})},
		"unknown parameters": {sdk.Parameters{"x": "y", "TENANTID": "z", "KeyVaultName": "-"}, Defaults{}, base(func(*Spec) {})},
		"spaces": {sdk.Parameters{
			KeyvaultName: " kv1\n", TenantID: "\t" + tenant + " ", ClientID: " id ", UsePodIdentity: " true ", CloudName: " azurepubliccloud ",
		}, Defaults{}, base(func(s *Spec) { s.ClientID, s.Mode = "id", ModePodIdentity })},
		"nothing but spaces": {sdk.Parameters{ClientID: " ", UsePodIdentity: "\n", CloudName: " ", CloudEnvFileName: " "}, Defaults{}, base(func(*Spec) {})},
		"old tenant":         {sdk.Parameters{TenantID: "", TenantIDOld: "contoso.onmicrosoft.com"}, Defaults{TenantID: "x"}, base(func(s *Spec) { s.TenantID = "contoso.onmicrosoft.com" })},
		"both tenants":       {sdk.Parameters{TenantIDOld: "other"}, Defaults{TenantID: "x"}, base(func(*Spec) {})},
		"annotation's":       {sdk.Parameters{TenantID: " ", TenantIDOld: ""}, Defaults{TenantID: " x "}, base(func(s *Spec) { s.TenantID = "x" })},
		"ADFS":               {sdk.Parameters{TenantID: "ADFS"}, Defaults{}, base(func(s *Spec) { s.TenantID = "adfs" })},
		"modes off":          {sdk.Parameters{UsePodIdentity: "0", UseVMManagedIdentity: "FALSE", UseAzureTokenProxy: "f"}, Defaults{}, base(func(*Spec) {})},
		"pod identity":       {sdk.Parameters{UsePodIdentity: "T"}, Defaults{}, mode(ModePodIdentity)},
		"identity binding":   {sdk.Parameters{UseAzureTokenProxy: "True"}, Defaults{}, mode(ModeIdentityBinding)},
		"managed identity":   {sdk.Parameters{UseVMManagedIdentity: "1"}, Defaults{}, mode(ModeManagedIdentity)},
		"user-assigned": {sdk.Parameters{UseVMManagedIdentity: "true", UserAssignedIdentityID: " id-2 "}, Defaults{}, base(func(s *Spec) {
			s.Mode, s.UserAssignedIdentityID = ModeManagedIdentity, "id-2"
		})},
		"user-assigned without effect": {sdk.Parameters{UserAssignedIdentityID: "/subscriptions/x"}, Defaults{}, base(func(*Spec) {})},
		"longest name": {sdk.Parameters{KeyvaultName: "Kv-" + strings.Repeat("9", 21)}, Defaults{}, base(func(s *Spec) {
			s.VaultName = "Kv-" + strings.Repeat("9", 21)
			s.VaultURL = "https://" + s.VaultName + ".vault.azure.net/"
		})},
		"operator's cloud": {nil, Defaults{CloudName: "AZURECHINACLOUD"}, base(func(s *Spec) {
			s.Cloud, s.VaultURL = newCloud("AzureChinaCloud", "login.chinacloudapi.cn", "vault.azure.cn"), "https://kv1.vault.azure.cn/"
		})},
		"class's cloud": {sdk.Parameters{CloudName: "AzurePublicCloud"}, Defaults{CloudName: "AzureChinaCloud"}, base(func(*Spec) {})},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := Parse(with(tt.set), tt.defaults)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestParseViolations(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		set  sdk.Parameters
		want string
	}{
		"no vault":        {sdk.Parameters{KeyvaultName: " "}, "keyvaultName: keyvaultName is not provided"},
		"short name":      {sdk.Parameters{KeyvaultName: "kv"}, `keyvaultName: Invalid vault name: "kv", must be between 3 and 24 chars`},
		"long name":       {sdk.Parameters{KeyvaultName: strings.Repeat("k", 25)}, `keyvaultName: Invalid vault name: "kkkkkkkkkkkkkkkkkkkkkkkkk", must be between 3 and 24 chars`},
		"another host":    {sdk.Parameters{KeyvaultName: "evil.example/"}, `keyvaultName: Invalid vault name: "evil.example/", must match [-a-zA-Z0-9]{3,24}`},
		"dotted name":     {sdk.Parameters{KeyvaultName: "a.b"}, `keyvaultName: Invalid vault name: "a.b", must match`},
		"port":            {sdk.Parameters{KeyvaultName: "evil:1"}, `keyvaultName: Invalid vault name: "evil:1", must match`},
		"user":            {sdk.Parameters{KeyvaultName: "evil@"}, `keyvaultName: Invalid vault name: "evil@", must match`},
		"line":            {sdk.Parameters{KeyvaultName: "kv1\nkv2"}, `keyvaultName: Invalid vault name: "kv1\nkv2", must match`},
		"hyphen first":    {sdk.Parameters{KeyvaultName: "-kv1"}, `keyvaultName: Invalid vault name: "-kv1", must neither`},
		"hyphen last":     {sdk.Parameters{KeyvaultName: "kv1-"}, `keyvaultName: Invalid vault name: "kv1-", must neither`},
		"no tenant":       {sdk.Parameters{TenantID: "  "}, "tenantID: tenantId is not provided"},
		"path":            {sdk.Parameters{TenantID: "a/b"}, `tenantID: "a/b" is not a tenant`},
		"way up":          {sdk.Parameters{TenantID: ".."}, `tenantID: ".." is not a tenant`},
		"query":           {sdk.Parameters{TenantID: "a?b"}, `tenantID: "a?b" is not a tenant`},
		"escape":          {sdk.Parameters{TenantID: "a%2fb"}, `tenantID: "a%2fb" is not a tenant`},
		"dots":            {sdk.Parameters{TenantID: "a..b"}, `tenantID: "a..b" is not a tenant`},
		"long tenant":     {sdk.Parameters{TenantID: strings.Repeat("a", 254)}, `tenantID: "aaaa`},
		"old tenant":      {sdk.Parameters{TenantID: "", TenantIDOld: "/"}, `tenantId: "/" is not a tenant`},
		"pod identity":    {sdk.Parameters{UsePodIdentity: "yes"}, `usePodIdentity: failed to parse usePodIdentity flag, error: strconv.ParseBool: parsing "yes": invalid syntax`},
		"managed":         {sdk.Parameters{UseVMManagedIdentity: "on"}, `useVMManagedIdentity: failed to parse useVMManagedIdentity flag, error: strconv.ParseBool: parsing "on": invalid syntax`},
		"binding":         {sdk.Parameters{UseAzureTokenProxy: "2"}, `useAzureTokenProxy: failed to parse useAzureTokenProxy flag, error: strconv.ParseBool: parsing "2": invalid syntax`},
		"two modes":       {sdk.Parameters{UsePodIdentity: "true", UseVMManagedIdentity: "1"}, "useVMManagedIdentity: only one identity mode can be enabled at a time"},
		"two other modes": {sdk.Parameters{UseVMManagedIdentity: "true", UseAzureTokenProxy: "true"}, "useAzureTokenProxy: only one identity mode can be enabled at a time"},
		"cloud":           {sdk.Parameters{CloudName: "MoonCloud"}, `cloudName: cloudName MoonCloud is not valid, error: there is no cloud environment matching the name "MoonCloud"`},
		"stack":           {sdk.Parameters{CloudName: "azurestackcloud"}, "cloudName: cloudName azurestackcloud is not valid, error: it is described by a file: set cloudEnvFileName"},
		"client":          {sdk.Parameters{ClientID: "a b"}, `clientID: "a b" is not a client id`},
		"client's form":   {sdk.Parameters{ClientID: "a&resource=b"}, `clientID: "a&resource=b" is not a client id`},
		"long client":     {sdk.Parameters{ClientID: strings.Repeat("a", 129)}, `clientID: "aaa`},
		"user-assigned":   {sdk.Parameters{UseVMManagedIdentity: "true", UserAssignedIdentityID: "/subscriptions/x"}, `userAssignedIdentityID: "/subscriptions/x" is not a client id`},
		"no objects":      {sdk.Parameters{Objects: " \n"}, "objects: objects is not set"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			spec, err := Parse(with(tt.set), Defaults{})
			wantViolations(t, err, tt.want)
			if spec != nil {
				t.Errorf("spec = %+v", spec)
			}
		})
	}
}

// All problems are told at once, in the order in which users met them.
func TestOrderOfViolations(t *testing.T) {
	t.Parallel()
	_, err := Parse(sdk.Parameters{
		UsePodIdentity: "x", UseVMManagedIdentity: "x", UseAzureTokenProxy: "x", CloudName: "x", ClientID: "?",
		Objects: `- {objectName: "?", objectType: x, objectFormat: x, objectEncoding: hex, objectVersion: x, objectVersionHistory: -1, filePermission: x, optional: x, limit: 1}`,
	}, Defaults{})
	wantViolations(t, err,
		"keyvaultName: keyvaultName is not provided",
		"tenantID: tenantId is not provided",
		"usePodIdentity: failed to parse",
		"useVMManagedIdentity: failed to parse",
		"useAzureTokenProxy: failed to parse",
		"cloudName: cloudName x is not valid",
		"clientID: ",
		"objects[0].objectFormat: invalid objectFormat: x, should be PEM or PFX",
		"objects[0].objectEncoding: objectEncoding only supported for objectType: secret",
		"objects[0].limit: is for namePattern and tags alone",
		"objects[0].objectName: ",
		"objects[0].objectVersion: ",
		"objects[0].objectVersionHistory: ",
		"objects[0].objectType: Invalid vaultObjectTypes. Should be secret, key, or cert",
		"objects[0].filePermission: file permission must be a valid octal number",
		"objects[0].optional: ",
	)
}

func TestParameters(t *testing.T) {
	t.Parallel()
	locates := []string{}
	for _, p := range Parameters() {
		if p.LocatesStore {
			locates = append(locates, p.Name)
		}
		if p.Required != (p.Name == "keyvaultName" || p.Name == "objects") || !strings.HasSuffix(p.Description, ".") {
			t.Errorf("%+v", p)
		}
	}
	if diff := cmp.Diff([]string{"keyvaultName", "tenantID", "tenantId", "cloudName", "cloudEnvFileName"}, locates); diff != "" {
		t.Error(diff)
	}
}

// What is no parameter of the class is held to the same.
func TestCheckClientID(t *testing.T) {
	t.Parallel()
	if err := CheckClientID("annotation", "11111111-2222-3333-4444-555555555555"); err != nil {
		t.Error(err)
	}
	for _, id := range []string{"", "a b", "a/b"} {
		wantViolations(t, CheckClientID("annotation", id), "annotation: "+strconv.Quote(id)+" is not a client id")
	}
}
