package podstatus_test

import (
	"bytes"
	"fmt"
	"log/slog"
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

func TestRecorder_Warn(t *testing.T) {
	inBubble(t, func(b *bench) {
		e := warning()
		e.TraceID = "0af7651916cd43dd8448eb211c80319c"
		b.recorder.Warn(e)
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

func TestRecorder_Warn_CountsWhatRepeats(t *testing.T) {
	inBubble(t, func(b *bench) {
		for i := range 30 { // every two seconds, each with its own trace
			e := warning()
			e.TraceID = fmt.Sprint(i)
			b.recorder.Warn(e)
			<-time.After(2 * time.Second)
		}
		b.wantCalls("GET web-0", "POST events")
		b.recorder.Warn(warning())
		synctest.Wait()
		if calls := b.cluster.Calls(); len(calls) != 1 || !strings.HasPrefix(calls[0], "PATCH ") {
			t.Errorf("got calls %q, want one patch after a minute", calls)
		}
		if got := b.events(); len(got) != 1 || got[0].Count != 31 {
			t.Errorf("got %v, want one event that counts 31", got)
		}
		<-time.After(10 * time.Minute)
		b.recorder.Warn(warning())
		if got := b.events(); len(got) != 2 {
			t.Errorf("got %v, want another event once the window is over", got)
		}
	})
}

func TestRecorder_Warn_CombinesManyMessages(t *testing.T) {
	inBubble(t, func(b *bench) {
		for i := range 100 {
			e := warning()
			e.Message = fmt.Sprintf("denied, request id %d", i)
			b.recorder.Warn(e)
			synctest.Wait()
		}
		<-time.After(time.Minute)
		e := warning()
		e.Message = "denied, request id 100"
		b.recorder.Warn(e)
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

func TestRecorder_Warn_NotForPodsThatAreGone(t *testing.T) {
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
				b.recorder.Warn(e)
				if got := b.events(); len(got) != 0 {
					t.Errorf("got %v, want no event", got)
				}
				b.wantCalls("GET " + test.pod.Name)
			})
		})
	}
}

func TestRecorder_Warn_MayNotReadPods(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.cluster.Intercept(func(r *http.Request) *metav1.Status {
			if r.Method == http.MethodGet {
				return kubetest.Status(403, metav1.StatusReasonForbidden, "no")
			}
			return nil
		})
		b.recorder.Warn(warning())
		if got := b.events(); len(got) != 1 {
			t.Errorf("got %v, want the event", got)
		}
	})
}

func TestRecorder_Warn_DroppedByTheServer(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.recorder.Warn(warning())
		name := b.events()[0].Name
		b.cluster.Delete("events", "shop", name)
		<-time.After(time.Minute)
		b.recorder.Warn(warning())
		if got := b.events(); len(got) != 1 || got[0].Count != 2 {
			t.Errorf("got %v, want it again, counting 2", got)
		}
	})
}

func TestRecorder_Warn_Retries(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.cluster.Intercept(func(*http.Request) *metav1.Status {
			return kubetest.Status(500, metav1.StatusReasonInternalError, "down")
		})
		b.recorder.Warn(warning())
		<-time.After(10 * time.Second)
		b.recorder.Warn(warning())
		b.cluster.Intercept(nil)
		<-time.After(time.Minute)
		if got := b.events(); len(got) != 1 || got[0].Count != 2 {
			t.Errorf("got %v, want one event that counts 2", got)
		}
	})
}

func TestRecorder_Warn_Bounds(t *testing.T) {
	inBubble(t, func(b *bench) {
		e := warning()
		e.Pod.Name = strings.Repeat("p", 253)
		put(t, b.cluster, "pods", "shop", metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: e.Pod.Name, UID: "u1"}})
		e.Message = strings.Repeat("ü", 2000) + "\xff"
		e.TraceID = "abc"
		b.recorder.Warn(e)
		got := b.events()
		if len(got) != 1 {
			t.Fatalf("got %v, want one event", got)
		}
		if n := len(got[0].Message); n > 1024 || n < 1020 || !utf8.ValidString(got[0].Message) || !strings.HasSuffix(got[0].Message, "... (trace abc)") {
			t.Errorf("message of %d bytes, valid UTF-8 %v, ends in %q", n, utf8.ValidString(got[0].Message), got[0].Message[n-20:])
		}
		if n := len(got[0].Name); n > 253 {
			t.Errorf("name of %d bytes", n)
		}
	})
}

func TestLogRecorder(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	recorder, err := podstatus.NewLogRecorder(slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatalf("NewLogRecorder: %v", err)
	}
	failing := mounted()
	failing.Failure = &podstatus.Failure{Reason: "STORE_UNAVAILABLE", Message: "down"}
	recorder.Mounted(mounted())
	recorder.Mounted(failing)
	recorder.Warn(warning())
	for _, want := range []string{
		`level=INFO msg="volume is in place" namespace=shop pod=web-0`,
		`level=WARN msg="volume keeps its last good content"`,
		`level=WARN msg="warning for a pod" namespace=shop pod=web-0 reason=SecretsMountFailed error="no such object: create it"`,
	} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("log lacks %q:\n%s", want, &log)
		}
	}
}

func TestNew_Errors(t *testing.T) {
	t.Parallel()
	if _, err := podstatus.New(podstatus.Config{}); err == nil || err.Error() != "recorder needs the node's name" {
		t.Errorf("got %v", err)
	}
	if _, err := podstatus.New(podstatus.Config{Node: "n"}); err == nil || err.Error() != "recorder needs where to write statuses and events" {
		t.Errorf("got %v", err)
	}
	if _, err := podstatus.NewLogRecorder(nil); err == nil {
		t.Error("NewLogRecorder without a logger works")
	}
}
