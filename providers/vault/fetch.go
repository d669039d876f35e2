package vault

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/postern-dev/postern/providers/sdk"
	"github.com/postern-dev/postern/providers/vault/internal/extract"
	"github.com/postern-dev/postern/providers/vault/internal/lease"
	"github.com/postern-dev/postern/providers/vault/internal/logkey"
	"github.com/postern-dev/postern/providers/vault/internal/params"
	"github.com/postern-dev/postern/providers/vault/internal/session"
	"github.com/postern-dev/postern/providers/vault/internal/store"
	"github.com/postern-dev/postern/providers/vault/internal/version"
)

const (
	// concurrency is how many reads of one mount run at a time.
	concurrency = 8
	// freshFor is how long an answer may serve other pods, too: what was read is
	// good until somebody writes it, which only the gateway's own limits weigh.
	freshFor = time.Hour
	// minRefresh and mixedRefresh bound when to fetch again for a credential's
	// sake: not in a loop; and, where there are secrets of other kinds too, as
	// often as those are looked at by default.
	minRefresh   = 10 * time.Second
	mixedRefresh = 2 * time.Minute
	// cleanupTimeout bounds the revocations after a failure.
	cleanupTimeout = 5 * time.Second
)

// fetch is one call of Fetch.
type fetch struct {
	p      *provider
	req    *sdk.Request
	spec   *params.Spec
	use    session.Use
	grant  *session.Grant
	cached bool
	// trial is the grant of a second login, if there was one, and better whether
	// the store accepts it where it refused the first.
	trial  *session.Grant
	better bool

	reads []*read
	byKey map[string]*read
}

// read is one request, for all objects that it serves.
type read struct {
	key     string
	request store.Request
	// object is the first of its objects; index is its place in the class.
	object string
	index  int

	answer *store.Answer
	err    error
	// credential is set if the answer is one, and issued if it is a new one.
	credential *lease.Credential
	issued     bool
}

func newFetch(p *provider, req *sdk.Request, spec *params.Spec, use session.Use) *fetch {
	f := &fetch{p: p, req: req, spec: spec, use: use, byKey: make(map[string]*read)}
	for i, o := range spec.Objects {
		key := o.ReadKey()
		if _, ok := f.byKey[key]; ok {
			continue
		}
		r := &read{key: key, request: o.Request, object: o.Name, index: i}
		f.byKey[key] = r
		f.reads = append(f.reads, r)
	}
	return f
}

// run does all requests and makes the response. Those that may change something
// come last, one by one, when all others have succeeded.
func (f *fetch) run(ctx context.Context) (*sdk.Response, error) {
	for _, r := range f.reads {
		if c, ok := f.p.leases.Get(f.req.VolumeID, r.key, f.grant); ok {
			r.answer, r.credential = c.Answer, c
		}
	}
	for _, readOnly := range []bool{true, false} {
		if err := f.pass(ctx, readOnly); err != nil {
			return nil, err
		}
	}
	return f.response(ctx)
}

// pass does the requests of one kind. If the store refuses a login that is not
// new, it logs in again, once, and does again what was refused.
func (f *fetch) pass(ctx context.Context, readOnly bool) error {
	failed := f.readAll(ctx, readOnly)
	if failed != nil && f.cached && store.Is(failed.err, 403) {
		trial, err := f.p.sessions.Trial(ctx, f.grant, f.use)
		if err != nil {
			return loginError(ctx, f.use.Identity, err)
		}
		f.grant, f.trial, f.cached = trial, trial, false
		failed = f.readAll(ctx, readOnly)
		f.better = failed == nil || !store.Is(failed.err, 403)
	}
	if failed == nil {
		return nil
	}
	return f.readError(ctx, failed)
}

// readAll does the requests of one kind that have no answer yet, and returns
// the first, in the order of the class, that failed. Its failure cancels those
// after it, but not those before it: what is reported does not depend on chance.
func (f *fetch) readAll(ctx context.Context, readOnly bool) *read {
	limit := 1
	if readOnly {
		limit = concurrency
	}
	var (
		reading sync.WaitGroup
		mu      sync.Mutex
		failed  *read
		cancels = make(map[*read]context.CancelFunc)
		slots   = make(chan struct{}, limit)
	)
	for _, r := range f.reads {
		if r.answer != nil || r.request.ReadOnly() != readOnly {
			continue
		}
		slots <- struct{}{} // reads end with ctx, so this does
		mu.Lock()
		if failed != nil {
			mu.Unlock()
			break
		}
		readCtx, cancel := context.WithCancel(ctx)
		cancels[r] = cancel
		mu.Unlock()
		reading.Go(func() {
			defer func() { cancel(); <-slots }()
			f.readOne(readCtx, r)
			mu.Lock()
			defer mu.Unlock()
			if r.err == nil || (failed != nil && failed.index < r.index) {
				return
			}
			failed = r
			for other, cancel := range cancels {
				if other.index > r.index {
					cancel()
				}
			}
		})
	}
	reading.Wait()
	return failed
}

func (f *fetch) readOne(ctx context.Context, r *read) {
	grant := f.grant
	r.answer, r.err = f.p.pool.Read(ctx, f.spec.Endpoint, grant.Token(), r.request)
	if r.err != nil {
		return
	}
	r.credential = lease.NewCredential(r.answer, grant, r.request.ReadOnly())
	r.issued = r.credential != nil
	for _, warning := range r.answer.Warnings() {
		f.p.logger.LogAttrs(ctx, slog.LevelWarn, "the store warns about a secret",
			slog.String(logkey.Object, r.object), slog.String(logkey.Path, r.request.Path),
			slog.String(logkey.Namespace, f.req.Pod.Namespace), slog.String(logkey.Pod, f.req.Pod.Name),
			slog.String(logkey.Warning, warning))
	}
}

// response makes the files and versions.
func (f *fetch) response(ctx context.Context) (*sdk.Response, error) {
	resp := &sdk.Response{Sharing: sdk.SharingServiceAccount, FreshFor: freshFor}
	if f.spec.PerPod {
		resp.Sharing = sdk.SharingPod
	}
	for _, o := range f.spec.Objects {
		r := f.byKey[o.ReadKey()]
		contents, err := extract.Contents(r.answer, o)
		if err != nil {
			return nil, contentError(o, r, err)
		}
		mode := o.Mode.Or(f.req.DefaultFileMode)
		v, err := f.p.versions.Of(version.Input{
			Endpoint: f.spec.Endpoint, Object: o, Mode: mode, Answer: r.answer, Contents: contents,
		})
		if err != nil {
			return nil, err
		}
		resp.Files = append(resp.Files, sdk.File{Path: o.Name, Mode: mode, Contents: sdk.NewSecret(contents)})
		resp.Objects = append(resp.Objects, sdk.ObjectVersion{ID: o.Name, Version: v})
		f.leaseOf(resp, o, r)
	}
	if len(resp.Leases) > 0 && len(resp.Leases) < len(resp.Objects) {
		resp.RefreshAfter = min(resp.RefreshAfter, mixedRefresh)
	}
	return resp, ctx.Err()
}

// leaseOf tells what of an object lives and dies with the volume.
func (f *fetch) leaseOf(resp *sdk.Response, o params.Object, r *read) {
	if r.credential == nil {
		if !r.request.ReadOnly() { // it is done again for each fetch
			resp.Sharing, resp.FreshFor = sdk.SharingPod, 0
		}
		return
	}
	resp.Sharing = sdk.SharingPod
	left, refresh := f.p.leases.Lease(r.credential)
	resp.Leases = append(resp.Leases, sdk.Lease{ObjectID: o.Name, Duration: left.Duration, Renewable: left.Renewable})
	refresh = max(min(refresh, f.p.leases.Idle()/2), minRefresh)
	if resp.RefreshAfter == 0 || refresh < resp.RefreshAfter {
		resp.RefreshAfter = refresh
	}
}

// credentials are those that the volume has now.
func (f *fetch) credentials() map[string]*lease.Credential {
	all := make(map[string]*lease.Credential)
	for _, r := range f.reads {
		if r.credential != nil {
			all[r.key] = r.credential
		}
	}
	return all
}

// abandon revokes what a fetch that failed has got.
func (f *fetch) abandon(ctx context.Context) {
	var issued []*lease.Credential
	for _, r := range f.reads {
		if r.issued {
			issued = append(issued, r.credential)
		}
	}
	if len(issued) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	f.p.leases.Discard(ctx, issued)
}

func (f *fetch) settle() {
	if f.trial != nil {
		f.p.sessions.Settle(f.trial, f.better)
	}
}
