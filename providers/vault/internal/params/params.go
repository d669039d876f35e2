// Package params decodes what a SecretProviderClass asks for.
package params

import (
	"path/filepath"
	"strings"

	"github.com/postern-dev/postern/providers/sdk"
	"github.com/postern-dev/postern/providers/vault/internal/store"
)

// DefaultAudience is of the token where the class does not say.
const DefaultAudience = "vault"

// Defaults is what the process says; a class overrides it.
type Defaults struct {
	Endpoint  store.Endpoint
	AuthMount string
	// TLSDirs are where the files that a class names may be. None: anywhere.
	TLSDirs []string
}

// Spec is a class, decoded.
type Spec struct {
	Endpoint  store.Endpoint
	AuthMount string
	Role      string
	Audience  string
	// PerPod says that pods do not share a session.
	PerPod  bool
	Objects []Object
}

// Names of parameters. Each that begins with "vault" may begin with "bao", too.
const (
	Address     = "vaultAddress"
	Namespace   = "vaultNamespace"
	SkipVerify  = "vaultSkipTLSVerify"
	CACert      = "vaultCACertPath"
	CADirectory = "vaultCADirectory"
	ServerName  = "vaultTLSServerName"
	ClientCert  = "vaultTLSClientCertPath"
	ClientKey   = "vaultTLSClientKeyPath"
	AuthMount   = "vaultAuthMountPath"
	// KubernetesMount is another name of AuthMount.
	KubernetesMount = "vaultKubernetesMountPath"
	PerPod          = "vaultSessionPerPod"
	Role            = "roleName"
	Audience        = "audience"
	Objects         = "objects"
)

// OpenBao returns a parameter's other name, or "" if it has none.
func OpenBao(name string) string {
	rest, ok := strings.CutPrefix(name, "vault")
	if !ok {
		return ""
	}
	return "bao" + rest
}

// Parse decodes parameters. The error is an [*sdk.Error] with all violations.
func Parse(parameters sdk.Parameters, defaults Defaults) (*Spec, error) {
	p := &parser{Decoder: sdk.NewDecoder(parameters), parameters: parameters, defaults: defaults}
	spec := &Spec{
		Endpoint: store.Endpoint{
			Address:   p.address(),
			Namespace: p.text(Namespace, defaults.Endpoint.Namespace),
			TLS:       p.tls(),
		},
		Role:      p.Required(Role, "missing 'roleName' in SecretProviderClass definition"),
		AuthMount: p.authMount(),
		Audience:  p.String(Audience, DefaultAudience),
		PerPod:    p.Bool(p.name(PerPod), false),
		Objects:   decodeObjects(p.Decoder),
	}
	if err := p.Err(); err != nil {
		return nil, err
	}
	return spec, nil
}

type parser struct {
	*sdk.Decoder
	parameters sdk.Parameters
	defaults   Defaults
}

// name returns under which of its two names a parameter is set.
func (p *parser) name(vault string) string {
	bao := OpenBao(vault)
	a, b := p.parameters.Get(vault), p.parameters.Get(bao)
	switch {
	case b == "":
		return vault
	case a != "" && a != b:
		p.Violate(vault, "cannot set both %s and %s to different values", vault, bao)
	}
	return bao
}

func (p *parser) text(vault, def string) string { return p.String(p.name(vault), def) }

func (p *parser) address() string {
	name := p.name(Address)
	address := p.String(name, "")
	if address == "" {
		return p.defaults.Endpoint.Address
	}
	if !strings.HasPrefix(address, "http://") && !strings.HasPrefix(address, "https://") {
		p.Violate(name, "%q is not a URL that starts with http:// or https://", address)
	}
	return strings.TrimSuffix(address, "/")
}

func (p *parser) authMount() string {
	name := p.name(AuthMount)
	mount, other := p.String(name, ""), p.text(KubernetesMount, "")
	if mount != "" && other != "" {
		p.Violate(name, "cannot set both %s and %s", AuthMount, KubernetesMount)
	}
	for _, m := range []string{mount, other} {
		if m = strings.Trim(m, "/"); m != "" {
			if strings.ContainsAny(m, "?#") || strings.Contains("/"+m+"/", "/../") {
				p.Violate(name, "%q is not the path of an auth method", m)
			}
			return m
		}
	}
	return p.defaults.AuthMount
}

func (p *parser) tls() store.TLS {
	def := p.defaults.Endpoint.TLS
	tls := store.TLS{
		SkipVerify:  p.Bool(p.name(SkipVerify), def.SkipVerify),
		CACert:      p.file(CACert, ""),
		CADirectory: p.file(CADirectory, ""),
		ServerName:  p.text(ServerName, def.ServerName),
		ClientCert:  p.file(ClientCert, def.ClientCert),
		ClientKey:   p.file(ClientKey, def.ClientKey),
	}
	if tls.CACert == "" && tls.CADirectory == "" { // a file would win over a directory
		tls.CACert, tls.CADirectory = def.CACert, def.CADirectory
	}
	if (tls.ClientCert == "") != (tls.ClientKey == "") {
		p.Violate(p.name(ClientCert), "both client cert and client key must be provided")
	}
	return tls
}

// file returns a parameter that names a file or directory of this process.
func (p *parser) file(vault, def string) string {
	name := p.name(vault)
	path := p.String(name, "")
	if path == "" {
		return def
	}
	if len(p.defaults.TLSDirs) == 0 {
		return path
	}
	for _, dir := range p.defaults.TLSDirs {
		if rel, err := filepath.Rel(dir, path); err == nil && filepath.IsLocal(rel) {
			return path
		}
	}
	p.Violate(name, "%q is outside of the directories that the provider allows: %s", path, strings.Join(p.defaults.TLSDirs, ", "))
	return def
}
