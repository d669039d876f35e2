// Package keyvault reads secrets, keys and certificates of one Azure Key Vault at a
// time, with as few requests as the service allows.
//
// A vault has no requests for several objects, and none that tells a version
// without its contents, so each object is one request. What can be saved is saved:
// equal objects are read once, versions are listed only for a history, and a vault
// is asked for its challenge once for each login and type. Names and times come
// from the vault, what they mean for a pod is not known here.
package keyvault

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"

	"github.com/postern-dev/postern/providers/azure/internal/params"
)

const (
	// defaultConcurrency is how many requests a vault gets at a time at most.
	defaultConcurrency = 8
	// defaultMaxClients is how many clients are kept at most.
	defaultMaxClients = 1000
)

// Config is what a Store needs.
type Config struct {
	// ClientOptions say how to reach vaults. Retries are the Store's own.
	ClientOptions azcore.ClientOptions
	// Concurrency is how many requests one vault gets at a time at most, of all
	// calls. Zero: 8.
	Concurrency int
	// MaxClients is how many clients are kept: one for each vault, identity and type
	// of object. Zero: 1000.
	MaxClients int
	// InclusiveHistory reads one version more than a history asks for, if there is
	// one more.
	InclusiveHistory bool
	// Logger may be nil.
	Logger *slog.Logger
}

// Vault is where to read, and as whom.
type Vault struct {
	// URL is the vault's, such as https://name.vault.azure.net/.
	URL string
	// Identity stands for what Credential gives: it must be another one when that
	// gives another token.
	Identity string
	// Credential gives the token for the scope and the tenant that the vault's
	// challenge names, or says why it does not.
	Credential azcore.TokenCredential
}

// Store reads from all vaults, for all identities.
//
// Its invariants:
//  1. A request bears the token of the Vault that the call was given, and goes to
//     the host of its URL and to no other.
//  2. An answer is given to the Ref whose type, name and version its id carries.
//  3. A vault has at most Concurrency calls under way, of all that read from it.
//  4. What it keeps is bounded, and is no contents: clients, with what the vault
//     asked for.
type Store struct {
	clients     *clients
	limits      *limits
	concurrency int
	inclusive   bool
	logger      *slog.Logger
}

// New returns a Store. It makes no request.
func New(cfg Config) *Store {
	if cfg.Concurrency <= 0 {
		cfg.Concurrency = defaultConcurrency
	}
	if cfg.MaxClients <= 0 {
		cfg.MaxClients = defaultMaxClients
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Store{
		clients:     newClients(cfg.ClientOptions, cfg.MaxClients),
		limits:      newLimits(cfg.Concurrency),
		concurrency: cfg.Concurrency,
		inclusive:   cfg.InclusiveHistory,
		logger:      cfg.Logger,
	}
}

// Read reads all refs. Answers are in their order; those of equal refs share their
// contents. The error is that ctx ended.
func (s *Store) Read(ctx context.Context, vault Vault, refs []Ref) ([]Answer, error) {
	v := s.visit(vault)
	defer v.leave()
	answers := make([]Answer, len(refs))
	var running sync.WaitGroup
	for i, ref := range refs {
		running.Go(func() { answers[i] = v.read(ctx, ref) })
	}
	running.Wait()
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("read from %s: %w", vault.URL, err)
	}
	return answers, nil
}

// List finds the names of enabled objects that a selection matches, as the vault
// spells them, sorted. More than the selection's limit are not all found: one more
// says that there are too many. The error is an [*Error], or that ctx ended.
//
// Secrets and keys that belong to certificates are objects of their own here as they
// are when asked for by name: a certificate's secret is how a class gets its key.
func (s *Store) List(ctx context.Context, vault Vault, kind params.ObjectType, sel *params.Select) ([]string, error) {
	v := s.visit(vault)
	defer v.leave()
	names, failure := v.list(ctx, kind, sel)
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("list objects of %s: %w", vault.URL, err)
	}
	if failure != nil {
		return nil, failure
	}
	return names, nil
}
