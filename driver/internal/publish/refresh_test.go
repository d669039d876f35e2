package publish_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "github.com/postern-dev/postern/driver/api/v1"
	"github.com/postern-dev/postern/driver/internal/podstatus"
	"github.com/postern-dev/postern/driver/internal/publish"
	"github.com/postern-dev/postern/internal/redact"
	"github.com/postern-dev/postern/internal/rpc"
	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
)

const interval = 2 * time.Minute

// late is how much later than its time a refresh may come.
const late = 2 * time.Second

// rotated is a world whose volume is mounted and refreshed every two minutes,
// and whose store has another content from now on.
func rotated(t *testing.T) (*world, *publish.Publisher) {
	t.Helper()
	w := newWorld(t)
	w.config.RotationPollInterval = interval
	p := w.running(t)
	mustPublish(t, w, p, 1)
	w.gateway.become(holding("new", "2", 0o600), nil)
	return w, p
}

// mustPublish publishes, and wants so many fetches to have been made by then.
func mustPublish(t *testing.T, w *world, p *publish.Publisher, fetches int) {
	t.Helper()
	if err := p.Publish(t.Context(), request(t, nil)); err != nil {
		t.Fatal(err)
	}
	wantFetches(t, w, fetches)
}

func wantFetches(t *testing.T, w *world, fetches int) {
	t.Helper()
	synctest.Wait()
	if got := len(w.gateway.fetches()); got != fetches {
		t.Fatalf("%d fetches, want %d", got, fetches)
	}
}

func mustHold(t *testing.T, w *world, want string) {
	t.Helper()
	if diff := cmp.Diff(map[string]string{"password": want}, w.volumes.at(target)); diff != "" {
		t.Errorf("mounted (-want +got):\n%s", diff)
	}
}

// An hour has thirty intervals of two minutes, however often kubelet calls.
func TestRefresh_EachInterval(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, p := rotated(t)
		for range 60 {
			<-time.After(time.Minute)
			if err := p.Publish(t.Context(), request(t, nil)); err != nil {
				t.Fatal(err)
			}
		}
		fetches := w.gateway.fetches()
		if got := len(fetches) - 1; got < 29 || got > 31 {
			t.Errorf("%d refreshes in an hour", got)
		}
		mustHold(t, w, "-rw------- new")
		if got := w.volumes.written(); got != 2 {
			t.Errorf("written %d times, want the mount and one change", got)
		}
		told := w.recorder.told(podstatus.ReasonRotationComplete)
		if len(told) != 1 || !told[0].Normal || !strings.Contains(told[0].Message, "password") {
			t.Errorf("told of changes: %+v", told)
		}
		if len(w.recorder.warnings()) != 0 {
			t.Errorf("warnings: %+v", w.recorder.warnings())
		}
	})
}

// A refresh says what the volume holds, and asks for what is newer.
func TestRefresh_Request(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, _ := rotated(t)
		mounted := time.Now()
		w.classes.set("rotationPollInterval", "2m")
		<-time.After(interval)
		wantFetches(t, w, 2)
		first, second := w.gateway.fetches()[0], w.gateway.fetches()[1]
		if first.GetRefresh() || first.GetFetchedAfter() != nil || first.GetCurrentObjects() != nil || first.GetRefreshInterval().AsDuration() != interval {
			t.Errorf("the mount asked for %v", first)
		}
		if !second.GetRefresh() || !second.GetFetchedAfter().AsTime().Equal(mounted) || second.GetRefreshInterval().AsDuration() != interval ||
			len(second.GetCurrentObjects()) != 1 || second.GetCurrentObjects()[0].GetVersion() != "1" {
			t.Errorf("the refresh asked for %v", second)
		}
		if _, ok := second.GetParameters()["rotationPollInterval"]; ok || second.GetParameters()["roleName"] != "shop" {
			t.Errorf("parameters: %v", second.GetParameters())
		}
		if last := w.recorder.last(); last.Objects[0].Version != "2" {
			t.Errorf("status: %+v", last)
		}
	})
}

// What kubelet brings with a repeated call is for the next refresh.
func TestRefresh_NewestTokens(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, p := rotated(t)
		renewed := request(t, nil)
		renewed.EncodedTokens = redact.NewString(`{"vault":{"token":"renewed","expirationTimestamp":"2030-01-01T00:00:00Z"}}`)
		if err := p.Publish(t.Context(), renewed); err != nil {
			t.Fatal(err)
		}
		wantFetches(t, w, 1)
		<-time.After(interval)
		wantFetches(t, w, 2)
		if got := w.gateway.fetches()[1].GetTokens()[0].GetToken(); got != "renewed" {
			t.Errorf("token %q", got)
		}
	})
}

func TestRefresh_Never(t *testing.T) {
	t.Parallel()
	for name, set := range map[string]func(*world){
		"flag":  func(w *world) { w.config.RotationPollInterval = 0 },
		"class": func(w *world) { w.classes.set("rotationPollInterval", "off") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.config.RotationPollInterval = interval
				set(w)
				p := w.running(t)
				mustPublish(t, w, p, 1)
				<-time.After(24 * time.Hour)
				mustPublish(t, w, p, 1)

				other := w.running(t) // a driver that was restarted
				mustPublish(t, w, other, 1)
				<-time.After(24 * time.Hour)
				mustPublish(t, w, other, 1)

				// The driver hears of it a moment after the class has it.
				w.classes.change(func(class *apiv1.SecretProviderClass) {
					class.Annotations = map[string]string{apiv1.AnnotationRefresh: "now"}
				})
				third := w.running(t)
				mustPublish(t, w, third, 1)
				third.RequestRefresh("shop", "database", "now")
				wantFetches(t, w, 2)
			})
		})
	}
}

func TestRefresh_IntervalOfTheClass(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.config.RotationPollInterval = time.Hour
		w.classes.set("rotationPollInterval", "5s")
		mustPublish(t, w, w.running(t), 1)
		<-time.After(time.Minute)
		synctest.Wait()
		if got := len(w.gateway.fetches()) - 1; got < 11 || got > 13 {
			t.Errorf("%d refreshes in a minute of intervals of 5 s", got)
		}
		// The class is read at each refresh.
		w.classes.set("rotationPollInterval", "off")
		<-time.After(6 * time.Second)
		synctest.Wait()
		before := len(w.gateway.fetches())
		<-time.After(time.Hour)
		wantFetches(t, w, before)
	})
}

func TestPublish_BadInterval(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.classes.set("rotationPollInterval", "often")
	err := w.publisher(t).Publish(t.Context(), request(t, nil))
	if failure := rpc.FromError(err); failure.Reason != rpc.ReasonInvalidParameters || !strings.Contains(failure.Message, "secretproviderclass database") {
		t.Errorf("error: %v", err)
	}
}

// A driver that was restarted, or has replaced another one, does not know how
// old what is mounted is: it looks when kubelet calls. An answer as young as the
// interval will do.
func TestRefresh_AdoptedVolumeAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, _ := rotated(t)
		other := w.running(t)
		if err := other.Publish(t.Context(), request(t, nil)); err != nil {
			t.Fatal(err)
		}
		wantFetches(t, w, 2)
		adopted := w.gateway.fetches()[1]
		if !adopted.GetRefresh() || adopted.GetCurrentObjects() != nil || !adopted.GetFetchedAfter().AsTime().Equal(time.Now().Add(-interval)) {
			t.Errorf("asked for %v", adopted)
		}
		mustHold(t, w, "-rw------- new")
		if got := w.triggers.of("csi-1"); got != "shop/database" {
			t.Errorf("watches %q", got)
		}
	})
}

// The provider says when what it issued has to be replaced. That is no reason to
// look less often at what else there is.
func TestRefresh_WhenTheProviderSays(t *testing.T) {
	t.Parallel()
	for ofClass, want := range map[string]int{"5m": 12, "off": 6, "1h": 6} {
		t.Run(ofClass, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.classes.set("rotationPollInterval", ofClass)
				issued := holding("issued", "1", 0o600)
				issued.RefreshAfter = durationpb.New(10 * time.Minute)
				w.gateway.become(issued, nil)
				mustPublish(t, w, w.running(t), 1)
				<-time.After(time.Hour)
				synctest.Wait()
				if got := len(w.gateway.fetches()) - 1; got < want-1 || got > want+1 {
					t.Errorf("%d refreshes in an hour, want %d", got, want)
				}
			})
		})
	}
}

// What has not changed is not written, nor sent.
func TestRefresh_NotModified(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, _ := rotated(t)
		mounted := w.volumes.at(target)
		w.gateway.asked(func(r *gatewayv1.FetchRequest) (*gatewayv1.FetchResponse, error) {
			if len(r.GetCurrentObjects()) != 1 || r.GetCurrentObjects()[0].GetVersion() != "1" {
				t.Errorf("the volume is said to hold %v", r.GetCurrentObjects())
			}
			return &gatewayv1.FetchResponse{NotModified: true}, nil
		})
		<-time.After(time.Hour)
		synctest.Wait()
		if diff := cmp.Diff(mounted, w.volumes.at(target)); diff != "" || w.volumes.written() != 1 {
			t.Errorf("written %d times (-want +got):\n%s", w.volumes.written(), diff)
		}
		if last := w.recorder.last(); last.Objects[0].Version != "1" || time.Since(last.LastRefresh) > interval+late || last.Stale != nil {
			t.Errorf("status: %+v", last)
		}
	})
}

// A provider hears what it last said of the volume, also with an answer that
// brought nothing new.
func TestRefresh_ProviderState(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.config.RotationPollInterval = interval
		answer := func(response *gatewayv1.FetchResponse, state string) {
			response.ProviderState = []byte(state)
			w.gateway.become(response, nil)
		}
		answer(holding("issued", "1", 0o600), "a")
		mustPublish(t, w, w.running(t), 1)
		answer(&gatewayv1.FetchResponse{NotModified: true}, "b")
		nextFetch(t, w, 2)
		answer(&gatewayv1.FetchResponse{NotModified: true}, "")
		nextFetch(t, w, 3)
		nextFetch(t, w, 4)
		var got []string
		for _, fetch := range w.gateway.fetches() {
			got = append(got, string(fetch.GetProviderState()))
		}
		if diff := cmp.Diff([]string{"", "a", "b", ""}, got); diff != "" {
			t.Errorf("states (-want +got):\n%s", diff)
		}
	})
}

// Versions and states of one provider mean nothing to another.
func TestRefresh_OtherProvider(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, _ := rotated(t)
		w.classes.change(func(class *apiv1.SecretProviderClass) { class.Spec.Provider = "aws" })
		<-time.After(interval)
		wantFetches(t, w, 2)
		if got := w.gateway.fetches()[1]; got.GetProvider() != "aws" || got.GetCurrentObjects() != nil {
			t.Errorf("asked for %v", got)
		}
	})
}

// Somebody who asks for a refresh gets what the store holds from then on, once.
func TestRefresh_Requested(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, p := rotated(t)
		<-time.After(10 * time.Second)
		annotate := func(value string) {
			w.classes.change(func(class *apiv1.SecretProviderClass) {
				class.Annotations = map[string]string{apiv1.AnnotationRefresh: value}
			})
			p.RequestRefresh("shop", "database", value)
		}
		asked := time.Now()
		annotate("1")
		wantFetches(t, w, 2)
		if after := w.gateway.fetches()[1].GetFetchedAfter().AsTime(); !after.Equal(asked) {
			t.Errorf("fetched after %v, want %v", after, asked)
		}
		mustHold(t, w, "-rw------- new")
		annotate("1") // seen again
		p.RequestRefresh("shop", "database", "")
		p.RequestRefresh("shop", "other", "2")
		p.RequestRefresh("other", "database", "2")
		<-time.After(time.Second)
		wantFetches(t, w, 2)
		annotate("2")
		wantFetches(t, w, 3)
		<-time.After(interval + late)
		wantFetches(t, w, 4) // and on as before
	})
}

// A request that comes while the store is being asked is not served by that.
func TestRefresh_RequestedDuringRefresh(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, p := rotated(t)
		asking := make(chan struct{})
		w.gateway.asked(func(*gatewayv1.FetchRequest) (*gatewayv1.FetchResponse, error) {
			if len(w.gateway.fetches()) == 2 {
				asked := timestamppb.Now()
				<-asking
				response := holding("before", "2", 0o600)
				response.FetchedAt = asked
				return response, nil
			}
			return holding("after", "3", 0o600), nil
		})
		<-time.After(interval)
		wantFetches(t, w, 2)
		<-time.After(time.Second)
		p.RequestRefresh("shop", "database", "1")
		wantFetches(t, w, 2)
		close(asking)
		wantFetches(t, w, 3)
		mustHold(t, w, "-rw------- after")
	})
}

// A volume that somebody unmounted is kubelet's to have mounted again.
func TestRefresh_LostVolume(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, p := rotated(t)
		w.volumes.lose(target)
		<-time.After(time.Hour)
		synctest.Wait()
		if len(w.recorder.warnings()) != 0 || w.volumes.at(target) != nil || len(w.gateway.releases()) != 0 {
			t.Errorf("warnings %+v, mounted %v, released %v", w.recorder.warnings(), w.volumes.at(target), w.gateway.releases())
		}
		if err := p.Publish(t.Context(), request(t, nil)); err != nil {
			t.Fatal(err)
		}
		mustHold(t, w, "-rw------- new")
		before := len(w.gateway.fetches())
		<-time.After(interval)
		wantFetches(t, w, before+1)
	})
}

// A refresh that hangs keeps neither kubelet's calls waiting nor the volume, and
// what it brings comes to nothing.
func TestRefresh_UnpublishMeanwhile(t *testing.T) {
	t.Parallel()
	for name, brought := range map[string]*gatewayv1.FetchResponse{
		"new content": holding("issued", "2", 0o600),
		"nothing new": {NotModified: true},
		"a failure":   nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { unpublishMeanwhile(t, brought) })
		})
	}
}

func unpublishMeanwhile(t *testing.T, brought *gatewayv1.FetchResponse) {
	w, p := rotated(t)
	answered := make(chan struct{})
	w.gateway.asked(func(*gatewayv1.FetchRequest) (*gatewayv1.FetchResponse, error) {
		<-answered
		if brought == nil {
			return nil, errDenied
		}
		return brought, nil
	})
	<-time.After(interval)
	wantFetches(t, w, 2)
	started := time.Now()
	mustPublish(t, w, p, 2)
	if err := p.Unpublish(t.Context(), "csi-1", target); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	if took := time.Since(started); took != 0 {
		t.Errorf("kubelet waited for %v", took)
	}
	if got := w.gateway.releases(); len(got) != 1 {
		t.Errorf("released %v", got)
	}
	told := w.recorder.count()
	close(answered)
	<-time.After(time.Hour)
	wantFetches(t, w, 2)
	if w.volumes.at(target) != nil || w.recorder.count() != told || w.triggers.of("csi-1") != "" {
		t.Errorf("mounted %v, told %d times more, watches %q", w.volumes.at(target), w.recorder.count()-told, w.triggers.of("csi-1"))
	}
	// What was issued after the release is released too.
	if got := w.gateway.releases(); len(got) != 2 {
		t.Errorf("released %v", got)
	}
}

// A volume that comes back under the same id does not get what was fetched for
// the former one.
func TestRefresh_PublishedAgainMeanwhile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, p := rotated(t)
		answered := make(chan struct{})
		w.gateway.asked(func(r *gatewayv1.FetchRequest) (*gatewayv1.FetchResponse, error) {
			if !r.GetRefresh() {
				return holding("again", "3", 0o600), nil
			}
			<-answered
			return holding("former", "2", 0o600), nil
		})
		<-time.After(interval)
		wantFetches(t, w, 2)
		if err := p.Unpublish(t.Context(), "csi-1", target); err != nil {
			t.Fatal(err)
		}
		mustPublish(t, w, p, 3)
		released := len(w.gateway.releases())
		close(answered)
		<-time.After(time.Minute / 2)
		mustHold(t, w, "-rw------- again")
		if got := w.gateway.releases(); len(got) != released {
			t.Errorf("what the volume has is released: %v", got)
		}
	})
}

// A refresh that waits for its store ends with its volume.
func TestRefresh_EndsWithTheVolume(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, p := rotated(t)
		ended := make(chan time.Time, 1)
		w.gateway.hang(func() { ended <- time.Now() })
		<-time.After(interval)
		wantFetches(t, w, 2)
		unpublished := time.Now()
		if err := p.Unpublish(t.Context(), "csi-1", target); err != nil {
			t.Fatal(err)
		}
		if at := <-ended; !at.Equal(unpublished) {
			t.Errorf("it went on for %v", at.Sub(unpublished))
		}
	})
}

// What hangs ends, and is tried again.
func TestRefresh_IsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, _ := rotated(t)
		w.gateway.hang(nil)
		<-time.After(interval + 10*time.Minute)
		synctest.Wait()
		if got := len(w.gateway.fetches()); got < 6 {
			t.Errorf("%d fetches", got)
		}
		if last := w.recorder.last(); last.Stale == nil {
			t.Errorf("status: %+v", last)
		}
	})
}

// A panic is the failure of one volume, not of the node.
func TestRefresh_Panic(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, _ := rotated(t)
		w.gateway.asked(func(*gatewayv1.FetchRequest) (*gatewayv1.FetchResponse, error) { panic("a defect") })
		<-time.After(interval + 10*time.Second)
		synctest.Wait()
		if last := w.recorder.last(); last.Stale == nil || last.Stale.Reason != rpc.ReasonInternal {
			t.Errorf("status: %+v", last.Stale)
		}
		w.gateway.asked(nil)
		<-time.After(time.Minute)
		synctest.Wait()
		mustHold(t, w, "-rw------- new")
	})
}

// A gateway that gives an old answer, as one of another version may, is not
// asked without a pause.
func TestRefresh_OldAnswers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, _ := rotated(t)
		old := holding("new", "2", 0o600)
		old.FetchedAt = timestamppb.New(time.Now().Add(-time.Hour))
		w.gateway.become(old, nil)
		<-time.After(interval + time.Minute)
		synctest.Wait()
		if got := len(w.gateway.fetches()); got > 1+120 {
			t.Errorf("%d fetches", got)
		}
	})
}

// A driver that ends ends its refreshes, which is no failure of theirs.
func TestPublisher_RunEndsItsRefreshes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, reader := measured(t)
		p := w.publisher(t)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- p.Run(ctx) }()
		mustPublish(t, w, p, 1)
		w.gateway.hang(nil)
		<-time.After(interval - time.Second) // longer than a refresh may take
		failures := func() (sum float64) {
			for name, value := range gauges(t, reader) {
				if strings.HasPrefix(name, "postern.driver.refreshes failed") {
					sum += value
				}
			}
			return sum
		}
		told, failed := w.recorder.count(), failures()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if failures() != failed || w.recorder.count() != told {
			t.Errorf("%v failures, want %v; told %d times more", failures(), failed, w.recorder.count()-told)
		}
	})
}
