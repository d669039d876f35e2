// Package store reads from Secret Manager and Parameter Manager, global and
// regional, by gRPC.
//
// It uses Google's generated messages and stubs, and a connection of its own for
// each endpoint, which all identities share: each request brings its own
// credentials. What the services send is checked before anybody gets it, against its
// checksum and against the name that was asked for. Which version there is can be
// asked without contents, for refreshes that change nothing.
package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/postern-dev/postern/providers/gcp/internal/params"
	"github.com/postern-dev/postern/providers/sdk"
)

// defaultConcurrency is how many requests one call has under way at most.
const defaultConcurrency = 8

// Config is what a Store needs.
type Config struct {
	// DialOptions are added to those of each connection: tracing, a user agent.
	DialOptions []grpc.DialOption
	// Concurrency is how many requests one call has under way at most. Zero: 8.
	Concurrency int
	// Logger may be nil.
	Logger *slog.Logger
}

// As is whom to read as. It prints without its credentials.
type As struct {
	// Credentials give the access token of each request.
	Credentials credentials.PerRPCCredentials `json:"-"`
	// Identity stands for whom they are of. What that may not do is remembered by it.
	Identity string
}

// Format prints the identity alone, whatever the verb.
func (a As) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "As(%q)", a.Identity) }

// LogValue is the identity alone.
func (a As) LogValue() slog.Value { return slog.StringValue(a.Identity) }

// Ref is one version of a secret or of a parameter.
type Ref struct {
	Kind params.Kind
	// Resource is the full name of the version.
	Resource string
	// Location is where the endpoint is; "" for the global one.
	Location string
}

// Answer is what the store holds of a Ref.
type Answer struct {
	Ref Ref
	// Version is a secret's number or the id of a parameter's version, "@", and what
	// stands for the contents: a secret that is made anew counts from 1 again, and what
	// a parameter embeds changes without its version. It tells nothing of the contents.
	Version string
	// Resource is the full name of that version, as the service spells it.
	Resource string
	// Contents are the version's. Answers of equal Refs share them.
	Contents sdk.Secret
	// Err is why there is nothing of this Ref: an [*Error], or nil.
	Err error
}

// Store reads from both services, of all locations, for all identities.
//
// Its invariants:
//  1. A request bears the credentials of the As that a call was given, and goes to
//     the endpoint of the Ref's kind and location, and to no other.
//  2. An answer is given to the Ref whose names it carries, and only if its checksum
//     is right. Parameter Manager sends none.
//  3. A call has at most Concurrency requests under way, and none when it has ended.
//  4. What it keeps is bounded, and is neither contents nor credentials: connections,
//     what identities may not do, and which versions were read.
type Store struct {
	endpoints   *endpoints
	refusals    *refusals
	proofs      *proofs
	concurrency int
	logger      *slog.Logger
}

// New returns a Store. It makes no connection. Whoever has no more use for it closes
// it.
func New(cfg Config) *Store {
	if cfg.Concurrency <= 0 {
		cfg.Concurrency = defaultConcurrency
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Store{
		endpoints:   newEndpoints(cfg.DialOptions),
		refusals:    newRefusals(),
		proofs:      newProofs(),
		concurrency: cfg.Concurrency,
		logger:      cfg.Logger,
	}
}

// Close closes all connections. What is under way fails.
func (s *Store) Close() { s.endpoints.close() }

// Read reads all, each distinct Ref once. Answers are in the order of refs. The
// error is that ctx ended.
func (s *Store) Read(ctx context.Context, as As, refs []Ref) ([]Answer, error) {
	distinct, place := distinctOf(refs)
	found := make([]Answer, len(distinct))
	s.each(ctx, len(distinct), func(i int) { found[i] = s.read(ctx, as, distinct[i]) })
	if err := endedAs(ctx, "read from Google Cloud"); err != nil {
		return nil, err
	}
	answers := make([]Answer, len(refs))
	for i, ref := range refs {
		answers[i] = found[place[ref]]
	}
	return answers, nil
}

// Versions tells which versions Read would answer with, in the order of refs, and
// moves no contents to find out. Of what is not there the version is "". ok is false
// where that cannot be told: Read says what is wrong, if anything is. The error is
// that ctx ended.
//
// It cannot be told of parameters, as what is embedded in them has versions of its
// own, nor by an identity without the permission secretmanager.versions.get, nor of a
// version that the Store has not read since Google first told it of that.
func (s *Store) Versions(ctx context.Context, as As, refs []Ref) (versions []string, ok bool, err error) {
	distinct, place := distinctOf(refs)
	for _, ref := range distinct {
		if ref.Kind != params.Secret || s.refusals.have(as.Identity, projectOf(ref)) {
			return nil, false, endedAs(ctx, "ask Google Cloud for versions")
		}
	}
	found, ok := s.askVersions(ctx, as, distinct)
	if err := endedAs(ctx, "ask Google Cloud for versions"); err != nil || !ok {
		return nil, false, err
	}
	versions = make([]string, len(refs))
	for i, ref := range refs {
		versions[i] = found[place[ref]]
	}
	return versions, true, nil
}

// askVersions asks for all, until one cannot be told. Of those that have to be read
// first all are asked for: what Google tells of them now counts when they were.
func (s *Store) askVersions(ctx context.Context, as As, refs []Ref) ([]string, bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	found := make([]string, len(refs))
	var unread atomic.Bool
	s.each(ctx, len(refs), func(i int) {
		version, err := s.version(ctx, as, refs[i])
		switch {
		case errors.Is(err, errUnread):
			unread.Store(true)
		case err != nil:
			cancel()
		}
		found[i] = version
	})
	return found, ctx.Err() == nil && !unread.Load()
}

// List finds secrets by labels and name, and returns their names, sorted. More than
// the selection's limit are not all found: one more says that there are too many. The
// error is an [*Error], or that ctx ended.
func (s *Store) List(ctx context.Context, as As, sel *params.Select) ([]string, error) {
	names, failure := s.list(ctx, as, sel)
	if err := endedAs(ctx, "list secrets of Google Cloud"); err != nil {
		return nil, err
	}
	if failure != nil {
		return nil, failure
	}
	return names, nil
}

// distinctOf returns the refs, each once, in order, and where each is.
func distinctOf(refs []Ref) ([]Ref, map[Ref]int) {
	distinct := make([]Ref, 0, len(refs))
	place := make(map[Ref]int, len(refs))
	for _, ref := range refs {
		if _, seen := place[ref]; !seen {
			place[ref] = len(distinct)
			distinct = append(distinct, ref)
		}
	}
	return distinct, place
}

// endedAs is the error of a call whose ctx has ended.
func endedAs(ctx context.Context, did string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w", did, err)
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
