package podstatus_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/postern-dev/postern/driver/internal/kube/kubetest"
	"github.com/postern-dev/postern/driver/internal/podstatus"
)

// event is what the tests look at.
type event struct {
	Name, Reason, Message, Type string
	Count                       int
	Component, Host             string
	PodUID                      string
}

func (b *bench) events() []event {
	b.t.Helper()
	synctest.Wait()
	var events []event
	for _, name := range b.cluster.Names("events", "shop") {
		var stored struct {
			Metadata       struct{ Name string }
			InvolvedObject struct{ UID string }
			Source         struct{ Component, Host string }
			Reason         string
			Message        string
			Type           string
			Count          int
		}
		if _, err := b.cluster.Get("events", "shop", name, &stored); err != nil {
			b.t.Fatalf("Get: %v", err)
		}
		events = append(events, event{
			Name: stored.Metadata.Name, Reason: stored.Reason, Message: stored.Message, Type: stored.Type, Count: stored.Count,
			Component: stored.Source.Component, Host: stored.Source.Host, PodUID: stored.InvolvedObject.UID,
		})
	}
	return events
}

func warning() podstatus.Event {
	return podstatus.Event{
		Pod:     podstatus.Pod{Namespace: "shop", Name: "web-0", UID: "u1"},
		Reason:  podstatus.ReasonMountFailed,
		Message: "no such object: create it",
	}
}

func TestRecorder_Tell(t *testing.T) {
	inBubble(t, func(b *bench) {
		e := warning()
		e.TraceID = "0af7651916cd43dd8448eb211c80319c"
		b.recorder.Tell(e)
		got := b.events()
		if len(got) != 1 || !strings.HasPrefix(got[0].Name, "web-0.") {
			t.Fatalf("got %v, want one event named after the pod", got)
		}
		want := event{
			Name: got[0].Name, Reason: "SecretsMountFailed", Type: "Warning", Count: 1, Component: "secrets-store-csi-driver", Host: "n1", PodUID: "u1",
			Message: "no such object: create it (trace 0af7651916cd43dd8448eb211c80319c)",
		}
		if diff := cmp.Diff(want, got[0]); diff != "" {
			t.Errorf("event (-want +got):\n%s", diff)
		}
	})
}

func TestRecorder_Tell_CountsWhatRepeats(t *testing.T) {
	inBubble(t, func(b *bench) {
		for i := range 30 { // every two seconds, each with its own trace
			e := warning()
			e.TraceID = fmt.Sprint(i)
			b.recorder.Tell(e)
			<-time.After(2 * time.Second)
		}
		b.wantCalls("GET web-0", "POST events")
		b.recorder.Tell(warning())
		synctest.Wait()
		if calls := b.cluster.Calls(); len(calls) != 1 || !strings.HasPrefix(calls[0], "PATCH ") {
			t.Errorf("got calls %q, want one patch after a minute", calls)
		}
		if got := b.events(); len(got) != 1 || got[0].Count != 31 {
			t.Errorf("got %v, want one event that counts 31", got)
		}
		<-time.After(10 * time.Minute)
		b.recorder.Tell(warning())
		if got := b.events(); len(got) != 2 {
			t.Errorf("got %v, want another event once the window is over", got)
		}
	})
}

func TestRecorder_Tell_CombinesManyMessages(t *testing.T) {
	inBubble(t, func(b *bench) {
		for i := range 100 {
			e := warning()
			e.Message = fmt.Sprintf("denied, request id %d", i)
			b.recorder.Tell(e)
			synctest.Wait()
		}
		<-time.After(time.Minute)
		e := warning()
		e.Message = "denied, request id 100"
		b.recorder.Tell(e)
		got := b.events()
		if len(got) != 6 {
			t.Fatalf("%d events, want 5 and a combined one", len(got))
		}
		combined := 0
		for _, e := range got {
			if e.Message == "(combined from similar events): denied, request id 100" && e.Count == 96 {
				combined++
			}
		}
		if combined != 1 {
			t.Errorf("got %v, want one combined event that counts 96", got)
		}
	})
}

func TestRecorder_Tell_NotForPodsThatAreGone(t *testing.T) {
	tests := []struct {
		name string
		pod  podstatus.Pod
	}{
		{name: "gone", pod: podstatus.Pod{Namespace: "shop", Name: "web-9", UID: "u9"}},
		{name: "replaced by one of the same name", pod: podstatus.Pod{Namespace: "shop", Name: "web-0", UID: "u0"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(b *bench) {
				e := warning()
				e.Pod = test.pod
				b.recorder.Tell(e)
				if got := b.events(); len(got) != 0 {
					t.Errorf("got %v, want no event", got)
				}
				b.wantCalls("GET " + test.pod.Name)
			})
		})
	}
}

func TestRecorder_Tell_MayNotReadPods(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.cluster.Intercept(func(r *http.Request) *metav1.Status {
			if r.Method == http.MethodGet {
				return kubetest.Status(403, metav1.StatusReasonForbidden, "no")
			}
			return nil
		})
		b.recorder.Tell(warning())
		if got := b.events(); len(got) != 1 {
			t.Errorf("got %v, want the event", got)
		}
	})
}

func TestRecorder_Tell_DroppedByTheServer(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.recorder.Tell(warning())
		name := b.events()[0].Name
		b.cluster.Delete("events", "shop", name)
		<-time.After(time.Minute)
		b.recorder.Tell(warning())
		if got := b.events(); len(got) != 1 || got[0].Count != 2 {
			t.Errorf("got %v, want it again, counting 2", got)
		}
	})
}

func TestRecorder_Tell_Retries(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.cluster.Intercept(func(*http.Request) *metav1.Status {
			return kubetest.Status(500, metav1.StatusReasonInternalError, "down")
		})
		b.recorder.Tell(warning())
		<-time.After(10 * time.Second)
		b.recorder.Tell(warning())
		b.cluster.Intercept(nil)
		<-time.After(time.Minute)
		if got := b.events(); len(got) != 1 || got[0].Count != 2 {
			t.Errorf("got %v, want one event that counts 2", got)
		}
	})
}

func TestRecorder_Tell_Bounds(t *testing.T) {
	inBubble(t, func(b *bench) {
		e := warning()
		e.Pod.Name = strings.Repeat("p", 253)
		put(t, b.cluster, "pods", "shop", metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: e.Pod.Name, UID: "u1"}})
		e.Message = strings.Repeat("ü", 2000) + "\xff"
		e.Detail = strings.Repeat("d", 2000)
		e.TraceID = "abc"
		b.recorder.Tell(e)
		got := b.events()
		if len(got) != 1 {
			t.Fatalf("got %v, want one event", got)
		}
		if n := len(got[0].Message); n > 1024 || n < 1020 || !utf8.ValidString(got[0].Message) || !strings.HasSuffix(got[0].Message, "... ("+strings.Repeat("d", 253)+"..., trace abc)") {
			t.Errorf("message of %d bytes, valid UTF-8 %v, ends in %q", n, utf8.ValidString(got[0].Message), got[0].Message[n-20:])
		}
		if n := len(got[0].Name); n > 253 {
			t.Errorf("name of %d bytes", n)
		}
	})
}

func TestRecorder_Tell_Normal(t *testing.T) {
	inBubble(t, func(b *bench) {
		e := warning()
		e.Normal, e.Reason, e.Message = true, podstatus.ReasonRotationComplete, "the volume has new content"
		b.recorder.Tell(e)
		got := b.events()
		if len(got) != 1 || got[0].Type != "Normal" || got[0].Reason != "MountRotationComplete" {
			t.Errorf("got %v, want one of type Normal", got)
		}
	})
}

// Dashboards and scripts that were made for the upstream driver look for these.
func TestReasons_OfUpstream(t *testing.T) {
	t.Parallel()
	for reason, want := range map[podstatus.Reason]string{
		podstatus.ReasonRotationFailed:   "MountRotationFailed",
		podstatus.ReasonRotationComplete: "MountRotationComplete",
		podstatus.ReasonSecretFailed:     "FailedToCreateSecret",
		podstatus.ReasonSecretComplete:   "SecretRotationComplete",
	} {
		if string(reason) != want {
			t.Errorf("got %s, want %s", reason, want)
		}
	}
}

// A failure that lasts is one event, whatever its wording, age and trace.
func TestRecorder_Tell_Key(t *testing.T) {
	inBubble(t, func(b *bench) {
		for i := range 12 {
			e := warning()
			e.Key = "csi-1/STORE_UNAVAILABLE"
			e.Message, e.Detail, e.TraceID = fmt.Sprintf("request %d failed", i), fmt.Sprintf("%dm old", i*2), fmt.Sprint(i)
			b.recorder.Tell(e)
			<-time.After(2 * time.Minute)
		}
		got := b.events()
		if len(got) != 1 || got[0].Count < 9 {
			t.Fatalf("got %v, want one event that counts", got)
		}
		var number, age, trace int
		if _, err := fmt.Sscanf(got[0].Message, "request %d failed (%dm old, trace %d)", &number, &age, &trace); err != nil ||
			number != got[0].Count-1 || age != number*2 || trace != number {
			t.Errorf("message %q, want that of the event that was counted last (%v)", got[0].Message, err)
		}
		other := warning()
		other.Key, other.Message = "csi-2/STORE_UNAVAILABLE", "request 1 failed"
		b.recorder.Tell(other)
		other.Key = "csi-3/STORE_UNAVAILABLE" // the same words at the same moment
		b.recorder.Tell(other)
		if got := b.events(); len(got) != 3 {
			t.Errorf("got %v, want one event more of each other volume", got)
		}
	})
}

// A store that is away for hours, for the pods of all nodes, must not make
// every node write every minute.
func TestRecorder_Tell_RepeatsEverMoreRarely(t *testing.T) {
	inBubble(t, func(b *bench) {
		began := time.Now()
		var wrote []float64
		b.cluster.Intercept(func(r *http.Request) *metav1.Status {
			if r.Method != http.MethodGet {
				wrote = append(wrote, time.Since(began).Minutes())
			}
			return nil
		})
		for time.Since(began) <= time.Hour {
			b.recorder.Tell(warning())
			<-time.After(30 * time.Second)
		}
		synctest.Wait()
		want := []float64{0, 1, 3, 7, 15, 25, 35, 45, 55}
		if diff := cmp.Diff(want, wrote); diff != "" {
			t.Errorf("written after minutes (-want +got):\n%s", diff)
		}
	})
}

// What could not be told for a while is told, and nobody cares for what is old.
func TestRecorder_Tell_Outage(t *testing.T) {
	for _, test := range []struct {
		outage time.Duration
		want   int
	}{{30 * time.Minute, 1}, {90 * time.Minute, 0}} {
		t.Run(test.outage.String(), func(t *testing.T) {
			inBubble(t, func(b *bench) {
				b.cluster.Intercept(func(*http.Request) *metav1.Status {
					return kubetest.Status(503, metav1.StatusReasonServiceUnavailable, "away")
				})
				b.recorder.Tell(warning())
				<-time.After(test.outage)
				b.cluster.Intercept(nil)
				b.cluster.ResetCalls()
				<-time.After(10 * time.Minute)
				if got := b.events(); len(got) != test.want {
					t.Errorf("got %v, want %d", got, test.want)
				}
				if test.want == 0 {
					b.wantCalls()
				}
			})
		})
	}
}

func TestRecorder_Tell_GivesUp(t *testing.T) {
	tests := []struct {
		name         string
		code         int
		why          metav1.StatusReason
		calls, count int
	}{
		{name: "event refused", code: 422, why: metav1.StatusReasonInvalid, calls: 1, count: 1},
		{name: "no such namespace", code: 404, why: metav1.StatusReasonNotFound, calls: 1, count: 1},
		{name: "lasting refusal", code: 403, why: metav1.StatusReasonForbidden, calls: 20, count: 2},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(b *bench) {
				b.cluster.Intercept(func(r *http.Request) *metav1.Status {
					if r.Method == http.MethodGet {
						return nil
					}
					return kubetest.Status(test.code, test.why, "no")
				})
				b.recorder.Tell(warning())
				<-time.After(50 * time.Minute)
				posts := 0
				for _, call := range b.cluster.Calls() {
					if strings.HasPrefix(call, "POST") {
						posts++
					}
				}
				if posts != test.calls {
					t.Errorf("%d attempts, want %d", posts, test.calls)
				}
				b.cluster.Intercept(nil)
				b.recorder.Tell(warning())
				if got := b.events(); len(got) != 1 || got[0].Count != test.count {
					t.Errorf("got %v, want it told again, counting %d", got, test.count)
				}
			})
		})
	}
}
