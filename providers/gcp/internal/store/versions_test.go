package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"
	"google.golang.org/grpc/codes"
)

// versions asks, and returns which numbers are told; "?" if they are not.
func (w *world) versions(t testing.TB, as As, refs ...Ref) string {
	t.Helper()
	told := w.told(t, as, refs...)
	for i, version := range told {
		if number, digest, ok := strings.Cut(version, "@"); ok && digest != "" {
			told[i] = number
		}
	}
	return strings.Join(told, ",")
}

// know has what refs stand for told, and then read, so that it can be told without
// reading from then on. What that took is forgotten.
func (w *world) know(t testing.TB, refs ...Ref) {
	t.Helper()
	w.told(t, as("somebody"), refs...)
	if _, err := w.store.Read(t.Context(), as("somebody"), refs); err != nil {
		t.Fatal(err)
	}
	w.operations()
}

func (w *world) told(t testing.TB, as As, refs ...Ref) []string {
	t.Helper()
	versions, ok, err := w.store.Versions(t.Context(), as, refs)
	if err != nil {
		t.Fatal(err)
	}
	if !ok {
		if versions != nil {
			t.Errorf("not told, and yet %v", versions)
		}
		return []string{"?"}
	}
	return versions
}

func TestVersions(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		refs      []Ref
		want, ops string
	}{
		"one":             {[]Ref{refTo("web", "latest")}, "3", "get=1"},
		"by number":       {[]Ref{refTo("web", "1")}, "1", "get=1"},
		"by alias":        {[]Ref{refTo("web", "prod")}, "2", "get=1"},
		"several":         {[]Ref{refTo("web", "latest"), refIn("us-east1", "web", "latest"), refTo("web", "1")}, "3,1,1", "get=3"},
		"twice":           {[]Ref{refTo("web", "latest"), refTo("web", "1"), refTo("web", "latest")}, "3,1,3", "get=2"},
		"not there":       {[]Ref{refTo("nosuch", "latest"), refTo("web", "9"), refTo("web", "1")}, ",,1", "get=3"},
		"none":            {nil, "", ""},
		"disabled":        {[]Ref{refTo("off", "2")}, "?", "get=1"},
		"destroyed":       {[]Ref{refTo("off", "3")}, "?", "get=1"},
		"a parameter":     {[]Ref{refToParameter("", "conf", "v1")}, "?", ""},
		"with parameters": {[]Ref{refTo("web", "1"), refToParameter("", "conf", "v1")}, "?", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, some(), Config{})
			w.know(t, tt.refs...)
			if got := w.versions(t, as("web"), tt.refs...); got != tt.want {
				t.Errorf("versions are %q, want %q", got, tt.want)
			}
			for _, r := range w.arrivals() {
				if r.identity != "web" || !strings.HasPrefix(r.routing, "name=projects%2Fp%2F") || !strings.HasPrefix(r.host, "secretmanager.") {
					t.Errorf("a request is %+v", r)
				}
			}
			if got := w.operations(); got != tt.ops {
				t.Errorf("requests are %s, want %s", got, tt.ops)
			}
		})
	}
}

// TestVersionsAreThoseOfRead: what is told is what is read.
func TestVersionsAreThoseOfRead(t *testing.T) {
	t.Parallel()
	w := newWorld(t, some(), Config{})
	refs := []Ref{refTo("web", "latest"), refTo("web", "prod"), refIn("europe-west3", "web", "latest")}
	w.know(t, refs...)
	var read []string
	for _, answer := range w.read(t, as("web"), refs...) {
		read = append(read, answer.Version)
	}
	if told := w.told(t, as("web"), refs...); !slices.Equal(told, read) {
		t.Errorf("told %q, read %q", told, read)
	}
}

// TestUntold: whatever goes wrong is Read's to say.
func TestUntold(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		err    error
		change func(*secretmanagerpb.SecretVersion)
	}{
		"denied":          {err: says(codes.PermissionDenied, "no")},
		"throttled":       {err: says(codes.ResourceExhausted, "no")},
		"unavailable":     {err: says(codes.Unavailable, "no")},
		"bad credentials": {err: says(codes.Unauthenticated, "no")},
		"invalid":         {err: says(codes.InvalidArgument, "no")},
		"another secret":  {change: func(v *secretmanagerpb.SecretVersion) { v.Name = "projects/42/secrets/db/versions/1" }},
		"no number":       {change: func(v *secretmanagerpb.SecretVersion) { v.Name = "projects/42/secrets/web/versions/latest" }},
		"no time":         {change: func(v *secretmanagerpb.SecretVersion) { v.CreateTime = nil }},
		"no state":        {change: func(v *secretmanagerpb.SecretVersion) { v.State = 0 }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := some()
			w := newWorld(t, m, Config{})
			refs := []Ref{refTo("web", "latest"), refTo("web", "1"), refTo("web", "2")}
			w.versions(t, as("web"), refs...)
			w.read(t, as("web"), refs...)
			if got := w.versions(t, as("web"), refs...); got == "?" {
				t.Fatal("not told before")
			}
			w.operations()
			m.mu.Lock()
			m.change = func(r arrival, answer any) {
				if v, ok := answer.(*secretmanagerpb.SecretVersion); ok && tt.change != nil && strings.HasSuffix(r.resource, "latest") {
					tt.change(v)
				}
			}
			m.script = func(_ context.Context, r arrival) error {
				if strings.HasSuffix(r.resource, "latest") {
					return tt.err
				}
				return nil
			}
			m.mu.Unlock()
			if got := w.versions(t, as("web"), refs...); got != "?" {
				t.Errorf("versions are %q", got)
			}
			if n := len(w.arrivals()); n > 3 {
				t.Errorf("%d requests", n)
			}
		})
	}
}

// TestRefusals: who may not ask for versions does not ask again for a while, and
// others do.
func TestRefusals(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := some()
		m.script = func(_ context.Context, r arrival) error {
			if r.method == "get" && r.identity == "web" {
				return says(codes.PermissionDenied, "Permission 'secretmanager.versions.get' denied")
			}
			return nil
		}
		var log logged
		w := newWorld(t, m, Config{Logger: log.logger()})
		ask := func(identity string, ref Ref, want, ops string) {
			t.Helper()
			if got := w.versions(t, as(identity), ref); got != want {
				t.Errorf("versions are %q, want %q", got, want)
			}
			if got := w.operations(); got != ops {
				t.Errorf("requests are %q, want %q", got, ops)
			}
		}
		elsewhere := Ref{Kind: "secret", Resource: "projects/q/secrets/web/versions/1"}
		w.know(t, refTo("web", "1"))
		ask("web", refTo("web", "1"), "?", "get=1")
		ask("web", refTo("web", "1"), "?", "")
		ask("web", refIn("us-east1", "web", "1"), "?", "")
		ask("web", elsewhere, "?", "get=1")
		ask("db", refTo("web", "1"), "1", "get=1")
		pass(refusedFor - time.Second)
		ask("web", refTo("web", "1"), "?", "")
		pass(time.Second)
		m.mu.Lock()
		m.script = nil
		m.mu.Unlock()
		ask("web", refTo("web", "1"), "1", "get=1")
		ask("web", refTo("web", "1"), "1", "get=1")
		if text := log.String(); strings.Count(text, "may not ask for versions") != 2 || strings.Contains(text, "canary") {
			t.Errorf("the log is %s", text)
		}
	})
}

// TestVersionsQuota: a project that is asked for too many versions is asked by nobody
// for a while. Reading has a quota of its own.
func TestVersionsQuota(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := some()
		m.script = func(_ context.Context, r arrival) error {
			if r.method == "get" {
				return says(codes.ResourceExhausted, "Quota exceeded for quota metric 'Read requests'")
			}
			return nil
		}
		w := newWorld(t, m, Config{})
		for range 2 {
			for _, identity := range []string{"", "web", "db"} {
				if got := w.versions(t, as(identity), refTo("web", "1")); got != "?" {
					t.Errorf("versions are %q", got)
				}
			}
			w.read(t, as("web"), refTo("web", "1"))
			if got, want := w.operations(), "access=1 get=1"; got != want {
				t.Errorf("requests are %q, want %q", got, want)
			}
			pass(throttledFor)
		}
	})
}

// TestMadeAnew: a number alone does not vouch for the contents.
func TestMadeAnew(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		made := func() *memorySecret {
			s := secretOf("web", 1)
			s.versions[0].made = time.Now()
			return s
		}
		m := &memoryGoogle{secrets: []*memorySecret{made()}}
		w := newWorld(t, m, Config{})
		versions := func(want string) {
			t.Helper()
			if got := w.versions(t, as("web"), refTo("web", "latest")); got != want {
				t.Errorf("versions are %q, want %q", got, want)
			}
		}
		read := func(identity string) { w.read(t, as(identity), refTo("web", "latest")) }
		read("web")
		versions("?") // who read it does not know of when it is
		read("web")
		versions("1")
		versions("1")

		pass(time.Minute)
		m.mu.Lock()
		m.secrets[0] = made()
		m.mu.Unlock()
		versions("?")
		read("db")
		versions("1")
	})
}

func TestRefusals_Bounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRefusals()
		r.throttle("q") // forgotten first
		for i := range maxRefusals {
			pass(time.Millisecond)
			r.deny("web", fmt.Sprint(i))
		}
		if len(r.until) != maxRefusals || r.have("web", "q") || !r.have("web", "0") || r.have("db", "0") {
			t.Errorf("%d are remembered", len(r.until))
		}
		r.deny("web", "0")
		r.deny("web", "new")
		if len(r.until) != maxRefusals || r.have("web", "1") || !r.have("web", "0") || !r.have("web", "new") {
			t.Errorf("%d are remembered", len(r.until))
		}
		pass(refusedFor)
		if r.have("web", "new") || len(r.until) != maxRefusals-1 {
			t.Error("it is believed for too long")
		}
	})
}

func pass(d time.Duration) { <-time.After(d) }
