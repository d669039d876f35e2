// Package store reads from AWS Secrets Manager and the SSM Parameter Store, of
// one region at a time, with as few requests as the services allow.
//
// Secrets are read twenty at a time where the identity may do so, parameters ten
// at a time. What one object's failure says is never taken for another's: where
// a request for several is refused, each is asked for alone. Which versions there
// are can be asked without contents, for refreshes that change nothing.
package store

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/postern-dev/postern/providers/aws/internal/params"
	"github.com/postern-dev/postern/providers/sdk"
)

// defaultConcurrency is how many requests one call has under way at most.
const defaultConcurrency = 8

// Config is what a Store needs.
type Config struct {
	// AWS says how to reach AWS: HTTP client, endpoints, FIPS, retries. Its
	// credentials and its region are not used.
	AWS aws.Config
	// Concurrency is how many requests one call has under way at most. Zero: 8.
	Concurrency int
	// Logger may be nil.
	Logger *slog.Logger
}

// Region is where to read, and as whom.
type Region struct {
	Name        string
	Credentials aws.CredentialsProvider
	// Identity stands for whom the credentials are of. What it may not do is
	// remembered by it.
	Identity string
}

// Ref is one object, in one version: of the Source's Version or Label, or else
// the current one.
type Ref struct {
	Service params.Service
	params.Source
}

// Answer is what the store holds of a Ref.
type Answer struct {
	Ref Ref
	// Version is a secret's version id, or a parameter's number with its time, such
	// as 3@2026-01-02T15:04:05.678Z.
	Version string
	// Name is the object's own, also where the Ref has an ARN.
	Name string
	// Contents are the object's. Answers of equal Refs share them.
	Contents sdk.Secret
	// Err is why there is nothing of this object: an [*Error], or nil.
	Err error
}

// Item is an object that a selection matches.
type Item struct {
	// ID is what a Ref of the object takes: a secret's ARN, a parameter's name.
	ID   string
	Name string
	// Version is the current one. A list of secrets may lag behind by five
	// minutes. Empty for a secret that has no contents yet.
	Version string
}

// Store reads from both services, of all regions, for all identities.
//
// Its invariants:
//  1. A request is signed with the credentials of the Region that a call was
//     given, and with no others.
//  2. An answer is given to the Ref whose name or ARN, and label or version, it
//     carries; never by its place, and never by a name that two objects of one
//     request could have.
//  3. A call has at most Concurrency requests under way.
//  4. What it keeps is bounded, and is neither contents nor credentials: clients
//     of regions, and what identities may not do.
type Store struct {
	clients     *clients
	refusals    *refusals
	concurrency int
	logger      *slog.Logger
}

// New returns a Store. It makes no request.
func New(cfg Config) *Store {
	if cfg.Concurrency <= 0 {
		cfg.Concurrency = defaultConcurrency
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Store{
		clients:     newClients(cfg.AWS),
		refusals:    newRefusals(),
		concurrency: cfg.Concurrency,
		logger:      cfg.Logger,
	}
}

// Read reads all, each distinct Ref once. Answers are in the order of refs. The
// error is that ctx ended.
func (s *Store) Read(ctx context.Context, region Region, refs []Ref) ([]Answer, error) {
	found := make(map[Ref]Answer, len(refs))
	if c, err := s.caller(ctx, region); err != nil {
		for _, ref := range refs {
			found[ref] = Answer{Err: err.about(ref)}
		}
	} else {
		distinct := distinctOf(refs)
		s.read(ctx, c, planReads(distinct, c.mayBatch), found)
		s.read(ctx, c, alone(distinct, found), found)
	}
	if err := endedAs(ctx, "read from", region); err != nil {
		return nil, err
	}
	answers := make([]Answer, len(refs))
	for i, ref := range refs {
		answers[i] = found[ref]
		answers[i].Ref = ref
	}
	return answers, nil
}

// read does the requests of a plan, and puts into found what they tell. Refs that
// a request for several does not decide stay out of it.
func (s *Store) read(ctx context.Context, c *caller, plan [][]Ref, found map[Ref]Answer) {
	var mu sync.Mutex
	s.each(ctx, len(plan), func(i int) {
		for ref, answer := range c.read(ctx, plan[i]) {
			mu.Lock()
			found[ref] = answer
			mu.Unlock()
		}
	})
}

// Versions tells which versions Read would answer with, in the order of refs, and
// moves nothing to find out that is kept encrypted; what Parameter Store keeps in
// plain text comes along, and is dropped. Of what is not there the version is "".
// ok is false where that cannot be told: Read says what is wrong. The error is that
// ctx ended.
func (s *Store) Versions(ctx context.Context, region Region, refs []Ref) (versions []string, ok bool, err error) {
	known := make(map[Ref]string, len(refs))
	if plan := planVersions(distinctOf(refs), known); len(plan) > 0 {
		c, failure := s.caller(ctx, region)
		if failure != nil || !s.askVersions(ctx, c, plan, known) {
			return nil, false, endedAs(ctx, "ask for versions in", region)
		}
	}
	versions = make([]string, len(refs))
	for i, ref := range refs {
		versions[i] = known[ref]
	}
	return versions, true, nil
}

// askVersions does the requests of a plan, until one fails.
func (s *Store) askVersions(ctx context.Context, c *caller, plan [][]Ref, known map[Ref]string) bool {
	for _, refs := range plan {
		if refs[0].Service == params.SecretsManager && !c.mayDescribe(refs[0].ID) {
			return false
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var mu sync.Mutex
	s.each(ctx, len(plan), func(i int) {
		versions, ok := c.versions(ctx, plan[i])
		if !ok {
			cancel()
			return
		}
		mu.Lock()
		defer mu.Unlock()
		for ref, version := range versions {
			known[ref] = version
		}
	})
	return ctx.Err() == nil
}

// List finds objects by name and tags, without contents, ordered by name. More
// than the selection's limit are not all found: the list ends with the first
// beyond. The error is an [*Error], or that ctx ended.
func (s *Store) List(ctx context.Context, region Region, service params.Service, sel *params.Select) ([]Item, error) {
	var items []Item
	c, failure := s.caller(ctx, region)
	if failure == nil {
		items, failure = c.list(ctx, service, sel)
	}
	if err := endedAs(ctx, "list objects of", region); err != nil {
		return nil, err
	}
	if failure != nil {
		return nil, failure
	}
	return items, nil
}

// endedAs is the error of a call whose ctx has ended.
func endedAs(ctx context.Context, did string, region Region) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s %s: %w", did, region.Name, err)
	}
	return nil
}

// each does do for each number below n, at most so many at a time as a call may
// have requests under way. When ctx ends it starts no more.
func (s *Store) each(ctx context.Context, n int, do func(i int)) {
	var running sync.WaitGroup
	defer running.Wait()
	slots := make(chan struct{}, s.concurrency)
	for i := range n {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		running.Go(func() {
			defer func() { <-slots }()
			do(i)
		})
	}
}
