package fetch_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/postern-dev/postern/internal/rpc"
	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
	secretv1 "github.com/postern-dev/postern/proto/gen/go/postern/secret/v1"
)

const (
	// interval is how often the volumes of tests are refreshed.
	interval = 2 * time.Minute
	// onTheWay is how long a request takes from the driver to the gateway.
	onTheWay = time.Millisecond
	// atATime is how many refreshes of one provider a driver makes at a time.
	atATime = 16
)

// refreshing are the volumes of a node, refreshed by the driver's rules: when
// one is due depends on what it holds, on nothing that the volumes of a class do
// not have in common.
type refreshing struct {
	*world

	slots chan struct{}
	lives sync.WaitGroup

	mu      sync.Mutex
	volumes []*mounted
	oldest  time.Duration
	failed  int
}

// mounted is one volume and what it holds.
type mounted struct {
	req     *gatewayv1.FetchRequest
	class   string
	content string
	// changedAt is when content last changed.
	changedAt time.Time
	fetchedAt time.Time
	objects   []*secretv1.ObjectVersion
	failures  int
}

func newRefreshing(t testing.TB, p *scripted) *refreshing {
	t.Helper()
	return &refreshing{world: newWorld(t, p, nil), slots: make(chan struct{}, atATime)}
}

// mount mounts volumes, each at a random moment of the time given, and refreshes
// them until ctx ends.
func (r *refreshing) mount(ctx context.Context, volumes, identities int, within time.Duration) {
	random := rand.New(rand.NewPCG(5, 6))
	for i := range volumes {
		req := pod(fmt.Sprint(i))
		req.Pod.ServiceAccount.Name = fmt.Sprint(i % identities)
		req.RefreshInterval = durationpb.New(interval)
		m := &mounted{req: req, class: req.GetSecretProviderClass()}
		r.volumes = append(r.volumes, m)
		wait := time.Duration(random.Int64N(int64(within)))
		r.lives.Go(func() { r.live(ctx, m, wait) })
	}
}

func (r *refreshing) live(ctx context.Context, m *mounted, wait time.Duration) {
	for first := true; ; first = false {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
		err := r.refresh(m, time.Time{})
		switch {
		case err != nil:
			wait = m.retry(rpc.FromError(err))
		case first:
			wait = time.Until(m.fetchedAt.Add(interval/2 + time.Duration(m.share(m.fetchedAt.UnixNano())*float64(interval/2))))
		default:
			wait = time.Until(m.fetchedAt.Add(interval + time.Duration(m.share(m.fetchedAt.UnixNano())*float64(time.Second))))
		}
	}
}

// refresh is one fetch, the mount's or a later one.
func (r *refreshing) refresh(m *mounted, triggered time.Time) error {
	r.slots <- struct{}{}
	defer func() { <-r.slots }()
	if !m.fetchedAt.IsZero() {
		after := time.Now().Add(-interval)
		for _, other := range []time.Time{m.fetchedAt, triggered} {
			if other.After(after) {
				after = other
			}
		}
		m.req.Refresh, m.req.FetchedAfter, m.req.CurrentObjects = true, timestamppb.New(after), m.objects
	}
	<-time.After(onTheWay)
	result, err := r.Fetch(context.Background(), m.req)
	r.mu.Lock()
	defer r.mu.Unlock()
	if !m.fetchedAt.IsZero() {
		r.oldest = max(r.oldest, time.Since(m.fetchedAt))
	}
	if err != nil {
		r.failed++
		m.failures++
		return err
	}
	defer result.Answer.Release()
	m.failures, m.fetchedAt = 0, result.Answer.FetchedAt().Round(0)
	if !result.NotModified {
		m.content, m.changedAt = string(result.Answer.Response().GetFiles()[0].GetContents()), time.Now()
		m.objects = result.Answer.Response().GetObjects()
	}
	return nil
}

// figures are the oldest content that any volume had, and how many fetches failed.
func (r *refreshing) figures() (oldest time.Duration, failed int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.oldest, r.failed
}

// retry is how long the driver waits after a failure.
func (m *mounted) retry(err *rpc.Error) time.Duration {
	pause := max(min(10*time.Second<<min(m.failures-1, 10), interval), err.RetryAfter)
	return pause + time.Duration(m.share(int64(m.failures))*float64(pause/5))
}

// share is a number from 0 to 1, the same for all volumes of the class.
func (m *mounted) share(moment int64) float64 {
	h := fnv.New64a()
	_, _ = h.Write(binary.BigEndian.AppendUint64([]byte(m.class), uint64(moment)))
	mixed := h.Sum64() * 0x9e3779b97f4a7c15
	return float64(mixed>>11) / (1 << 53)
}
