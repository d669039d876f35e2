package answer_test

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/postern-dev/postern/gateway/internal/answer"
	providerv1 "github.com/postern-dev/postern/proto/gen/go/postern/provider/v1"
	secretv1 "github.com/postern-dev/postern/proto/gen/go/postern/secret/v1"
)

func contents(a *answer.Answer) []byte { return a.Response().GetFiles()[0].GetContents() }

func TestAnswer_OverwrittenByTheLastRelease(t *testing.T) {
	t.Parallel()
	a := answer.New(valid(), time.Now())
	a.Retain()
	a.Release()
	if got := string(contents(a)); got != "web" {
		t.Errorf("with a reference left the contents are %q", got)
	}
	a.Release()
	if got := contents(a); !bytes.Equal(got, []byte{0, 0, 0}) {
		t.Errorf("after the last release the contents are %q", got)
	}
}

// A confirmed answer lives on its predecessor's contents, in whichever order
// they are released.
func TestAnswer_Confirmed(t *testing.T) {
	t.Parallel()
	at := time.Now()
	by := &providerv1.FetchResponse{
		NotModified: true, Sharing: secretv1.Sharing_SHARING_SERVICE_ACCOUNT,
		FreshFor: durationpb.New(time.Minute), RefreshAfter: durationpb.New(time.Hour), State: []byte("new"),
	}
	for _, first := range []string{"old", "new"} {
		old := answer.New(valid(), at.Add(-time.Hour))
		renewed := old.Confirmed(by, at)
		want := valid()
		want.Sharing, want.FreshFor, want.RefreshAfter, want.Leases = by.GetSharing(), by.GetFreshFor(), by.GetRefreshAfter(), nil
		want.State = by.GetState()
		if diff := cmp.Diff(want, renewed.Response(), protocmp.Transform()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if !renewed.FetchedAt().Equal(at) || renewed.Size() != old.Size() {
			t.Errorf("got %v of %d bytes", renewed.FetchedAt(), renewed.Size())
		}
		last := old
		if first == "old" {
			old.Release()
			last = renewed
		} else {
			renewed.Release()
		}
		if got := string(contents(last)); got != "web" {
			t.Errorf("%s released: the contents are %q", first, got)
		}
		last.Release()
		if got := contents(last); !bytes.Equal(got, []byte{0, 0, 0}) {
			t.Errorf("both released: the contents are %q", got)
		}
	}
}

// However often an answer is confirmed, only the one that brought the contents
// is kept for it.
func TestAnswer_ConfirmedAgainAndAgain(t *testing.T) {
	t.Parallel()
	by := &providerv1.FetchResponse{NotModified: true}
	collected := make(chan struct{})
	first := answer.New(valid(), time.Now())
	second := first.Confirmed(by, time.Now())
	runtime.AddCleanup(second, func(c chan struct{}) { close(c) }, collected)
	last := second.Confirmed(by, time.Now())
	first.Release()
	second.Release()
	runtime.GC()
	<-collected
	if got := string(contents(last)); got != "web" {
		t.Errorf("the contents are %q", got)
	}
	last.Release()
	if got := contents(last); !bytes.Equal(got, []byte{0, 0, 0}) {
		t.Errorf("after the last release the contents are %q", got)
	}
}

func TestAnswer_Concurrent(t *testing.T) {
	t.Parallel()
	a := answer.New(valid(), time.Now())
	var readers sync.WaitGroup
	for range 50 {
		a.Retain()
		readers.Go(func() {
			defer a.Release()
			if got := string(contents(a)); got != "web" {
				t.Errorf("a holder reads %q", got)
			}
		})
	}
	a.Release()
	readers.Wait()
	if got := contents(a); !bytes.Equal(got, []byte{0, 0, 0}) {
		t.Errorf("the contents are %q", got)
	}
}

func TestAnswer_Misuse(t *testing.T) {
	t.Parallel()
	for name, use := range map[string]func(*answer.Answer){
		"retain":  func(a *answer.Answer) { a.Retain() },
		"release": func(a *answer.Answer) { a.Release() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := answer.New(valid(), time.Now())
			a.Release()
			defer func() {
				if recover() == nil {
					t.Error("use after the last release goes unnoticed")
				}
			}()
			use(a)
		})
	}
}

func TestAnswer_Prints(t *testing.T) {
	t.Parallel()
	resp := valid()
	resp.Files[0].Contents = []byte("hunter2")
	a := answer.New(resp, time.Now())
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		if text := fmt.Sprintf(verb, a); strings.Contains(text, "hunter2") || text == "" {
			t.Errorf("%s: %s", verb, text)
		}
	}
}
