// Package policy holds the rules that are in force on this node, and asks them
// before anything is fetched. They come from a file, which is read again when it
// changes.
package policy

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/postern-dev/postern/gateway/internal/policy/rules"
	"github.com/postern-dev/postern/internal/logkey"
	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
)

// Config is what an Enforcer needs. Logger and Meter are required.
type Config struct {
	// Path is the file with the rules. Empty: every fetch is allowed.
	Path   string
	Logger *slog.Logger
	Meter  metric.Meter
}

// Status is which rules are in force.
type Status struct {
	// Rules are their names, in the order in which they are asked.
	Rules []string
	// LoadedAt is when they were read; zero without a file.
	LoadedAt time.Time
	// Error says why the rules in the file are not those in force. Empty: they
	// are.
	Error string
}

// Enforcer asks the rules of a file, and reads it again when it changes. It is
// safe for concurrent use.
//
// Invariants:
//  1. What is in force is one file's rules, whole and compiled: never a part of
//     them, and never none because a file is broken or gone.
//  2. A check sees one set of rules from its begin to its end.
//  3. Without a path nothing is read, watched or compiled.
type Enforcer struct {
	cfg     Config
	metrics *metrics
	// inForce is never nil.
	inForce atomic.Pointer[loaded]

	// mu guards the fields below, which one reload at a time changes.
	mu sync.Mutex
	// failure is why the file's rules are not in force, or "".
	failure string
	// seen is what failure is about.
	seen [sha256.Size]byte
}

// loaded are rules with their origin.
type loaded struct {
	rules  *rules.Set
	at     time.Time
	digest [sha256.Size]byte
}

// Open reads the rules. A file that is not there or is broken is an error.
func Open(cfg Config) (*Enforcer, error) {
	if cfg.Logger == nil || cfg.Meter == nil {
		return nil, errors.New("policy: logger and meter are required")
	}
	e := &Enforcer{cfg: cfg}
	first := &loaded{rules: &rules.Set{}}
	if cfg.Path != "" {
		source, err := readSource(cfg.Path)
		if err != nil {
			return nil, err
		}
		compiled, err := rules.Compile(source)
		if err != nil {
			return nil, fmt.Errorf("policy file %s: %w", cfg.Path, err)
		}
		first = &loaded{rules: compiled, at: time.Now(), digest: sha256.Sum256(source)}
	}
	e.inForce.Store(first)
	var err error
	if e.metrics, err = newMetrics(cfg.Meter, e.Status); err != nil {
		return nil, err
	}
	return e, nil
}

// readSource reads a file of rules, and not all of one that is too large.
func readSource(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open the policy file: %w", err)
	}
	defer func() { _ = file.Close() }()
	source, err := io.ReadAll(io.LimitReader(file, rules.MaxSource+1))
	if err != nil {
		return nil, fmt.Errorf("read the policy file: %w", err)
	}
	return source, nil
}

// Check returns nil for a fetch that the rules in force allow; see [rules.Set.Check].
// It counts and logs what they find.
func (e *Enforcer) Check(ctx context.Context, req *gatewayv1.FetchRequest) error {
	var denied error
	err := e.inForce.Load().rules.Violations(ctx, req, func(v rules.Violation) bool {
		e.metrics.violated(ctx, v)
		if !v.Audits {
			denied = v.Denial(req)
			return false
		}
		e.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "a policy rule that only audits would refuse a fetch",
			slog.String(logkey.Rule, v.Name),
			slog.String(logkey.Reason, v.Explanation),
			slog.String(logkey.Provider, req.GetProvider()),
			slog.String(logkey.Namespace, req.GetPod().GetNamespace()),
			slog.String(logkey.Pod, req.GetPod().GetName()),
			slog.String(logkey.ServiceAccount, req.GetPod().GetServiceAccount().GetName()),
			slog.String(logkey.SecretProviderClass, req.GetSecretProviderClass()))
		return true
	})
	if err != nil {
		return err
	}
	return denied
}

// Status returns which rules are in force.
func (e *Enforcer) Status() Status {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.inForce.Load()
	return Status{Rules: now.rules.Names(), LoadedAt: now.at, Error: e.failure}
}

// reload reads the file, and puts its rules in force if they are new and whole.
func (e *Enforcer) reload(ctx context.Context) {
	e.mu.Lock()
	defer e.mu.Unlock()
	source, err := readSource(e.cfg.Path)
	if err != nil {
		e.failLocked(ctx, sha256.Sum256([]byte(err.Error())), err)
		return
	}
	digest := sha256.Sum256(source)
	if digest == e.inForce.Load().digest {
		if e.failure != "" {
			e.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "the policy file has the rules in force again")
		}
		e.failure = ""
		return
	}
	compiled, err := rules.Compile(source)
	if err != nil {
		e.failLocked(ctx, digest, err)
		return
	}
	e.inForce.Store(&loaded{rules: compiled, at: time.Now(), digest: digest})
	e.failure = ""
	e.metrics.reloaded(ctx, outcomeOK)
	e.metrics.begin(ctx, compiled.List())
	e.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "new policy rules are in force", slog.Int(logkey.Count, len(compiled.List())))
}

// failLocked remembers and tells, once for each content, why the file's rules
// are not in force.
func (e *Enforcer) failLocked(ctx context.Context, content [sha256.Size]byte, err error) {
	if e.failure != "" && e.seen == content {
		return
	}
	e.failure, e.seen = err.Error(), content
	e.metrics.reloaded(ctx, outcomeFailed)
	e.cfg.Logger.LogAttrs(ctx, slog.LevelError, "the policy file cannot be used; the rules that were read before stay in force",
		slog.String(logkey.Path, e.cfg.Path), slog.String(logkey.Error, e.failure))
}
