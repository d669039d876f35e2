package fetch_test

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
	providerv1 "github.com/postern-dev/postern/proto/gen/go/postern/provider/v1"
	secretv1 "github.com/postern-dev/postern/proto/gen/go/postern/secret/v1"
)

// issuing answers each volume with what is its own, which a state names.
func issuing() *scripted {
	return &scripted{latency: time.Second, onFetch: func(call int, req *gatewayv1.FetchRequest) (*providerv1.FetchResponse, error) {
		name := string(req.GetProviderState())
		if name == "" {
			name = fmt.Sprintf("%s's %d", req.GetPod().GetName(), call)
		}
		r := shared(name)
		r.State = []byte(name)
		return r, nil
	}}
}

// An answer with state is one volume's, whatever its provider says of sharing,
// and each volume's state comes back to the provider, and no other.
func TestState(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, issuing(), nil)
		first := map[string]string{}
		var mu sync.Mutex
		fetchAll := func(name func(i int) *gatewayv1.FetchRequest) {
			var pods sync.WaitGroup
			for i := range 10 {
				pods.Go(func() {
					req := name(i)
					g := w.fetch(t.Context(), req)
					mu.Lock()
					defer mu.Unlock()
					if before, ok := first[req.GetVolumeId()]; g.err != nil || (ok && before != g.content) {
						t.Errorf("%s: got %q, %v; it had %q", req.GetVolumeId(), g.content, g.err, before)
					}
					first[req.GetVolumeId()] = g.content
				})
			}
			pods.Wait()
		}
		fetchAll(func(i int) *gatewayv1.FetchRequest { return pod(fmt.Sprint(i)) })
		distinct := map[string]bool{}
		for _, content := range first {
			distinct[content] = true
		}
		if len(distinct) != 10 {
			t.Fatalf("10 volumes have %d answers", len(distinct))
		}
		again := func(i int) *gatewayv1.FetchRequest {
			req := pod(fmt.Sprint(i))
			req.Refresh, req.ProviderState = true, []byte(first[req.GetVolumeId()])
			return req
		}
		fetchAll(again)
		// A gateway that has just started knows nothing of whose answers are
		// private, and does not send the state of one for all.
		w = newWorld(t, issuing(), nil)
		started := time.Now()
		fetchAll(again)
		if took := time.Since(started); took != time.Second {
			t.Errorf("it took %v, want one call's time: none waits for another's answer", took)
		}
		w.wantCalls(t, 10)
	})
}

// What one volume holds is not told with a fetch for all.
func TestState_NotOfASharedAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, &scripted{}, nil)
		req := pod("a")
		req.ProviderState = []byte("left from before the class was edited")
		req.CurrentObjects = []*secretv1.ObjectVersion{{Id: "o", Version: "1"}}
		w.want(t, req, "1", fromProvider)
		w.want(t, pod("b"), "1", fromCache)
	})
}
