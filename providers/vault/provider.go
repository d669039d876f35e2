package vault

import (
	"context"
	"log/slog"

	"github.com/postern-dev/postern/providers/sdk"
	"github.com/postern-dev/postern/providers/vault/internal/lease"
	"github.com/postern-dev/postern/providers/vault/internal/params"
	"github.com/postern-dev/postern/providers/vault/internal/schedule"
	"github.com/postern-dev/postern/providers/vault/internal/session"
	"github.com/postern-dev/postern/providers/vault/internal/store"
	"github.com/postern-dev/postern/providers/vault/internal/version"
)

var (
	_ sdk.Provider   = (*provider)(nil)
	_ sdk.Releaser   = (*provider)(nil)
	_ sdk.Runner     = (*provider)(nil)
	_ sdk.Shutdowner = (*provider)(nil)
)

// provider serves all classes and pods of a node.
type provider struct {
	logger   *slog.Logger
	defaults params.Defaults
	pool     *store.Pool
	loop     *schedule.Loop
	sessions *session.Manager
	leases   *lease.Keeper
	versions *version.Maker
}

func newProvider(o options, env sdk.Environment) (*provider, error) {
	defaults, err := o.defaults(env)
	if err != nil {
		return nil, err
	}
	return assemble(o, defaults, env.Logger, store.New(store.Config{Instrument: instrument(env)})), nil
}

// assemble puts a provider together around its way to the stores.
func assemble(o options, defaults params.Defaults, logger *slog.Logger, pool *store.Pool) *provider {
	loop := schedule.New()
	sessions := session.New(session.Config{
		Store: pool, Loop: loop, Logger: logger, MaxSessions: o.maxSessions, Idle: o.idle,
	})
	return &provider{
		logger: logger, defaults: defaults, pool: pool, loop: loop, sessions: sessions,
		leases:   lease.New(lease.Config{Store: pool, Sessions: sessions, Loop: loop, Logger: logger, Idle: o.idle}),
		versions: version.New(),
	}
}

// Fetch reads all objects of a class for a pod.
func (p *provider) Fetch(ctx context.Context, req *sdk.Request) (*sdk.Response, error) {
	spec, err := params.Parse(req.Parameters, p.defaults)
	if err != nil {
		return nil, err
	}
	use, err := authenticate(spec, req)
	if err != nil {
		return nil, err
	}
	visit := p.leases.Enter(req.VolumeID)
	defer visit.Leave()
	grant, cached, err := p.sessions.Acquire(ctx, use)
	if err != nil {
		return nil, loginError(ctx, use.Identity, err)
	}
	f := newFetch(p, req, spec, use)
	f.grant, f.cached, f.visit = grant, cached, visit
	defer f.settle()
	resp, err := f.run(ctx)
	if err == nil {
		err = f.commit(ctx)
	}
	if err != nil {
		f.abandon(ctx)
		return nil, err
	}
	return resp, nil
}

// Release revokes the leases of a volume, and its login if no other volume uses
// it. What cannot be revoked ends with its time to live, and is logged: there is
// nothing that the caller could do.
func (p *provider) Release(ctx context.Context, volumeID string) error {
	p.leases.Release(ctx, volumeID)
	p.sessions.Release(ctx, volumeID)
	return nil
}

// Run renews logins and leases until ctx ends.
func (p *provider) Run(ctx context.Context) error { return p.loop.Run(ctx) }

// Shutdown revokes the logins, but for those that leases hang on: the pods that
// have these credentials go on while this process is being replaced.
func (p *provider) Shutdown(ctx context.Context) error {
	p.sessions.Shutdown(ctx)
	p.pool.Close()
	return nil
}
