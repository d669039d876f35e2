package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestSpecIsReadAsWritten(t *testing.T) {
	t.Parallel()
	spec := Spec{
		Dir: t.TempDir(), Hostname: "worker", Addresses: []string{"10.0.0.1/32"}, Routes: []string{"10.0.0.0/8 dev lo"}, Cgroup: "c",
		Processes: []Process{{Name: "p", Command: []string{"a", "b"}, After: "http://127.0.0.1/"}},
	}
	if err := spec.Write(); err != nil {
		t.Fatal(err)
	}
	got, err := ReadSpec(spec.Dir)
	if diff := cmp.Diff(spec, got); diff != "" || err != nil {
		t.Errorf("ReadSpec() error %v (-want +got):\n%s", err, diff)
	}
}

func TestRunOutsideOfANamespaceIsRefused(t *testing.T) {
	t.Parallel()
	if err := Run(t.Context(), Spec{}, strings.NewReader(""), io.Discard); err == nil || !strings.Contains(err.Error(), "process 1") {
		t.Errorf("Run() = %v", err)
	}
}

func TestLifeline(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		input string
		want  error
	}{
		"let go on":       {input: Stay},
		"parent has died": {input: "", want: ErrAbandoned},
		"died writing":    {input: Stay[:2], want: ErrAbandoned},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			watch(strings.NewReader(test.input), cancel)
			if got := context.Cause(ctx); !errors.Is(got, test.want) {
				t.Errorf("the node ends with %v, want %v", got, test.want)
			}
		})
	}
}

// The supervisor reaps every child of the test's process: no other test here may
// start one.
func TestSupervisor(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(LogDir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	var open atomic.Bool
	gate := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if !open.Load() {
			w.WriteHeader(http.StatusForbidden)
		}
	}))
	defer gate.Close()
	s, err := newSupervisor(Spec{Dir: dir, Processes: []Process{
		{Name: "lasting", Command: []string{"sleep", "1000"}},
		{Name: "failing", Command: []string{"sh", "-c", "echo hello; exit 7"}},
		{Name: "waiting", Command: []string{"sleep", "1000"}, After: gate.URL},
	}}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); s.run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-ended
		for _, c := range s.children {
			if c.status.PID != 0 {
				process, err := os.FindProcess(c.status.PID)
				if err == nil {
					_ = process.Kill()
					_, _ = process.Wait()
				}
			}
		}
	})
	statusEventually(t, dir, "failing", func(s Status) bool { return s.Starts >= 2 && s.LastExit == "ended with exit code 7" })
	statusEventually(t, dir, "waiting", func(s Status) bool { return s.Starts == 0 })
	open.Store(true)
	statusEventually(t, dir, "waiting", func(s Status) bool { return s.Starts == 1 && s.PID != 0 })
	statusEventually(t, dir, "lasting", func(s Status) bool { return s.Starts == 1 && s.PID != 0 && s.LastExit == "" })
	log, err := os.ReadFile(filepath.Join(LogDir(dir), "failing.log"))
	if err != nil || !strings.HasPrefix(string(log), "hello\nhello\n") {
		t.Errorf("the log holds %q, %v, want what both runs said", log, err)
	}
}

func TestSupervisorNamesAProgramThatIsMissing(t *testing.T) {
	t.Parallel()
	_, err := newSupervisor(Spec{Processes: []Process{{Name: "it", Command: []string{"/no/such/program"}}}}, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "/no/such/program") {
		t.Errorf("newSupervisor() = %v", err)
	}
}

func TestRemoveTree(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a")
	if err := os.MkdirAll(filepath.Join(dir, "b/c"), 0o755); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second finds nothing, which is as good
		if err := removeTree(dir); err != nil {
			t.Errorf("removeTree() = %v", err)
		}
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the tree is there: %v", err)
	}
}

func statusEventually(t *testing.T, dir, name string, is func(Status) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		all, err := ReadStatus(dir)
		for _, s := range all {
			if s.Name == name && is(s) {
				return
			}
		}
		select {
		case <-ctx.Done():
			t.Fatal(fmt.Errorf("%s is not as it should be: %+v, %w", name, all, err))
		case <-ticker.C:
		}
	}
}
