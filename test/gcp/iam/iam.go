// Package iam knows who is who in the double, and who may do what: projects,
// service accounts, access tokens and bindings.
package iam

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/postern-dev/postern/test/gcp/control"
)

// CloudPlatform is the scope of all that the double plays.
const CloudPlatform = "https://www.googleapis.com/auth/cloud-platform"

// defaultLifetime is how long access tokens last.
const defaultLifetime = time.Hour

// Directory is all of IAM.
//
// Invariants:
//  1. A project that nobody put has a number too, which is made of its id.
//  2. Resources of bindings are kept with the numbers of projects.
type Directory struct {
	now func() time.Time

	mu       sync.Mutex
	projects []control.Project
	accounts map[string]*account // by email
	bindings []control.Binding
	tokens   map[string]*Token
	issued   int64 // how many tokens so far
	revoked  map[string]int64
	lifetime time.Duration
}

// New returns one that knows nobody.
func New(now func() time.Time) *Directory {
	d := &Directory{now: now}
	d.Reset()
	return d
}

// Reset forgets everything.
func (d *Directory) Reset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.projects, d.accounts, d.bindings = nil, map[string]*account{}, nil
	d.tokens, d.revoked, d.lifetime = map[string]*Token{}, map[string]int64{}, defaultLifetime
}

// PutProject says a project's number.
func (d *Directory) PutProject(p control.Project) error {
	if p.ID == "" || !isNumber(p.Number) {
		return errors.New("a project needs an id and a number")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if i := slices.IndexFunc(d.projects, func(o control.Project) bool { return o.Number == p.Number && o.ID != p.ID }); i >= 0 {
		return fmt.Errorf("number %s is project %s's", p.Number, d.projects[i].ID)
	}
	d.projects = slices.DeleteFunc(d.projects, func(o control.Project) bool { return o.ID == p.ID })
	d.projects = append(d.projects, p)
	return nil
}

// Number returns the number of a project, of which name is the id or the number.
func (d *Directory) Number(name string) string {
	if isNumber(name) {
		return name
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if i := slices.IndexFunc(d.projects, func(p control.Project) bool { return p.ID == name }); i >= 0 {
		return d.projects[i].Number
	}
	sum := sha256.Sum256([]byte(name))
	return fmt.Sprintf("%012d", 100_000_000_000+binary.BigEndian.Uint64(sum[:8])%900_000_000_000)
}

func isNumber(name string) bool { return name != "" && strings.Trim(name, "0123456789") == "" }

// PutBinding grants a role on a resource to its members, and to nobody else any
// more.
func (d *Directory) PutBinding(b control.Binding) error {
	if b.Resource == "" || b.Role == "" {
		return errors.New("a binding needs a resource and a role")
	}
	if len(b.Permissions) == 0 {
		b.Permissions = roles()[b.Role]
	}
	if len(b.Permissions) == 0 {
		return fmt.Errorf("role %s is unknown: say its permissions", b.Role)
	}
	b.Resource = d.canonical(b.Resource)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.bindings = slices.DeleteFunc(d.bindings, func(o control.Binding) bool { return o.Resource == b.Resource && o.Role == b.Role })
	if len(b.Members) > 0 {
		d.bindings = append(d.bindings, b)
	}
	return nil
}

// canonical is a resource with the number of its project.
func (d *Directory) canonical(resource string) string {
	parts := strings.Split(resource, "/")
	if len(parts) >= 2 && parts[0] == "projects" && parts[1] != "-" {
		parts[1] = d.Number(parts[1])
	}
	return strings.Join(parts, "/")
}

// Allowed tells whether the bearer of a token has a permission on a resource: by a
// binding of the resource itself, or of one that it is in.
func (d *Directory) Allowed(t Token, permission, resource string) bool {
	resource = d.canonical(resource)
	within := []string{resource}
	if email, ok := strings.CutPrefix(resource, serviceAccounts); ok {
		within = append(within, d.canonical("projects/"+projectOf(email)))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.ContainsFunc(d.bindings, func(b control.Binding) bool {
		return slices.Contains(b.Permissions, permission) &&
			slices.ContainsFunc(within, func(r string) bool { return r == b.Resource || strings.HasPrefix(r, b.Resource+"/") }) &&
			slices.ContainsFunc(b.Members, func(m string) bool { return m == allAuthenticated || slices.Contains(t.Members, m) })
	})
}

// allAuthenticated is the member that everybody with a token is.
const allAuthenticated = "allAuthenticatedUsers"

// newID makes up a long number.
func newID() string {
	raw := make([]byte, 8)
	_, _ = rand.Read(raw) // never fails
	return fmt.Sprintf("1%020d", binary.BigEndian.Uint64(raw))
}
