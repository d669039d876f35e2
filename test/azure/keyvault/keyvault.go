// Package keyvault answers as Azure Key Vault does: secrets, keys and certificates
// of vaults, to those whose access token is good and whom the vault lets. Routing,
// parameters and bodies are those of Microsoft's own fakes.
package keyvault

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/postern-dev/postern/test/azure/control"
	"github.com/postern-dev/postern/test/azure/entra"
)

const (
	defaultSuffix   = "vault.azure.net"
	defaultLocation = "westeurope"
	// defaultPageSize is Key Vault's, and the most that it takes.
	defaultPageSize = 25
)

var (
	vaultName  = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9-]{1,22}[A-Za-z0-9]$`)
	objectName = regexp.MustCompile(`^[0-9a-zA-Z-]{1,127}$`)
	versionID  = regexp.MustCompile(`^[0-9a-f]{32}$`)
)

// Config is what a Store needs. All of it is required.
type Config struct {
	Now       func() time.Time
	Directory *entra.Directory
}

// Store keeps vaults.
//
// Invariants:
//  1. Hosts of vaults and names of objects are in lower case where they are keys.
//  2. An object has one version at least.
//  3. A certificate's versions are versions of the secret and the key of its name.
type Store struct {
	cfg Config

	mu       sync.Mutex
	vaults   map[string]*vault // by host
	pageSize int
	sequence int // of versions
}

// vault is one with its objects.
type vault struct {
	control.Vault

	host    string
	objects map[string]map[string]*object // by service and name
}

// New returns a store without vaults.
func New(cfg Config) *Store {
	s := &Store{cfg: cfg}
	s.Reset()
	return s
}

// Reset forgets everything.
func (s *Store) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.vaults, s.pageSize = map[string]*vault{}, defaultPageSize
}

// SetPageSize says how many entries a page has at most; 0 is Azure's own.
func (s *Store) SetPageSize(size int) error {
	if size < 0 || size > defaultPageSize {
		return fmt.Errorf("pageSize: %d is not between 0 and %d", size, defaultPageSize)
	}
	if size == 0 {
		size = defaultPageSize
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pageSize = size
	return nil
}

// PutVault adds a vault, or replaces all of it but its objects.
func (s *Store) PutVault(v control.Vault) error {
	if v.Suffix == "" {
		v.Suffix = defaultSuffix
	}
	if v.Authorization == "" {
		v.Authorization = control.RBAC
	}
	if v.Location == "" {
		v.Location = defaultLocation
	}
	switch {
	case !vaultName.MatchString(v.Name):
		return fmt.Errorf("vault %q: not a name of a vault", v.Name)
	case v.Authorization != control.RBAC && v.Authorization != control.Policy:
		return fmt.Errorf("vault %s: unknown authorization %q", v.Name, v.Authorization)
	case !slices.Contains([]string{"", control.Firewall, control.Private}, v.Network):
		return fmt.Errorf("vault %s: unknown network %q", v.Name, v.Network)
	}
	for _, g := range v.Grants {
		if err := checkGrant(g); err != nil {
			return fmt.Errorf("vault %s: %w", v.Name, err)
		}
	}
	if err := s.cfg.Directory.NeedTenant(v.Tenant); err != nil {
		return fmt.Errorf("vault %s: %w", v.Name, err)
	}
	host := strings.ToLower(v.Name + "." + v.Suffix)
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.vaults[host]; old != nil {
		old.Vault = v
		return nil
	}
	s.vaults[host] = &vault{Vault: v, host: host, objects: map[string]map[string]*object{
		control.Secrets: {}, control.Keys: {}, control.Certificates: {},
	}}
	return nil
}

func checkGrant(g control.Grant) error {
	known := []string{"*"}
	for _, service := range services() {
		known = append(known, service+"/get", service+"/list")
	}
	for _, operation := range g.Operations {
		if !slices.Contains(known, operation) {
			return fmt.Errorf("unknown operation %q, want one of %v", operation, known)
		}
	}
	if len(g.Operations) == 0 {
		return errors.New("a grant needs operations")
	}
	return nil
}

func services() []string { return []string{control.Secrets, control.Keys, control.Certificates} }

// hostOf completes what the control API calls a vault.
func hostOf(name string) string {
	name = strings.ToLower(name)
	if strings.Contains(name, ".") {
		return name
	}
	return name + "." + defaultSuffix
}

// Has tells whether a host is a vault.
func (s *Store) Has(host string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.vaults[host] != nil
}

// Is tells whether what the control API calls a vault is this host.
func Is(name, host string) bool { return name == "" || hostOf(name) == host }

// IsResource tells whether access tokens for a resource are for vaults.
func (s *Store) IsResource(resource string) bool {
	suffix, ok := strings.CutPrefix(strings.TrimSuffix(resource, "/"), "https://")
	if slices.Contains([]string{defaultSuffix, "vault.usgovcloudapi.net", "vault.azure.cn", "vault.microsoftazure.de"}, suffix) {
		return ok
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range s.vaults {
		if v.Suffix == suffix {
			return ok
		}
	}
	return false
}

// DeleteVault removes one with all in it.
func (s *Store) DeleteVault(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.vaults[hostOf(name)]
	delete(s.vaults, hostOf(name))
	return ok
}

// Delete removes an object for good, a certificate with its secret and key.
func (s *Store) Delete(service, vault, name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.vaults[hostOf(vault)]
	if v == nil {
		return false
	}
	name = strings.ToLower(name)
	if v.objects[service][name] == nil {
		return false
	}
	delete(v.objects[service], name)
	if service == control.Certificates {
		delete(v.objects[control.Secrets], name)
		delete(v.objects[control.Keys], name)
	}
	return true
}
