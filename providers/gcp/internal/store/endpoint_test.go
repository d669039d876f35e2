package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-dev/postern/providers/gcp/internal/params"
)

// TestManyRegions: many calls at once make one connection to each endpoint.
func TestManyRegions(t *testing.T) {
	t.Parallel()
	m := &memoryGoogle{}
	var refs []Ref
	for i := range 4 {
		location := fmt.Sprint("europe-west", i)
		m.secrets = append(m.secrets, secretIn(location, "web", 1))
		m.parameters = append(m.parameters, &memoryParameter{location: location, name: "conf", version: "v1", rendered: location})
		refs = append(refs, refIn(location, "web", "1"), refToParameter(location, "conf", "v1"))
	}
	w := newWorld(t, m, Config{})
	var running sync.WaitGroup
	for range 4 {
		running.Go(func() {
			answers, err := w.store.Read(t.Context(), as("web"), refs)
			if err != nil {
				t.Error(err)
				return
			}
			for i, answer := range answers {
				if answer.Err != nil || !strings.Contains(string(answer.Contents.Reveal()), refs[i].Location) {
					t.Errorf("%v: %v", refs[i], answer.Err)
				}
			}
		})
	}
	running.Wait()
	if got, want := w.operations(), "access=16 render=16"; got != want {
		t.Errorf("requests are %s, want %s", got, want)
	}
	w.net.Lock()
	defer w.net.Unlock()
	if len(w.net.conns) != 8 {
		t.Errorf("%d hosts", len(w.net.conns))
	}
	for host, conns := range w.net.conns {
		if len(conns) != 1 {
			t.Errorf("%d connections to %s", len(conns), host)
		}
	}
}

// TestHosts: nothing but a DNS label gets into a host's name.
func TestHosts(t *testing.T) {
	t.Parallel()
	for _, location := range []string{
		"evil.example.com/", "a.b", "a/b", "a:1", "a@b", "A", "-a", "a-", "1a", "a b", "é", "a\n", "..", "%61", strings.Repeat("a", 31),
	} {
		for _, kind := range []params.Kind{params.Secret, params.Parameter} {
			w := newWorld(t, some(), Config{})
			ref := Ref{Kind: kind, Location: location, Resource: "projects/p/locations/x/secrets/web/versions/1"}
			e := w.refused(t, as("web"), ref)
			if e.Kind != Invalid || !errors.Is(e, errLocation) || e.Endpoint != "" || e.Operation == "" || e.Resource != ref.Resource {
				t.Errorf("%q: %v", location, e)
			}
			if _, ok, err := w.store.Versions(t.Context(), as("web"), []Ref{ref}); ok || err != nil {
				t.Errorf("%q: versions are told, %v", location, err)
			}
			_, err := w.store.List(t.Context(), as("web"), &params.Select{Project: "p", Location: location})
			if e := asError(t, err); e.Kind != Invalid || e.Operation != listSecrets {
				t.Errorf("%q: %v", location, e)
			}
			if len(w.net.conns) != 0 {
				t.Errorf("%q: connected to %v", location, w.net.conns)
			}
		}
	}
	for key, want := range map[endpointKey]string{
		{params.Secret, strings.Repeat("a", 30)}: "secretmanager." + strings.Repeat("a", 30) + ".rep.googleapis.com",
		{params.Parameter, "me-central2"}:        "parametermanager.me-central2.rep.googleapis.com",
		{params.Secret, ""}:                      globalSecrets,
		{params.Parameter, ""}:                   globalParameters,
	} {
		if got, err := key.host(); got != want || err != nil {
			t.Errorf("%v is %q, %v", key, got, err)
		}
	}
	w := newWorld(t, some(), Config{})
	if e := w.refused(t, as("web"), Ref{Kind: "vault", Resource: "x"}); e.Kind != Invalid || !errors.Is(e, errKind) {
		t.Errorf("of no kind: %v", e)
	}
}

// TestBrokenConnection: one that carries nothing any more, and does not say so, is
// replaced while the call waits.
func TestBrokenConnection(t *testing.T) {
	t.Parallel()
	for name, idle := range map[string]time.Duration{"in use": 0, "a while later": 2 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, some(), Config{})
				w.read(t, as("web"), refTo("web", "1"))
				<-time.After(idle)
				w.net.Lock()
				close(w.net.conns[globalSecrets][0].cut)
				w.net.Unlock()
				start := time.Now()
				if answer := w.read(t, as("web"), refTo("web", "2"))[0]; answer.Err != nil {
					t.Error(answer.Err)
				}
				if took := time.Since(start); took > 2*tryTimeout {
					t.Errorf("took %s", took)
				}
				if n := w.connections(globalSecrets); n != 2 {
					t.Errorf("%d connections", n)
				}
			})
		})
	}
}

// TestUnreachable: what cannot be connected to is tried again, and says why.
func TestUnreachable(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, some(), Config{})
		w.net.refuse = func(string) error { return errors.New("no route to host") }
		e := w.refused(t, as("web"), refTo("web", "1"))
		if e.Kind != Unavailable || e.Endpoint != globalSecrets || !strings.Contains(e.Message, "no route to host") {
			t.Errorf("error is %v", e)
		}
		// However long that goes on, the first that is asked for afterwards comes.
		for range 9 {
			_ = w.refused(t, as("web"), refTo("web", "1"))
		}
		w.net.Lock()
		w.net.refuse = nil
		w.net.Unlock()
		start := time.Now()
		if answer := w.read(t, as("web"), refTo("web", "1"))[0]; answer.Err != nil {
			t.Error(answer.Err)
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("took %s", took)
		}
	})
}

// TestHangingDial: a connection that cannot be made, and of which nobody says so, is
// given up in time for another.
func TestHangingDial(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, some(), Config{})
		w.net.hang = 1
		start := time.Now()
		if answer := w.read(t, as("web"), refTo("web", "1"))[0]; answer.Err != nil {
			t.Error(answer.Err)
		}
		if took := time.Since(start); took < dialTimeout || took > tryTimeout {
			t.Errorf("took %s", took)
		}
	})
}

// TestWrongCertificate: a host that is not Google's gets no token.
func TestWrongCertificate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, some(), Config{})
		w.net.rename = func(string) string { return "evil.example.com" }
		e := w.refused(t, as("web"), refTo("web", "1"))
		if e.Kind != Unavailable || !strings.Contains(e.Message, "certificate is valid for evil.example.com") {
			t.Errorf("error is %v", e)
		}
		if len(w.arrivals()) != 0 {
			t.Error("a request was made")
		}
	})
}

// TestIdleConnection: one that nobody uses is closed, and made anew.
func TestIdleConnection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, some(), Config{})
		w.read(t, as("web"), refTo("web", "1"))
		<-time.After(2 * idleTimeout)
		synctest.Wait()
		select {
		case <-w.net.conns[globalSecrets][0].closed:
		default:
			t.Error("it is open")
		}
		w.read(t, as("web"), refTo("web", "1"))
		if n := w.connections(globalSecrets); n != 2 {
			t.Errorf("%d connections", n)
		}
	})
}

// TestEndpointsAreBounded: the one not used for longest goes, and is closed when it
// is not in use any more.
func TestEndpointsAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := newEndpoints(nil)
		defer e.close()
		enter := func(i int) *endpoint {
			t.Helper()
			one, err := e.enter(endpointKey{params.Secret, fmt.Sprint("r", i)})
			if err != nil {
				t.Fatal(err)
			}
			<-time.After(time.Second)
			return one
		}
		inUse, idle := enter(0), enter(1)
		e.leave(idle)
		for i := 2; i < maxEndpoints; i++ {
			e.leave(enter(i))
		}
		if enter(0) != inUse {
			t.Error("there are two of one")
		}
		e.leave(inUse)
		e.leave(enter(maxEndpoints)) // in place of 1
		if !closed(idle) || closed(inUse) || len(e.byKey) != maxEndpoints {
			t.Errorf("idle closed %t, in use closed %t, %d kept", closed(idle), closed(inUse), len(e.byKey))
		}
		for i := range maxEndpoints {
			e.leave(enter(100 + i))
		}
		if closed(inUse) || len(e.byKey) != maxEndpoints {
			t.Errorf("in use closed %t, %d kept", closed(inUse), len(e.byKey))
		}
		e.leave(inUse)
		if !closed(inUse) {
			t.Error("it is still open")
		}
	})
}

func closed(e *endpoint) bool { return e.conn.GetState().String() == "SHUTDOWN" }

// TestClose: what is under way fails, and nothing begins.
func TestClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := some()
		w := newWorld(t, m, Config{})
		m.script = func(ctx context.Context, _ arrival) error {
			go w.store.Close()
			<-ctx.Done()
			return nil
		}
		if e := w.refused(t, as("web"), refTo("web", "1")); e.Kind != Unavailable {
			t.Errorf("error is %v", e)
		}
		if e := w.refused(t, as("web"), refTo("web", "1")); !errors.Is(e, errClosed) {
			t.Errorf("error is %v", e)
		}
		w.store.Close()
	})
}
