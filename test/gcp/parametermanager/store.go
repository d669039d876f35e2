// Package parametermanager answers as Parameter Manager does, global and regional.
package parametermanager

import (
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/postern-dev/postern/test/gcp/control"
	"github.com/postern-dev/postern/test/gcp/iam"
	"github.com/postern-dev/postern/test/gcp/resource"
)

// Global is the location of global parameters.
const Global = "global"

// maxPayload is the most that a version may hold.
const maxPayload = 1 << 20

// Secrets reads the secrets that parameters refer to.
type Secrets interface {
	Value(bearer iam.Token, n resource.Name) ([]byte, error)
}

// Store knows the parameters.
//
// Invariants:
//  1. The contents of a version never change.
//  2. Names have the numbers of projects; shown is the name as it was put first.
type Store struct {
	now       func() time.Time
	directory *iam.Directory
	secrets   Secrets

	mu         sync.Mutex
	parameters map[string]*parameter // by name
}

type parameter struct {
	name, shown resource.Name
	uid, format string
	created     time.Time
	labels      map[string]string
	versions    map[string]*version
}

type version struct {
	created, updated time.Time
	disabled         bool
	contents         []byte
}

// New returns one without parameters.
func New(now func() time.Time, directory *iam.Directory, secrets Secrets) *Store {
	s := &Store{now: now, directory: directory, secrets: secrets}
	s.Reset()
	return s
}

// Reset forgets everything.
func (s *Store) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.parameters = map[string]*parameter{}
}

func (s *Store) canonical(n resource.Name) resource.Name {
	n.Project = s.directory.Number(n.Project)
	return n
}

// Put adds a version, or changes one, or only the parameter.
func (s *Store) Put(p control.Parameter) (control.AppliedParameter, error) {
	n, ok := resource.Parse(p.Name)
	if !ok || n.Collection != resource.Parameters || n.Version != "" {
		return control.AppliedParameter{}, fmt.Errorf("%q is not the name of a parameter", p.Name)
	}
	if p.Value != nil {
		p.Data = []byte(*p.Value)
	}
	if len(p.Data) > maxPayload {
		return control.AppliedParameter{}, fmt.Errorf("parameter %s: more than %d bytes", p.Name, maxPayload)
	}
	key := s.canonical(n)
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := s.parameters[key.String()]
	if kept == nil {
		kept = &parameter{name: key, shown: n, uid: strings.ToLower(rand.Text()), created: s.now(), versions: map[string]*version{}}
	}
	if err := s.change(kept, p); err != nil {
		return control.AppliedParameter{}, fmt.Errorf("parameter %s: %w", p.Name, err)
	}
	s.parameters[key.String()] = kept
	n.Version = p.Version
	return control.AppliedParameter{Name: n.String(), PolicyMember: kept.members()[0]}, nil
}

func (s *Store) change(kept *parameter, p control.Parameter) error {
	switch {
	case !slices.Contains([]string{"", control.Unformatted, control.JSON, control.YAML}, p.Format):
		return fmt.Errorf("unknown format %q", p.Format)
	case kept.format != "" && p.Format != "" && p.Format != kept.format:
		return errors.New("the format of a parameter cannot be changed")
	case p.Version == "" && (p.Value != nil || p.Data != nil || p.Disabled != nil):
		return errors.New("say which version")
	}
	v := kept.versions[p.Version]
	switch {
	case p.Version == "":
	case v == nil && p.Value == nil && p.Data == nil:
		return errors.New("there is no such version")
	case v == nil:
		v = &version{created: s.now(), updated: s.now(), contents: p.Data}
		kept.versions[p.Version] = v
	case p.Value != nil || p.Data != nil:
		return errors.New("the contents of a version cannot be changed")
	}
	if kept.format == "" {
		kept.format = control.Unformatted
	}
	if p.Format != "" {
		kept.format = p.Format
	}
	if p.Labels != nil {
		kept.labels = maps.Clone(p.Labels)
	}
	if v != nil && p.Disabled != nil {
		v.disabled, v.updated = *p.Disabled, s.now()
	}
	return nil
}

// Delete removes a parameter, or a version.
func (s *Store) Delete(name string) bool {
	n, ok := resource.Parse(name)
	if !ok {
		return false
	}
	n = s.canonical(n)
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := s.parameters[n.Parent().String()]
	if kept == nil {
		return false
	}
	if n.Version == "" {
		delete(s.parameters, n.String())
		return true
	}
	_, ok = kept.versions[n.Version]
	delete(kept.versions, n.Version)
	return ok
}

// members are the names of the parameter itself in bindings.
func (k *parameter) members() []string {
	prefix := "principal://parametermanager.googleapis.com/projects/" + k.name.Project
	return []string{
		prefix + "/name/locations/" + k.name.Location + "/parameters/" + k.name.ID,
		prefix + "/uid/locations/" + k.name.Location + "/parameters/" + k.uid,
	}
}
