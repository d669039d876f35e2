package publish_test

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
)

// sharingGateway keeps one answer for each service account, as the gateway does:
// a mount is served one that is ten seconds old at most, a refresh one that was
// fetched after what it asks for.
type sharingGateway struct {
	mu    sync.Mutex
	kept  map[string]time.Time
	calls int
}

func (g *sharingGateway) answer(r *gatewayv1.FetchRequest) (*gatewayv1.FetchResponse, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	after := time.Now().Add(-10 * time.Second)
	if r.GetFetchedAfter() != nil {
		after = r.GetFetchedAfter().AsTime()
	}
	account := r.GetPod().GetServiceAccount().GetName()
	fetched, ok := g.kept[account]
	if !ok || !fetched.After(after) {
		fetched = time.Now()
		g.kept[account] = fetched
		g.calls++
	}
	response := holding("the same", "1", 0o600)
	response.FetchedAt = timestamppb.New(fetched)
	response.NotModified = len(r.GetCurrentObjects()) > 0
	return response, nil
}

func (g *sharingGateway) called() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.calls
}

// An hour of 110 volumes of five identities, mounted at any time within five
// minutes, costs as many calls of the store as there are intervals and
// identities, and not a write.
func TestRefresh_HourOfANode(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const volumes, identities = 110, 5
		w := newWorld(t)
		w.config.RotationPollInterval = interval
		gateway := &sharingGateway{kept: make(map[string]time.Time)}
		w.gateway.asked(gateway.answer)
		p := w.running(t)
		for i := range volumes {
			id := fmt.Sprintf("csi-%d", i)
			r := request(t, nil)
			r.VolumeID, r.Target = id, "/kubelet/"+id
			r.Pod.Name, r.Pod.UID, r.Pod.ServiceAccount = "web-"+id, "uid-"+id, fmt.Sprintf("sa-%d", i%identities)
			go func() { // kubelet
				<-time.After(time.Duration(i) * 5 * time.Minute / volumes)
				for range 70 {
					if err := p.Publish(t.Context(), r); err != nil {
						t.Error(err)
					}
					<-time.After(time.Minute)
				}
			}()
		}
		<-time.After(10 * time.Minute)
		synctest.Wait()
		before, written := gateway.called(), w.volumes.written()
		<-time.After(time.Hour)
		synctest.Wait()
		// A little less than 150, since each comes up to a second late.
		if got := gateway.called() - before; got < 140 || got > 150 {
			t.Errorf("the store was called %d times in an hour, want 150", got)
		}
		if got := w.volumes.written() - written; got != 0 {
			t.Errorf("%d writes", got)
		}
		<-time.After(time.Hour) // the last of kubelet's calls
	})
}
