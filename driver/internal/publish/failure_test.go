package publish_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/postern-dev/postern/driver/internal/podstatus"
	"github.com/postern-dev/postern/internal/rpc"
)

var (
	errDenied  = &rpc.Error{Reason: rpc.ReasonAccessDenied, Code: codes.PermissionDenied, Message: `provider "vault": object "password": denied`}
	errDown    = &rpc.Error{Reason: rpc.ReasonStoreUnavailable, Code: codes.Unavailable, Message: `provider "vault": no answer`}
	errExpired = &rpc.Error{Reason: rpc.ReasonTokenInvalid, Code: codes.Unauthenticated, Message: "the token is expired"}
)

// nextFetch waits for it, and wants it to be that one, within an interval.
func nextFetch(t *testing.T, w *world, fetches int) {
	t.Helper()
	for end := time.Now().Add(interval + late); time.Now().Before(end) && len(w.gateway.fetches()) < fetches; {
		<-time.After(10 * time.Millisecond)
	}
	wantFetches(t, w, fetches)
}

// A store that is down is told of once it seems to last, by one series of
// events, and what is mounted stays. When it is back the volume is fresh within
// a step of the backoff.
func TestRefresh_Outage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, _ := rotated(t)
		mounted := time.Now()
		w.gateway.become(nil, errDown)
		nextFetch(t, w, 2)
		if last := w.recorder.last(); last.Stale != nil || len(w.recorder.warnings()) != 0 {
			t.Errorf("told at the first failure: %+v, %+v", last.Stale, w.recorder.warnings())
		}
		<-time.After(3 * interval)
		synctest.Wait()
		mustHold(t, w, "-rw-r----- "+canary)
		events := w.recorder.warnings()
		if len(events) < 3 {
			t.Fatalf("events: %+v", events)
		}
		for _, event := range events {
			if event.Reason != podstatus.ReasonRotationFailed || event.Key == "" || event.Key != events[0].Key || !strings.Contains(event.Message, "failed to refresh") || !strings.Contains(event.Message, "no answer") {
				t.Errorf("event %+v", event)
			}
		}
		if first := events[0].Detail; !strings.HasPrefix(first, "the content is ") || first == events[1].Detail {
			t.Errorf("details %q and %q", first, events[1].Detail)
		}
		if last := w.recorder.last(); last.Stale == nil || last.Stale.Reason != rpc.ReasonStoreUnavailable || !last.LastRefresh.Equal(mounted) || last.Objects[0].Version != "1" {
			t.Errorf("status: %+v, %+v", last, last.Stale)
		}
		// Each minute from the seventh failure on.
		before := len(w.gateway.fetches())
		<-time.After(10 * time.Minute)
		synctest.Wait()
		if got := len(w.gateway.fetches()) - before; got < 8 || got > 10 {
			t.Errorf("%d attempts in ten minutes", got)
		}
		w.gateway.become(holding("new", "2", 0o600), nil)
		<-time.After(time.Minute * 6 / 5)
		synctest.Wait()
		mustHold(t, w, "-rw------- new")
		if last := w.recorder.last(); last.Stale != nil || last.Objects[0].Version != "2" || time.Since(last.LastRefresh) > 2*time.Minute {
			t.Errorf("status: %+v, %+v", last, last.Stale)
		}
		// The next outage begins anew: with a second, and nothing told.
		before = len(w.gateway.fetches())
		w.gateway.become(nil, errDown)
		nextFetch(t, w, before+1)
		if last := w.recorder.last(); last.Stale != nil {
			t.Errorf("told at the first failure of another outage: %+v", last.Stale)
		}
		<-time.After(2 * time.Second)
		wantFetches(t, w, before+2)
	})
}

// What somebody has to mend is told at once, and tried less often.
func TestRefresh_Refused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, _ := rotated(t)
		w.gateway.become(nil, errDenied)
		nextFetch(t, w, 2)
		events := w.recorder.warnings()
		if len(events) != 1 || events[0].Reason != podstatus.ReasonRotationFailed || !strings.Contains(events[0].Message, "denied") {
			t.Fatalf("events: %+v", events)
		}
		if last := w.recorder.last(); last.Stale == nil || last.Stale.Reason != rpc.ReasonAccessDenied {
			t.Errorf("status: %+v", last.Stale)
		}
		before := len(w.gateway.fetches())
		<-time.After(time.Hour)
		synctest.Wait()
		if got := len(w.gateway.fetches()) - before; got < 24 || got > 32 {
			t.Errorf("%d attempts in an hour", got)
		}
		mustHold(t, w, "-rw-r----- "+canary)
	})
}

// A store that asks to slow down is asked as late as it says.
func TestRefresh_RetryAfter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, _ := rotated(t)
		w.gateway.become(nil, &rpc.Error{Reason: rpc.ReasonRateLimited, Message: "slow down", RetryAfter: 7 * time.Minute})
		nextFetch(t, w, 2)
		if len(w.recorder.warnings()) != 1 {
			t.Errorf("warnings: %+v", w.recorder.warnings())
		}
		<-time.After(7*time.Minute - time.Second)
		wantFetches(t, w, 2)
		<-time.After(7 * time.Minute / 5)
		wantFetches(t, w, 3)
	})
}

// Nothing is tried with tokens that have expired; the next call of kubelet
// brings others.
func TestRefresh_ExpiredTokens(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, p := rotated(t)
		w.gateway.become(nil, errExpired)
		<-time.After(time.Hour)
		wantFetches(t, w, 2)
		events := w.recorder.warnings()
		if len(events) != 1 || !strings.Contains(events[0].Message, "when kubelet calls next") {
			t.Errorf("events: %+v", events)
		}
		w.gateway.become(holding("new", "2", 0o600), nil)
		if err := p.Publish(t.Context(), request(t, nil)); err != nil {
			t.Fatal(err)
		}
		wantFetches(t, w, 3)
		mustHold(t, w, "-rw------- new")
		if last := w.recorder.last(); last.Stale != nil {
			t.Errorf("status: %+v", last.Stale)
		}
	})
}

// A class that is gone, or cannot be read, is a failure as any other.
func TestRefresh_ClassGone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, _ := rotated(t)
		class := w.classes.remove()
		<-time.After(interval)
		wantFetches(t, w, 1)
		if last := w.recorder.last(); last.Stale == nil || last.Stale.Reason != rpc.ReasonSecretProviderClassNotFound {
			t.Errorf("status: %+v", last.Stale)
		}
		w.classes.put(class)
		<-time.After(time.Minute)
		wantFetches(t, w, 2)
		mustHold(t, w, "-rw------- new")
	})
}

// What cannot be written is a failure too, and the store is asked again.
func TestRefresh_CannotWrite(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, _ := rotated(t)
		w.volumes.fail(errors.New("no space left on device"))
		nextFetch(t, w, 2)
		mustHold(t, w, "-rw-r----- "+canary)
		if last := w.recorder.last(); last.Stale == nil || last.Stale.Reason != rpc.ReasonMountFailed || last.Objects[0].Version != "1" {
			t.Errorf("status: %+v", last)
		}
		w.volumes.fail(nil)
		<-time.After(36 * time.Second)
		wantFetches(t, w, 3)
		// It still holds the old content, and says so.
		if got := w.gateway.fetches()[2].GetCurrentObjects(); len(got) != 1 || got[0].GetVersion() != "1" {
			t.Errorf("current objects: %v", got)
		}
		mustHold(t, w, "-rw------- new")
	})
}
