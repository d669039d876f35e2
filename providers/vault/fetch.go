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
	// minRefresh is the shortest time after which to fetch again for a
	// credential's sake: not in a loop.
	minRefresh = 5 * time.Second
	// cleanupTimeout bounds the revocations after a failure.
	cleanupTimeout = 5 * time.Second
)

// fetch is one call of Fetch.
type fetch struct {
	p      *provider
	visit  *lease.Visit
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
	// credential is set if the answer is one, and issued if it is a new one. The
	// answer may have been given to an earlier process, and be lost.
	credential *lease.Credential
	issued     bool
}

func (r *read) done() bool { return r.answer != nil || r.credential != nil }

func (r *read) lost() bool { return r.answer == nil && r.credential != nil }

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
	if err := f.recall(ctx); err != nil {
		return nil, err
	}
	if err := f.readMissing(ctx); err != nil {
		return nil, err
	}
	resp, complete, err := f.response(ctx)
	if err != nil || complete {
		return resp, err
	}
	// Something else of the class has changed, and all files are needed: what an
	// earlier process was given is issued again.
	for _, r := range f.reads {
		if r.lost() {
			r.credential = nil
		}
	}
	if err := f.readMissing(ctx); err != nil {
		return nil, err
	}
	resp, _, err = f.response(ctx)
	return resp, err
}

// recall finds the credentials that the volume has.
func (f *fetch) recall(ctx context.Context) error {
	keys := make([]string, len(f.reads))
	for i, r := range f.reads {
		keys[i] = r.key
	}
	if err := f.visit.TakeOver(ctx, f.grant, f.req.State, keys); err != nil {
		return commonError(ctx, "", f.spec.Endpoint, err)
	}
	for _, r := range f.reads {
		if c, ok := f.visit.Get(r.key, f.grant); ok {
			r.answer, r.credential = c.Answer, c
		}
	}
	return nil
}

func (f *fetch) readMissing(ctx context.Context) error {
	for _, readOnly := range []bool{true, false} {
		if err := f.pass(ctx, readOnly); err != nil {
			return err
		}
	}
	return nil
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
		if r.done() || r.request.ReadOnly() != readOnly {
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

// response makes the files and versions. It is not complete if the volume does
// not hold all of it and the contents of something are lost.
func (f *fetch) response(ctx context.Context) (resp *sdk.Response, complete bool, err error) {
	resp, complete = &sdk.Response{Sharing: sdk.SharingServiceAccount, FreshFor: freshFor}, true
	if f.spec.PerPod {
		resp.Sharing = sdk.SharingPod
	}
	for _, o := range f.spec.Objects {
		r := f.byKey[o.ReadKey()]
		complete = complete && !r.lost()
		if err := f.add(resp, o, r); err != nil {
			return nil, false, err
		}
		f.leaseOf(resp, o, r)
	}
	resp.State = f.visit.State(f.grant.Identity(), f.credentials())
	if f.req.Holds(resp.Objects) {
		resp.NotModified, resp.Files, resp.Objects, complete = true, nil, nil, true
	}
	return resp, complete, ctx.Err()
}

// add adds an object's version and, unless its contents are lost, its file.
func (f *fetch) add(resp *sdk.Response, o params.Object, r *read) error {
	in := version.Input{Endpoint: f.spec.Endpoint, Object: o, Mode: o.Mode.Or(f.req.DefaultFileMode), Answer: r.answer}
	if r.credential != nil {
		in.Credential = r.credential.ID()
	}
	if !r.lost() {
		contents, err := extract.Contents(r.answer, o)
		if err != nil {
			return contentError(o, r, err)
		}
		in.Contents = contents
		resp.Files = append(resp.Files, sdk.File{Path: o.Name, Mode: in.Mode, Contents: sdk.NewSecret(contents)})
	}
	v, err := f.p.versions.Of(in)
	if err != nil {
		return err
	}
	resp.Objects = append(resp.Objects, sdk.ObjectVersion{ID: o.Name, Version: v})
	return nil
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
	left, refresh := f.visit.Lease(r.credential)
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

// commit makes what was issued the volume's. One that was released meanwhile
// gets none of it; where nothing was issued, others may be waiting for the same
// answer.
func (f *fetch) commit(ctx context.Context) error {
	credentials := f.credentials()
	if f.visit.Commit(credentials) {
		f.p.sessions.Commit(f.use.Identity, f.req.VolumeID)
		return nil
	}
	f.p.sessions.Release(ctx, f.req.VolumeID)
	if len(credentials) == 0 {
		return nil
	}
	return sdk.Internal("the volume was released while it was being fetched")
}

// abandon revokes what a fetch that failed was issued. What the policy does not
// allow to be revoked is kept for the next one: a mount that fails time and
// again does not leave a credential behind each time.
func (f *fetch) abandon(ctx context.Context) {
	var issued []*lease.Credential
	keys := make(map[*lease.Credential]string)
	for _, r := range f.reads {
		if r.issued {
			issued = append(issued, r.credential)
			keys[r.credential] = r.key
		}
	}
	if len(issued) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	left := make(map[string]*lease.Credential)
	for _, c := range f.p.leases.Discard(ctx, issued) {
		left[keys[c]] = c
	}
	f.visit.Retain(left)
}

func (f *fetch) settle() {
	if f.trial != nil {
		f.p.sessions.Settle(f.trial, f.better)
	}
}
