package fetch_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/postern-dev/postern/gateway/internal/cache"
	"github.com/postern-dev/postern/gateway/internal/fetch"
	"github.com/postern-dev/postern/gateway/internal/providertest"
	"github.com/postern-dev/postern/gateway/internal/registry"
	"github.com/postern-dev/postern/internal/rpc"
	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
	providerv1 "github.com/postern-dev/postern/proto/gen/go/postern/provider/v1"
	secretv1 "github.com/postern-dev/postern/proto/gen/go/postern/secret/v1"
)

// scripted is an instance of a provider in this process, so that time can be
// that of the test.
type scripted struct {
	description *providerv1.DescribeResponse
	// latency is how long a call takes.
	latency time.Duration
	// onFetch answers; without it, shared does.
	onFetch func(call int, req *gatewayv1.FetchRequest) (*providerv1.FetchResponse, error)

	mu        sync.Mutex
	calls     []*gatewayv1.FetchRequest
	cancelled int
	released  []string
}

func (s *scripted) Describe(context.Context) (*providerv1.DescribeResponse, error) {
	return s.description, nil
}

func (s *scripted) Fetch(ctx context.Context, req *gatewayv1.FetchRequest) (*providerv1.FetchResponse, error) {
	s.mu.Lock()
	s.calls = append(s.calls, proto.CloneOf(req))
	call := len(s.calls)
	s.mu.Unlock()
	select {
	case <-time.After(s.latency):
	case <-ctx.Done():
		s.mu.Lock()
		defer s.mu.Unlock()
		s.cancelled++
		if context.Cause(ctx) == context.DeadlineExceeded { //nolint:errorlint // is never wrapped
			return nil, &rpc.Error{Reason: rpc.ReasonDeadlineExceeded, Message: "the provider did not answer"}
		}
		return nil, ctx.Err()
	}
	if s.onFetch != nil {
		return s.onFetch(call, req)
	}
	return shared(fmt.Sprint(call)), nil
}

func (s *scripted) Release(_ context.Context, volumeID string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.released = append(s.released, volumeID)
	return nil
}

func (s *scripted) requests() []*gatewayv1.FetchRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.calls)
}

func (s *scripted) cancellations() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cancelled
}

// shared is an answer that the pods of a service account may share.
func shared(content string) *providerv1.FetchResponse {
	response := providertest.Answer(content)
	response.Sharing = secretv1.Sharing_SHARING_SERVICE_ACCOUNT
	response.FreshFor = durationpb.New(time.Hour)
	return response
}

// failure is one of a provider.
func failure(reason string) error { return &rpc.Error{Reason: reason, Message: "because of a test"} }

// instances are the providers of a node, by name.
type instances struct {
	mu      sync.Mutex
	byName  map[string]*registry.Handle
	changed chan struct{}
}

func (i *instances) set(name string, handle *registry.Handle) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.byName == nil {
		i.byName = map[string]*registry.Handle{}
	}
	i.byName[name] = handle
	if i.changed != nil {
		close(i.changed)
	}
	i.changed = make(chan struct{})
}

func (i *instances) TryAcquire(name string) (*registry.Handle, bool) {
	handle, _ := i.look(name)
	return handle, handle != nil
}

func (i *instances) look(name string) (*registry.Handle, <-chan struct{}) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.byName[name], i.changed
}

func (i *instances) Acquire(ctx context.Context, name string) (*registry.Handle, error) {
	patience, cancel := rpc.WithMargin(ctx, registry.Margin)
	defer cancel()
	for {
		handle, changed := i.look(name)
		if handle != nil {
			return handle, nil
		}
		select {
		case <-changed:
		case <-patience.Done():
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			return nil, failure(rpc.ReasonProviderUnavailable)
		}
	}
}

func (i *instances) Connected() []*registry.Handle {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.DeleteFunc(slices.Collect(maps.Values(i.byName)), func(h *registry.Handle) bool { return h == nil })
}

func (i *instances) Known(string) bool { return true }

// rules is a policy that denies with err, if that is set.
type rules struct{ err error }

func (r *rules) Check(context.Context, *gatewayv1.FetchRequest) error { return r.err }

// world is a fetcher with one scripted provider, "vault".
type world struct {
	*fetch.Fetcher
	provider  *scripted
	instances *instances
	cache     *cache.Cache
	policy    *rules
}

func newWorld(t testing.TB, provider *scripted, change func(*fetch.Config)) *world {
	t.Helper()
	if provider.description == nil {
		provider.description = &providerv1.DescribeResponse{}
	}
	w := &world{provider: provider, instances: &instances{}, policy: &rules{}}
	w.serve()
	cfg := config(t, w.instances)
	cfg.Policy, w.cache = w.policy, cfg.Cache
	if change != nil {
		change(&cfg)
	}
	var err error
	if w.Fetcher, err = fetch.New(cfg); err != nil {
		t.Fatal(err)
	}
	return w
}

// serve has the provider there.
func (w *world) serve() {
	w.instances.set("vault", &registry.Handle{
		Provider: w.provider, Description: w.provider.description, ID: 1, Socket: "/vault/a.sock", ProviderName: "vault",
	})
}

// got is what came of a fetch.
type got struct {
	content string
	source  gatewayv1.Source
	err     error
}

// fetch makes one as kubelet's deadline allows, and gives the answer back.
func (w *world) fetch(ctx context.Context, req *gatewayv1.FetchRequest) got {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	result, err := w.Fetch(ctx, req)
	if err != nil {
		return got{err: err}
	}
	defer result.Answer.Release()
	g := got{source: result.Source}
	for _, file := range result.Answer.Response().GetFiles() {
		g.content += string(file.GetContents())
	}
	return g
}

// want fetches, and fails the test unless it is served this from there.
func (w *world) want(t *testing.T, req *gatewayv1.FetchRequest, content string, source gatewayv1.Source) {
	t.Helper()
	if g := w.fetch(t.Context(), req); g.err != nil || g.content != content || g.source != source {
		t.Errorf("got %q, %v, %v; want %q, %v", g.content, g.source, g.err, content, source)
	}
}

// wantError fetches, and fails the test unless it fails for this reason.
func (w *world) wantError(t *testing.T, req *gatewayv1.FetchRequest, reason string) {
	t.Helper()
	if g := w.fetch(t.Context(), req); g.err == nil || rpc.FromError(g.err).Reason != reason {
		t.Errorf("got %q, %v; want %s", g.content, g.err, reason)
	}
}

// wantCalls fails the test unless the provider was called so often.
func (w *world) wantCalls(t *testing.T, calls int) {
	t.Helper()
	if got := len(w.provider.requests()); got != calls {
		t.Errorf("the provider was called %d times, want %d", got, calls)
	}
}

// pod is a request of another pod of the same service account.
func pod(name string) *gatewayv1.FetchRequest {
	req := request("csi-" + name)
	req.Pod.Name, req.Pod.Uid = name, "uid-of-"+name
	return req
}

const (
	fromProvider = gatewayv1.Source_SOURCE_PROVIDER
	fromCache    = gatewayv1.Source_SOURCE_CACHE
	joined       = gatewayv1.Source_SOURCE_JOINED
	stale        = gatewayv1.Source_SOURCE_STALE
)
