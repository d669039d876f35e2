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
// fetched again soon.
func TestPublish_Stale(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.config.RotationPollInterval = 2 * time.Minute
		fetched := time.Now().Add(-3 * time.Minute)
		stale := holding("old", "1", 0o600)
		stale.Source, stale.FetchedAt = gatewayv1.Source_SOURCE_STALE, timestamppb.New(fetched)
		w.gateway.become(stale, nil)
		p := w.running(t)
		mustPublish(t, w, p, 1)

		got := w.recorder.told(podstatus.ReasonStale)
		if len(got) != 1 || !strings.Contains(got[0].Message, fetched.UTC().Format(time.RFC3339)) || got[0].Detail != "3m0s ago" {
			t.Errorf("events: %+v", got)
		}
		if status := w.recorder.last(); !status.LastRefresh.Equal(fetched) || status.Stale == nil || status.Stale.Reason != rpc.ReasonStoreUnavailable {
			t.Errorf("status: %+v, failure %+v", status, status.Stale)
		}

		w.gateway.become(holding("new", "2", 0o600), nil)
		<-time.After(2 * time.Second)
		wantFetches(t, w, 2)
		if got := w.recorder.last(); got.Stale != nil || time.Since(got.LastRefresh) > 2*time.Second || w.volumes.at(target)["password"] != "-rw------- new" {
			t.Errorf("status: %+v, failure %+v, mounted %v", got, got.Stale, w.volumes.at(target))
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
		asked := time.Now().Add(-9 * time.Second)
		kept := holding("old", "1", 0o600)
		kept.Source, kept.FetchedAt = gatewayv1.Source_SOURCE_CACHE, timestamppb.New(asked)
		w.gateway.become(kept, nil)
		p := w.running(t)
		mustPublish(t, w, p, 1)
		if status := w.recorder.last(); len(w.recorder.warnings()) != 0 || status.Stale != nil || !status.LastRefresh.Equal(asked) {
			t.Errorf("events %+v, status %+v", w.recorder.warnings(), status)
		}
		<-time.After(2*time.Minute - 9*time.Second)
		wantFetches(t, w, 2)
		if after := w.gateway.fetches()[1].GetFetchedAfter().AsTime(); !after.Equal(asked) {
			t.Errorf("fetched after %v, want what is newer than %v", after, asked)
		}
	})
}
