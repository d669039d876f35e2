// Package ssm answers as the Parameter Store of AWS Systems Manager does where
// parameters are read: versions, labels, SecureStrings, filters and pages.
package ssm

import (
	"cmp"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/postern-dev/postern/test/aws/api"
	"github.com/postern-dev/postern/test/aws/control"
	"github.com/postern-dev/postern/test/aws/iam"
)

// Types of parameters.
const (
	text         = "String"
	secureString = "SecureString"
)

// Config is what a Service needs.
type Config struct {
	Partition, Account string
	Directory          *iam.Directory
	Now                func() time.Time
}

// Service holds the parameters of all regions and accounts.
//
// Invariants:
//  1. A parameter's versions are numbered from 1, without a gap.
//  2. A label is at one version of a parameter at most.
type Service struct {
	cfg Config

	mu         sync.Mutex
	parameters map[key]*parameter
	pageSize   int
}

type key struct{ account, region, name string }

type parameter struct {
	key
	arn         string
	versions    []*version // the first is version 1
	tags        map[string]string
	description string
	keyID       string
	dataType    string
	kms         string
}

type version struct {
	number     int64
	value      string
	ciphertext string
	kind       string
	labels     []string
	modified   time.Time
}

// New returns an empty service.
func New(cfg Config) *Service { return &Service{cfg: cfg, parameters: map[key]*parameter{}} }

// Reset forgets everything.
func (s *Service) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.parameters, s.pageSize = map[key]*parameter{}, 0
}

// SetPageSize bounds what is looked at for a page; 0 is AWS' own bound.
func (s *Service) SetPageSize(size int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pageSize = size
}

// Serve answers a call.
func (s *Service) Serve(c api.Call) (api.Answer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch c.Operation {
	case "GetParameters":
		return s.getParameters(c)
	case "GetParameter":
		return s.getParameter(c)
	case "DescribeParameters":
		return s.describeParameters(c)
	default:
		return nil, &api.Error{Status: http.StatusNotFound, Code: "UnknownOperationException"}
	}
}

// Delete removes a parameter.
func (s *Service) Delete(account, region, name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := key{cmp.Or(account, s.cfg.Account), region, name}
	_, ok := s.parameters[k]
	delete(s.parameters, k)
	return ok
}

// Apply puts a version of a parameter, or what else changes of it.
func (s *Service) Apply(c control.Parameter) (control.AppliedParameter, error) {
	if c.Region == "" || !validName(c.Name) {
		return control.AppliedParameter{}, fmt.Errorf("parameter %q needs a region and a valid name", c.Name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k := key{cmp.Or(c.Account, s.cfg.Account), c.Region, c.Name}
	put := s.parameters[k]
	if put == nil {
		if c.Value == nil {
			return control.AppliedParameter{}, fmt.Errorf("parameter %s: no value", c.Name)
		}
		put = &parameter{key: k, arn: s.arn(k), tags: map[string]string{}}
	}
	number, err := put.putVersion(c, s.cfg.Now())
	if err != nil {
		return control.AppliedParameter{}, fmt.Errorf("parameter %s: %w", c.Name, err)
	}
	put.change(c)
	s.parameters[k] = put
	return control.AppliedParameter{Region: c.Region, Name: c.Name, ARN: put.arn, Version: number}, nil
}

func (s *Service) arn(k key) string {
	return "arn:" + s.cfg.Partition + ":ssm:" + k.region + ":" + k.account + ":parameter/" + strings.TrimPrefix(k.name, "/")
}

func (p *parameter) change(c control.Parameter) {
	if c.Tags != nil {
		p.tags = maps.Clone(c.Tags)
	}
	if c.KMS != nil {
		p.kms = *c.KMS
	}
	p.description = cmp.Or(c.Description, p.description)
	p.keyID = cmp.Or(c.KeyID, p.keyID, "alias/aws/ssm")
	p.dataType = cmp.Or(c.DataType, p.dataType, "text")
}

// putVersion adds a version, or puts labels to one that is there.
func (p *parameter) putVersion(c control.Parameter, now time.Time) (int64, error) {
	if c.Value != nil {
		if c.Version != 0 {
			return 0, errors.New("a new version gets its number by itself")
		}
		kind := cmp.Or(c.Type, text)
		if len(p.versions) != 0 && c.Type == "" {
			kind = p.latest().kind
		}
		p.versions = append(p.versions, &version{
			number: int64(len(p.versions) + 1), value: *c.Value, ciphertext: ciphertext(), kind: kind, modified: now,
		})
	}
	v := p.latest()
	if c.Version != 0 {
		if v = p.version(c.Version); v == nil {
			return 0, fmt.Errorf("no version %d", c.Version)
		}
	}
	for _, label := range c.Labels {
		for _, other := range p.versions {
			other.labels = slices.DeleteFunc(other.labels, func(l string) bool { return l == label })
		}
		v.labels = append(v.labels, label)
	}
	return v.number, nil
}

// ciphertext is what a SecureString looks like without decryption. It says
// nothing of the value.
func ciphertext() string {
	b := make([]byte, 96)
	_, _ = rand.Read(b) // it never fails
	return "AQICAH" + base64.StdEncoding.EncodeToString(b)
}

func (p *parameter) latest() *version { return p.versions[len(p.versions)-1] }

func (p *parameter) version(number int64) *version {
	if number < 1 || number > int64(len(p.versions)) {
		return nil
	}
	return p.versions[number-1]
}

// choose finds the version of a selector: a number, a label, or "" for the latest.
func (p *parameter) choose(selector string) *version {
	if selector == "" {
		return p.latest()
	}
	if number, err := strconv.ParseInt(selector, 10, 64); err == nil {
		return p.version(number)
	}
	i := slices.IndexFunc(p.versions, func(v *version) bool { return slices.Contains(v.labels, selector) })
	if i < 0 {
		return nil
	}
	return p.versions[i]
}
