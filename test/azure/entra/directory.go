// Package entra answers as Microsoft Entra ID does, and as an ADFS: metadata, and
// access tokens for clients that have a secret or a federated assertion.
package entra

import (
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/postern-dev/postern/test/azure/control"
	"github.com/postern-dev/postern/test/token"
)

const (
	// Public is the authority of the public cloud.
	Public = "login.microsoftonline.com"
	// ADFS is the name of the tenant of an authority that is an ADFS.
	ADFS = "adfs"
	// defaultLifetime is how long access tokens last.
	defaultLifetime = time.Hour
)

// authorities are the hosts of Entra, with their aliases.
func authorities() []string {
	return []string{
		Public, "login.windows.net", "login.microsoft.com", "sts.windows.net",
		"login.microsoftonline.us", "login.usgovcloudapi.net",
		"login.partner.microsoftonline.cn", "login.chinacloudapi.cn", "login.microsoftonline.de",
	}
}

// aliases are hosts of one cloud, by the first.
func aliases() [][]string {
	return [][]string{
		{Public, "login.windows.net", "login.microsoft.com", "sts.windows.net"},
		{"login.microsoftonline.us", "login.usgovcloudapi.net"},
		{"login.partner.microsoftonline.cn", "login.chinacloudapi.cn"},
	}
}

// cloudOf returns the first of a host's aliases.
func cloudOf(host string) string {
	for _, names := range aliases() {
		if slices.Contains(names, host) {
			return names[0]
		}
	}
	return host
}

// Config is what a Directory needs. All of it is required.
type Config struct {
	Now      func() time.Time
	Verifier *token.Verifier
	// Resource tells whether anybody takes access tokens for a resource, a URL.
	Resource func(string) bool
}

// Directory knows the tenants and their applications.
//
// Invariants:
//  1. Each application's tenant is in tenants.
//  2. Ids are compared without case, and kept in lower case.
type Directory struct {
	cfg    Config
	signer *token.Signer

	mu           sync.Mutex
	tenants      map[string]control.Tenant
	applications map[[2]string]*control.Application // by tenant and client
	revoked      map[string]int64                   // by client: tokens up to this one are no good
	lifetime     time.Duration
	sequence     int64 // of the last access token
}

// NewDirectory returns one without tenants.
func NewDirectory(cfg Config) (*Directory, error) {
	signer, err := token.NewSigner("entra")
	if err != nil {
		return nil, err
	}
	d := &Directory{cfg: cfg, signer: signer}
	d.Reset()
	return d, nil
}

// Reset forgets everything.
func (d *Directory) Reset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tenants, d.applications = map[string]control.Tenant{}, map[[2]string]*control.Application{}
	d.revoked, d.lifetime = map[string]int64{}, defaultLifetime
}

// SetLifetime says how long access tokens last from now on.
func (d *Directory) SetLifetime(lifetime time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lifetime = lifetime
}

// PutTenant adds a tenant, or replaces what is said of it.
func (d *Directory) PutTenant(t control.Tenant) error {
	if t.ID == "" {
		return errors.New("a tenant needs an id")
	}
	if t.Authority == "" {
		t.Authority = Public
	}
	if t.ID == ADFS && cloudOf(t.Authority) == Public {
		return errors.New("tenant adfs needs the authority of an ADFS")
	}
	t.ID, t.Authority = strings.ToLower(t.ID), strings.ToLower(t.Authority)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tenants[t.ID] = t
	return nil
}

// NeedTenant adds a tenant of the public cloud, if it is not there.
func (d *Directory) NeedTenant(id string) error {
	if id == "" {
		return errors.New("no tenant is said")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.needTenant(strings.ToLower(id))
	return nil
}

func (d *Directory) needTenant(id string) {
	if _, ok := d.tenants[id]; !ok {
		d.tenants[id] = control.Tenant{ID: id, Authority: Public}
	}
}

// PutApplication adds an application, or replaces it.
func (d *Directory) PutApplication(a control.Application) error {
	if a.Tenant == "" || a.ClientID == "" {
		return errors.New("an application needs a tenant and a clientId")
	}
	a.Tenant, a.ClientID = strings.ToLower(a.Tenant), strings.ToLower(a.ClientID)
	if a.ObjectID == "" {
		a.ObjectID = newID()
	}
	a.FederatedCredentials = slices.Clone(a.FederatedCredentials)
	for i := range a.FederatedCredentials {
		if a.FederatedCredentials[i].Audience == "" {
			a.FederatedCredentials[i].Audience = exchangeAudience
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.needTenant(a.Tenant)
	d.applications[[2]string{a.Tenant, a.ClientID}] = &a
	return nil
}

// DeleteApplication removes one.
func (d *Directory) DeleteApplication(tenant, clientID string) bool {
	key := [2]string{strings.ToLower(tenant), strings.ToLower(clientID)}
	d.mu.Lock()
	defer d.mu.Unlock()
	_, ok := d.applications[key]
	delete(d.applications, key)
	return ok
}

// Revoke makes the access tokens no good that a client has so far.
func (d *Directory) Revoke(clientID string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.revoked[strings.ToLower(clientID)] = d.sequence
}

// Plays tells whether a host is an authority.
func (d *Directory) Plays(host string) bool {
	if slices.Contains(authorities(), host) {
		return true
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, t := range d.tenants {
		if t.Authority == host {
			return true
		}
	}
	return false
}

// AuthorityOf returns the host of a tenant.
func (d *Directory) AuthorityOf(id string) string {
	if t, ok := d.tenant(id); ok {
		return t.Authority
	}
	return Public
}

// tenant finds one by its id or one of its domains.
func (d *Directory) tenant(name string) (control.Tenant, bool) {
	name = strings.ToLower(name)
	d.mu.Lock()
	defer d.mu.Unlock()
	if t, ok := d.tenants[name]; ok {
		return t, true
	}
	for _, t := range d.tenants {
		if slices.Contains(t.Domains, name) {
			return t, true
		}
	}
	return control.Tenant{}, false
}

// application returns a copy.
func (d *Directory) application(tenant, clientID string) (control.Application, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	a := d.applications[[2]string{tenant, strings.ToLower(clientID)}]
	if a == nil {
		return control.Application{}, false
	}
	return *a, true
}

// newID makes up a GUID.
func newID() string {
	raw := make([]byte, 16)
	_, _ = rand.Read(raw) // never fails
	raw[6], raw[8] = raw[6]&0x0f|0x40, raw[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", raw[:4], raw[4:6], raw[6:8], raw[8:10], raw[10:])
}
