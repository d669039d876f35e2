// Package secretmanager answers as Secret Manager does, global and regional.
package secretmanager

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/postern-dev/postern/test/gcp/control"
	"github.com/postern-dev/postern/test/gcp/iam"
	"github.com/postern-dev/postern/test/gcp/resource"
)

// maxPayload is the most that a version may hold.
const maxPayload = 64 << 10

// Store knows the secrets.
//
// Invariants:
//  1. Versions are numbered from 1 without a gap; none is removed alone.
//  2. A version that is destroyed has no contents, and stays destroyed.
//  3. Names have the numbers of projects.
type Store struct {
	now       func() time.Time
	directory *iam.Directory

	mu       sync.Mutex
	secrets  map[string]*secret // by name
	pageSize int
	changes  int64 // how often something changed, for etags
}

type secret struct {
	name     resource.Name
	created  time.Time
	labels   map[string]string
	aliases  map[string]int64
	etag     string
	versions []*version
}

type version struct {
	number             int64
	state, etag        string
	created, destroyed time.Time
	contents           []byte
}

// New returns one without secrets.
func New(now func() time.Time, directory *iam.Directory) *Store {
	s := &Store{now: now, directory: directory}
	s.Reset()
	return s
}

// Reset forgets everything.
func (s *Store) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.secrets, s.pageSize = map[string]*secret{}, 0
}

// SetPageSize says how many entries a page has at most.
func (s *Store) SetPageSize(size int) error {
	if size < 0 {
		return fmt.Errorf("pageSize %d, want 0 or more", size)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pageSize = size
	return nil
}

// canonical is a name with the project's number.
func (s *Store) canonical(n resource.Name) resource.Name {
	n.Project = s.directory.Number(n.Project)
	return n
}

// Put adds a version, or changes one, or only the secret.
func (s *Store) Put(p control.Secret) (control.AppliedSecret, error) {
	n, ok := resource.Parse(p.Name)
	if !ok || n.Collection != resource.Secrets || n.Version != "" {
		return control.AppliedSecret{}, fmt.Errorf("%q is not the name of a secret", p.Name)
	}
	if p.Value != nil {
		p.Data = []byte(*p.Value)
	}
	if len(p.Data) > maxPayload {
		return control.AppliedSecret{}, fmt.Errorf("secret %s: more than %d bytes", p.Name, maxPayload)
	}
	n = s.canonical(n)
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := s.secrets[n.String()]
	if kept == nil {
		kept = &secret{name: n, created: s.now()}
		s.secrets[n.String()] = kept
	}
	if p.Labels != nil {
		kept.labels = maps.Clone(p.Labels)
	}
	if p.Aliases != nil {
		kept.aliases = maps.Clone(p.Aliases)
	}
	kept.etag = s.newETag()
	v, err := s.putVersion(kept, p)
	if err != nil {
		return control.AppliedSecret{}, fmt.Errorf("secret %s: %w", p.Name, err)
	}
	if v == nil {
		return control.AppliedSecret{Name: n.String()}, nil
	}
	n.Version = strconv.FormatInt(v.number, 10)
	return control.AppliedSecret{Name: n.String(), Version: v.number}, nil
}

// putVersion adds a version if it has contents, else changes one if its state is
// said. It returns the version that it is about, if there is one.
func (s *Store) putVersion(kept *secret, p control.Secret) (*version, error) {
	if p.Value != nil || p.Data != nil {
		if p.Version != 0 {
			return nil, errors.New("the contents of a version cannot be changed")
		}
		kept.versions = append(kept.versions, &version{
			number: int64(len(kept.versions)) + 1, state: control.Enabled, created: s.now(), contents: slices.Clone(p.Data),
		})
	}
	v := kept.version(p.Version)
	if v == nil && p.Version == 0 && p.State == "" {
		return nil, nil //nolint:nilnil // there is no version, and none is wanted
	}
	if v == nil {
		return nil, errors.New("there is no such version")
	}
	v.etag = s.newETag()
	return v, s.setState(v, p.State)
}

func (s *Store) setState(v *version, state string) error {
	switch {
	case state == "" || state == v.state:
		return nil
	case v.state == control.Destroyed:
		return errors.New("a version that is destroyed stays so")
	case state == control.Destroyed:
		v.contents, v.destroyed = nil, s.now()
	case state != control.Enabled && state != control.Disabled:
		return fmt.Errorf("unknown state %q", state)
	}
	v.state = state
	return nil
}

// Delete removes a secret.
func (s *Store) Delete(name string) bool {
	n, ok := resource.Parse(name)
	if !ok {
		return false
	}
	key := s.canonical(n).String()
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok = s.secrets[key]
	delete(s.secrets, key)
	return ok
}

func (s *Store) newETag() string {
	s.changes++
	return `"` + strconv.FormatInt(s.changes, 16) + `"`
}

// version returns one by its number; 0 is the newest.
func (k *secret) version(number int64) *version {
	if number == 0 {
		number = int64(len(k.versions))
	}
	if number < 1 || number > int64(len(k.versions)) {
		return nil
	}
	return k.versions[number-1]
}

// find returns the version that a name means: the newest, a number or an alias.
func (k *secret) find(name string) *version {
	if name == resource.Latest {
		return k.version(0)
	}
	if number, ok := k.aliases[name]; ok {
		return k.version(number)
	}
	number, err := strconv.ParseInt(name, 10, 64)
	if err != nil || number == 0 {
		return nil
	}
	return k.version(number)
}
