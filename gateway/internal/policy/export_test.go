package policy

import (
	"context"
	"io"

	"github.com/postern-dev/postern/internal/daemon"
)

// LookInterval is the time between two looks at the file.
const LookInterval = lookInterval

// RunUnwatched is Run on a system that has no more watches to give.
func (e *Enforcer) RunUnwatched(ctx context.Context) error { return e.look(ctx, nil) }

// CommandWith is Command with a standard input.
func CommandWith(ctx context.Context, env daemon.Env, stdin io.Reader) error {
	return run(ctx, env, stdin)
}
