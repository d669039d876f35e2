package keyvault

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/postern-dev/postern/test/azure/control"
)

// object is a secret, a key or a certificate.
type object struct {
	name     string // as it was made
	versions []*version
	deleted  bool
}

// version is one of an object. Which of the parts it has is its service's.
type version struct {
	id                                   string
	sequence                             int
	created, updated, notBefore, expires time.Time
	enabled                              bool
	tags                                 map[string]string

	// value, contentType and kid are a secret's.
	value       string
	contentType *string
	kid         string
	managed     bool
	// key is a key's.
	key *publicKey
	// cer and secretType are a certificate's.
	cer        []byte
	secretType string
}

// newest is the version that is created last.
func (o *object) newest() *version {
	return slices.MaxFunc(o.versions, func(a, b *version) int {
		return cmp.Or(a.created.Compare(b.created), cmp.Compare(a.sequence, b.sequence))
	})
}

// find returns a version, the newest if id is empty.
func (o *object) find(id string) *version {
	if id == "" {
		return o.newest()
	}
	for _, v := range o.versions {
		if v.id == id {
			return v
		}
	}
	return nil
}

// put makes or changes a version of an object. Fill gives a new one its contents;
// nil changes an old one. It holds the lock.
func (s *Store) put(service string, c control.Version, fill func(*version)) (*vault, *object, *version, error) {
	v := s.vaults[hostOf(c.Vault)]
	switch {
	case v == nil:
		return nil, nil, nil, fmt.Errorf("%s %s: there is no vault %q", service, c.Name, c.Vault)
	case !objectName.MatchString(c.Name):
		return nil, nil, nil, fmt.Errorf("%s of vault %s: %q is no name of an object", service, c.Vault, c.Name)
	case c.Version != "" && !versionID.MatchString(c.Version):
		return nil, nil, nil, fmt.Errorf("%s %s: version %q is not 32 hex digits in lower case", service, c.Name, c.Version)
	}
	key := strings.ToLower(c.Name)
	o := v.objects[service][key]
	if o == nil {
		if fill == nil {
			return nil, nil, nil, fmt.Errorf("%s %s: it is not in vault %s, and nothing is said to make it of", service, c.Name, c.Vault)
		}
		o = &object{name: c.Name}
	}
	var version *version
	if fill != nil {
		version = s.newVersion(o, c.Version)
		fill(version)
	} else if version = o.find(c.Version); version == nil {
		return nil, nil, nil, fmt.Errorf("%s %s has no version %s", service, c.Name, c.Version)
	}
	version.change(c)
	if c.Deleted != nil {
		o.deleted = *c.Deleted
	}
	v.objects[service][key] = o
	return v, o, version, nil
}

// newVersion adds one to an object, in the place of one of the same id.
func (s *Store) newVersion(o *object, id string) *version {
	if id == "" {
		raw := make([]byte, 16)
		_, _ = rand.Read(raw) // never fails
		id = hex.EncodeToString(raw)
	}
	s.sequence++
	now := s.cfg.Now().Truncate(time.Second)
	made := &version{id: id, sequence: s.sequence, created: now, updated: now, enabled: true}
	o.versions = slices.DeleteFunc(o.versions, func(old *version) bool { return old.id == id })
	o.versions = append(o.versions, made)
	return made
}

// change sets what is said.
func (v *version) change(c control.Version) {
	if c.Tags != nil {
		v.tags = maps.Clone(c.Tags)
	}
	if c.Enabled != nil {
		v.enabled = *c.Enabled
	}
	if !c.NotBefore.IsZero() {
		v.notBefore = c.NotBefore
	}
	if !c.Expires.IsZero() {
		v.expires = c.Expires
	}
	if !c.Created.IsZero() {
		v.created = c.Created.Truncate(time.Second)
		v.updated = v.created
	}
}

// idOf is the URL of a version; of the object, if version is empty.
func (v *vault) idOf(service, name, version string) string {
	id := "https://" + v.host + "/" + service + "/" + name
	if version != "" {
		id += "/" + version
	}
	return id
}

func (v *vault) applied(service string, o *object, made *version) control.AppliedObject {
	return control.AppliedObject{Vault: v.host, Name: o.name, Version: made.id, ID: v.idOf(service, o.name, made.id)}
}
