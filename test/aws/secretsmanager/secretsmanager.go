// Package secretsmanager answers as AWS Secrets Manager does where secrets are
// read: versions and stages, deletion, replicas, filters and pages.
package secretsmanager

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/postern-dev/postern/test/aws/api"
	"github.com/postern-dev/postern/test/aws/control"
	"github.com/postern-dev/postern/test/aws/iam"
)

// Stages that Secrets Manager moves itself.
const (
	Current  = "AWSCURRENT"
	Previous = "AWSPREVIOUS"
)

// Config is what a Service needs.
type Config struct {
	Partition, Account string
	Directory          *iam.Directory
	Now                func() time.Time
}

// Service holds the secrets of all regions and accounts.
//
// Invariants:
//  1. A stage is at one version of a secret at most.
//  2. A replica has the versions, the stages and the suffix of its primary.
//  3. A name stands for one secret in a region and account.
type Service struct {
	cfg Config

	mu       sync.Mutex
	secrets  map[key]*secret
	pageSize int
}

type key struct{ account, region, name string }

type secret struct {
	key
	arn         string
	suffix      string
	versions    []*version // as they were made
	tags        map[string]string
	description string
	kmsKeyID    string
	kms         string
	primary     string // region of the primary; "" if there are no replicas
	replicas    []string
	policy      *iam.Policy
	details     map[string]any

	created, changed time.Time
	deleted          time.Time
}

type version struct {
	id      string
	text    *string
	binary  []byte
	stages  []string
	created time.Time
}

// New returns an empty service.
func New(cfg Config) *Service { return &Service{cfg: cfg, secrets: map[key]*secret{}} }

// Reset forgets everything.
func (s *Service) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.secrets, s.pageSize = map[key]*secret{}, 0
}

// SetPageSize bounds the entries of a page; 0 is AWS' own bound.
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
	case "GetSecretValue":
		return s.getSecretValue(c)
	case "BatchGetSecretValue":
		return s.batchGetSecretValue(c)
	case "DescribeSecret":
		return s.describeSecret(c)
	case "ListSecrets":
		return s.listSecrets(c)
	default:
		return nil, &api.Error{Status: http.StatusNotFound, Code: "UnknownOperationException"}
	}
}

// Delete removes a secret at once, and its replicas.
func (s *Service) Delete(account, region, name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := key{cmp.Or(account, s.cfg.Account), region, name}
	found := s.secrets[k]
	if found == nil {
		return false
	}
	delete(s.secrets, k)
	for _, replica := range found.replicas {
		delete(s.secrets, key{k.account, replica, name})
	}
	return true
}

// Apply puts a version of a secret, or what else changes of it.
func (s *Service) Apply(c control.Secret) (control.AppliedSecret, error) {
	if c.Region == "" || c.Name == "" {
		return control.AppliedSecret{}, errors.New("a secret needs a region and a name")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	put := s.secrets[key{cmp.Or(c.Account, s.cfg.Account), c.Region, c.Name}]
	if put == nil {
		put = s.create(c)
	}
	if put.primary != "" && put.primary != put.region {
		return control.AppliedSecret{}, fmt.Errorf("secret %s in %s is a replica: change it in %s", c.Name, c.Region, put.primary)
	}
	if err := put.change(c, s.cfg.Now()); err != nil {
		return control.AppliedSecret{}, fmt.Errorf("secret %s: %w", c.Name, err)
	}
	id, err := put.putVersion(c, cmp.Or(c.Created, s.cfg.Now()))
	if err != nil {
		return control.AppliedSecret{}, fmt.Errorf("secret %s: %w", c.Name, err)
	}
	s.secrets[put.key] = put
	s.replicate(put)
	return control.AppliedSecret{Region: c.Region, Name: c.Name, ARN: put.arn, VersionID: id}, nil
}

func (s *Service) create(c control.Secret) *secret {
	made := &secret{
		key:     key{cmp.Or(c.Account, s.cfg.Account), c.Region, c.Name},
		suffix:  cmp.Or(c.Suffix, rand.Text()[:6]),
		created: s.cfg.Now(), tags: map[string]string{}, details: map[string]any{},
	}
	made.arn = s.nameARN(made.key) + "-" + made.suffix
	return made
}

// nameARN is the ARN of a name, without the six characters at its end.
func (s *Service) nameARN(k key) string {
	return "arn:" + s.cfg.Partition + ":secretsmanager:" + k.region + ":" + k.account + ":secret:" + k.name
}

// change changes all that is said but the versions.
func (s *secret) change(c control.Secret, now time.Time) error {
	if len(c.ResourcePolicy) != 0 {
		policy, err := iam.ParseResourcePolicy(c.ResourcePolicy)
		if err != nil {
			return err
		}
		s.policy = policy
	}
	if c.Deleted != nil {
		s.deleted = time.Time{}
		if *c.Deleted {
			s.deleted = now
		}
	}
	if c.KMS != nil {
		s.kms = *c.KMS
	}
	if c.Tags != nil {
		s.tags = maps.Clone(c.Tags)
	}
	if c.Replicas != nil {
		s.replicas, s.primary = slices.Clone(c.Replicas), s.region
	}
	maps.Copy(s.details, c.Details)
	s.description = cmp.Or(c.Description, s.description)
	s.kmsKeyID = cmp.Or(c.KMSKeyID, s.kmsKeyID)
	s.changed = cmp.Or(c.Created, now)
	return nil
}

// putVersion adds a version, or moves stages to one that is there.
func (s *secret) putVersion(c control.Secret, created time.Time) (string, error) {
	if c.String == nil && c.Binary == nil {
		if c.Stages == nil {
			return c.VersionID, nil
		}
		if s.version(c.VersionID) == nil {
			return "", fmt.Errorf("no version %q to move the stages to", c.VersionID)
		}
		s.stage(c.VersionID, c.Stages)
		return c.VersionID, nil
	}
	if c.String != nil && c.Binary != nil {
		return "", errors.New("string and binary exclude each other")
	}
	id := cmp.Or(c.VersionID, newVersionID())
	v := s.version(id)
	if v == nil {
		v = &version{id: id, created: created}
		s.versions = append(s.versions, v)
	}
	v.text, v.binary = c.String, c.Binary
	stages := c.Stages
	if stages == nil {
		stages = []string{Current}
	}
	s.stage(id, stages)
	return id, nil
}

// stage puts stages to a version. What loses AWSCURRENT gets AWSPREVIOUS, unless
// that is moved too.
func (s *secret) stage(id string, stages []string) {
	for _, name := range stages {
		from := s.staged(name)
		s.unstage(name)
		if name == Current && from != nil && from.id != id && !slices.Contains(stages, Previous) {
			s.unstage(Previous)
			from.stages = append(from.stages, Previous)
		}
		to := s.version(id)
		to.stages = append(to.stages, name)
	}
}

func (s *secret) unstage(name string) {
	for _, v := range s.versions {
		v.stages = slices.DeleteFunc(slices.Clone(v.stages), func(stage string) bool { return stage == name })
	}
}

func (s *secret) version(id string) *version {
	i := slices.IndexFunc(s.versions, func(v *version) bool { return v.id == id })
	if i < 0 {
		return nil
	}
	return s.versions[i]
}

func (s *secret) staged(stage string) *version {
	i := slices.IndexFunc(s.versions, func(v *version) bool { return slices.Contains(v.stages, stage) })
	if i < 0 {
		return nil
	}
	return s.versions[i]
}

// replicate makes the replicas what the primary is.
func (s *Service) replicate(primary *secret) {
	for _, region := range primary.replicas {
		replica := *primary
		replica.region = region
		replica.arn = s.nameARN(replica.key) + "-" + replica.suffix
		replica.replicas = nil
		replica.versions = make([]*version, len(primary.versions))
		for i, v := range primary.versions {
			clone := *v
			replica.versions[i] = &clone
		}
		s.secrets[replica.key] = &replica
	}
}

// newVersionID makes a UUID.
func newVersionID() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // it never fails
	h := hex.EncodeToString(b)
	return strings.Join([]string{h[:8], h[8:12], h[12:16], h[16:20], h[20:]}, "-")
}
