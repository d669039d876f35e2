package publish_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/postern-dev/postern/driver/internal/podstatus"
	"github.com/postern-dev/postern/internal/rpc"
	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
)

// A mount with a kept answer of a store that is unreachable is loud, and is
// fetched again at the next occasion.
func TestPublish_Stale(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.config.RotationPollInterval = 2 * time.Minute
		p := w.publisher(t)
		fetched := time.Now().Add(-3 * time.Minute)
		w.gateway.response.Source = gatewayv1.Source_SOURCE_STALE
		w.gateway.response.FetchedAt = timestamppb.New(fetched)
		mustPublish(t, w, p, 1)

		if got := w.recorder.events; len(got) != 1 || got[0].Reason != podstatus.ReasonStale || !strings.Contains(got[0].Message, "3m0s ago") {
			t.Errorf("events: %+v", got)
		}
		status := w.recorder.statuses[0]
		if !status.LastRefresh.Equal(fetched) || status.Failure == nil || status.Failure.Reason != rpc.ReasonStoreUnavailable {
			t.Errorf("status: %+v, failure %+v", status, status.Failure)
		}

		w.gateway.response.Source = gatewayv1.Source_SOURCE_PROVIDER
		w.gateway.response.FetchedAt = timestamppb.Now()
		mustPublish(t, w, p, 2)
		if got := w.recorder.statuses[1]; got.Failure != nil || !got.LastRefresh.Equal(time.Now()) {
			t.Errorf("status: %+v, failure %+v", got, got.Failure)
		}
		// The first is a mount, for which a stale answer is better than none.
		if got := w.gateway.fetches(); got[0].GetRefresh() || !got[1].GetRefresh() {
			t.Errorf("refresh is %t and then %t", got[0].GetRefresh(), got[1].GetRefresh())
		}
	})
}

// A mount with an answer that another pod got is as old as that answer.
func TestPublish_AgeOfAKeptAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.config.RotationPollInterval = 2 * time.Minute
		p := w.publisher(t)
		w.gateway.response.Source = gatewayv1.Source_SOURCE_CACHE
		w.gateway.response.FetchedAt = timestamppb.New(time.Now().Add(-9 * time.Second))
		mustPublish(t, w, p, 1)
		if len(w.recorder.events) != 0 || w.recorder.statuses[0].Failure != nil {
			t.Errorf("events %+v, failure %+v", w.recorder.events, w.recorder.statuses[0].Failure)
		}
		<-time.After(110 * time.Second)
		mustPublish(t, w, p, 1)
		<-time.After(time.Second)
		mustPublish(t, w, p, 2)
	})
}
