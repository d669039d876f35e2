package double_test

import (
	"encoding/json"
	"errors"
	"flag"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/postern-dev/postern/test/double"
	"github.com/postern-dev/postern/test/token"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type fault struct {
	name         string
	after, count int
}

func newFaults() *double.Faults[fault] {
	return double.NewFaults(func(f *fault) double.Limits { return double.Limits{After: &f.after, Count: &f.count} })
}

func TestFaultsAreTakenInOrder(t *testing.T) {
	t.Parallel()
	f := newFaults()
	f.Add(fault{name: "other"})
	f.Add(fault{name: "late", after: 1, count: 2})
	f.Add(fault{name: "forever"})
	var got []string
	for range 5 {
		taken, _, ok := f.Take(func(f *fault) bool { return f.name != "other" })
		if !ok {
			t.Fatal("none")
		}
		got = append(got, taken.name)
	}
	if diff := cmp.Diff([]string{"forever", "late", "late", "forever", "forever"}, got); diff != "" {
		t.Errorf("taken (-want +got):\n%s", diff)
	}
	_, ended, _ := f.Take(func(f *fault) bool { return f.name == "other" })
	f.Clear()
	<-ended
	if _, _, ok := f.Take(func(*fault) bool { return true }); ok {
		t.Error("a fault that is cleared is taken")
	}
}

func TestInjection(t *testing.T) {
	t.Parallel()
	ended := make(chan struct{})
	close(ended)
	for kind, want := range map[string]struct {
		answered, reached bool
		status            int
	}{
		double.Hang: {true, false, 0}, double.Close: {true, false, 0}, double.Garbage: {true, true, 200}, double.Latency: {false, true, 0}, double.Throttle: {false, true, 0},
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			noted := make(chan string, 1)
			answered := make(chan bool, 1)
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				answered <- double.Injection{Kind: kind, Latency: time.Hour, Ended: ended, Note: func(status int, kind string) {
					if status != want.status {
						t.Errorf("status %d is noted", status)
					}
					noted <- kind
				}}.Do(w, r)
			}))
			t.Cleanup(server.Close)
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := server.Client().Do(req)
			if err == nil {
				_ = resp.Body.Close()
			}
			if (err == nil) != want.reached || <-answered != want.answered {
				t.Errorf("error %v", err)
			}
			if want.answered && <-noted != kind {
				t.Error("another kind is noted")
			}
		})
	}
}

type call struct{ name string }

func TestRecord(t *testing.T) {
	t.Parallel()
	r := double.NewRecord[call, string, int](func(q string) (call, int) { return call{q[:1]}, len(q) })
	r.Request("aa")
	r.Request("a")
	r.Violation(1, 2)
	if diff := cmp.Diff([]double.Counted[call]{{Kind: call{"a"}, Count: 2, Items: 3}}, r.Counts(), cmp.AllowUnexported(call{})); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"aa", "a"}, r.Requests()); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]int{1, 2}, r.Violations()); diff != "" {
		t.Errorf("violations (-want +got):\n%s", diff)
	}
	r.ResetCalls()
	r.ResetViolations()
	if len(r.Counts())+len(r.Requests())+len(r.Violations()) != 0 {
		t.Error("it forgets nothing")
	}
	for range 10001 {
		r.Request("b")
	}
	if got := len(r.Requests()); got != 10000 || r.Counts()[0].Count != 10001 {
		t.Errorf("%d requests are kept, %+v counted", got, r.Counts())
	}
}

type body struct {
	Name string `json:"name"`
}

func TestControl(t *testing.T) {
	t.Parallel()
	a := double.NewAPI()
	done := 0
	a.Get("/name", func() any { return body{"a"} })
	a.Do("POST /done", func() { done++ })
	a.Handle("POST /name", func(r *http.Request) (any, error) {
		var b body
		err := double.Read(r, &b)
		return b, err
	})
	a.Remove("DELETE /name", func(q func(string) string) bool { return q("name") == "a" })
	server := httptest.NewServer(a)
	t.Cleanup(server.Close)
	c := double.NewClient(server.URL)
	t.Cleanup(c.Close)
	c.Via(server.Client().Transport)
	var got body
	if err := c.Get(t.Context(), "/name", &got); err != nil || got.Name != "a" {
		t.Errorf("%v, %+v", err, got)
	}
	if err := c.Post(t.Context(), "/name", body{"b"}, &got); err != nil || got.Name != "b" {
		t.Errorf("%v, %+v", err, got)
	}
	if err := c.Post(t.Context(), "/done", nil, nil); err != nil || done != 1 {
		t.Errorf("%v, done %d times", err, done)
	}
	if err := c.Delete(t.Context(), "/name", url.Values{"name": {"a"}}); err != nil {
		t.Error(err)
	}
	for name, test := range map[string]struct {
		err  error
		want string
	}{
		"unknown member": {c.Post(t.Context(), "/name", map[string]int{"x": 1}, nil), `400 Bad Request: {"error":"read the request: json: unknown field`},
		"absent":         {c.Delete(t.Context(), "/name", nil), "404 Not Found"},
		"no such path":   {c.Get(t.Context(), "/x", nil), "404"},
		"other type":     {c.Get(t.Context(), "/name", new(int)), "cannot unmarshal"},
		"no URL":         {double.NewClient("http://[").Get(t.Context(), "/", nil), "missing"},
		"no JSON":        {c.Post(t.Context(), "/name", func() {}, nil), "unsupported type"},
	} {
		if test.err == nil || !strings.Contains(test.err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, test.err, test.want)
		}
	}
}

func TestCollectStopsAtTheFirstError(t *testing.T) {
	t.Parallel()
	bad := errors.New("bad")
	var made []int
	err := double.Collect([]int{1, 2, 3}, func(i int) (int, error) {
		if i == 2 {
			return 0, bad
		}
		return i * 10, nil
	}, &made)
	if diff := cmp.Diff([]int{10}, made); !errors.Is(err, bad) || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

func TestDuration(t *testing.T) {
	t.Parallel()
	var d double.Duration
	if err := json.Unmarshal([]byte(`"90s"`), &d); err != nil || d != double.Duration(90*time.Second) {
		t.Errorf("%v, %v", err, d)
	}
	if text, err := json.Marshal(d); err != nil || string(text) != `"1m30s"` {
		t.Errorf("%v, %s", err, text)
	}
	if err := json.Unmarshal([]byte(`"soon"`), &d); err == nil {
		t.Error("it reads nonsense")
	}
}

func TestServers(t *testing.T) {
	t.Parallel()
	s := double.NewServers(slog.New(slog.DiscardHandler))
	t.Cleanup(s.Close)
	address, err := s.Listen(t.Context(), "127.0.0.1:0", http.NotFoundHandler())
	if err != nil {
		t.Fatal(err)
	}
	get := func() error {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address, nil)
		if err != nil {
			return err
		}
		transport := &http.Transport{}
		defer transport.CloseIdleConnections()
		resp, err := transport.RoundTrip(req)
		if err == nil {
			err = resp.Body.Close()
		}
		return err
	}
	if err := get(); err != nil {
		t.Error(err)
	}
	if _, err := s.Listen(t.Context(), "nonsense", nil); err == nil || !strings.Contains(err.Error(), "listen at nonsense") {
		t.Errorf("%v", err)
	}
	s.Close()
	if err := get(); err == nil {
		t.Error("it still listens")
	}
}

func write(t *testing.T, name, contents string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(contents), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestIssuerFlags(t *testing.T) {
	t.Parallel()
	ca, bearer, keys := write(t, "ca.pem", "certificate\n"), write(t, "token", "bearer\n"), write(t, "keys.json", `{"keys":[]}`)
	absent := filepath.Join(t.TempDir(), "absent")
	for name, test := range map[string]struct {
		args  []string
		want  token.Issuer
		fails string
	}{
		"none":      {nil, token.Issuer{}, ""},
		"discovery": {[]string{"--issuer", "https://i", "--issuer-ca", ca, "--issuer-token-file", bearer}, token.Issuer{URL: "https://i", CAPEM: "certificate", BearerToken: "bearer"}, ""},
		"URL":       {[]string{"--issuer", "https://i", "--issuer-jwks", "https://j"}, token.Issuer{URL: "https://i", JWKSURL: "https://j"}, ""},
		"file":      {[]string{"--issuer", "https://i", "--issuer-jwks", keys}, token.Issuer{URL: "https://i", JWKS: json.RawMessage(`{"keys":[]}`)}, ""},
		"no CA":     {[]string{"--issuer", "https://i", "--issuer-ca", absent}, token.Issuer{}, "read about the issuer"},
		"no keys":   {[]string{"--issuer", "https://i", "--issuer-jwks", absent}, token.Issuer{}, "read the issuer's keys"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var f double.IssuerFlags
			set := flag.NewFlagSet("test", flag.ContinueOnError)
			f.Add(set)
			if err := set.Parse(test.args); err != nil {
				t.Fatal(err)
			}
			got, ok, err := f.Read()
			if test.fails != "" {
				if err == nil || !strings.Contains(err.Error(), test.fails) {
					t.Errorf("%v, want %q", err, test.fails)
				}
				return
			}
			if diff := cmp.Diff(test.want, got); diff != "" || err != nil || ok != (test.want.URL != "") {
				t.Errorf("%v, %t (-want +got):\n%s", err, ok, diff)
			}
		})
	}
}

func TestReady(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	file := filepath.Join(t.TempDir(), "ready.json")
	if err := double.Ready(body{"a"}, file, &out); err != nil {
		t.Fatal(err)
	}
	written, err := os.ReadFile(file)
	if err != nil || string(written)+"\n" != out.String() || out.String() != `{"name":"a"}`+"\n" {
		t.Errorf("%v, %q is written, %q printed", err, written, out.String())
	}
	if err := double.Ready(body{}, filepath.Join(file, "x"), io.Discard); err == nil || !strings.Contains(err.Error(), "ready file") {
		t.Errorf("%v", err)
	}
	if err := double.Ready(func() {}, "", io.Discard); err == nil {
		t.Error("what cannot be encoded is printed")
	}
}
