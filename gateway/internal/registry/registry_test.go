package registry_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/postern-dev/postern/gateway/internal/providertest"
	"github.com/postern-dev/postern/gateway/internal/registry"
	"github.com/postern-dev/postern/internal/rpc"
	providerv1 "github.com/postern-dev/postern/proto/gen/go/postern/provider/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node is the directories of one node and a registry that watches them.
type node struct {
	native, etc, run string
	registry         *registry.Registry
}

// newNode does not create the directories: they come later, as on a new node.
func newNode(t *testing.T) *node {
	t.Helper()
	// Not t.TempDir: a socket's path has at most 107 bytes.
	base, err := os.MkdirTemp("", "gw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(base) })
	n := &node{
		native: filepath.Join(base, "run", "providers"),
		etc:    filepath.Join(base, "etc", "providers"),
		run:    filepath.Join(base, "var", "providers"),
	}
	r, err := registry.New(registry.Config{
		NativeDir:       n.native,
		LegacyDirs:      []string{n.etc, n.run},
		MaxMessageBytes: 1 << 20,
		Logger:          slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	n.registry = r
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return n
}

func (n *node) socket(provider, instance string) string {
	return filepath.Join(n.native, provider, instance+".sock")
}

// acquire returns the handle, which ends with the test.
func (n *node) acquire(t *testing.T, name string) *registry.Handle {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	handle, err := n.registry.Acquire(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	handle.Done()
	return handle
}

// states maps the base names of a provider's sockets to their states.
func (n *node) states(name string) map[string]registry.State {
	states := map[string]registry.State{}
	for _, p := range n.registry.Snapshot() {
		if p.Name != name {
			continue
		}
		for _, i := range p.Instances {
			states[filepath.Base(i.Socket)] = i.State
		}
	}
	return states
}

func (n *node) awaitStates(t *testing.T, name string, want map[string]registry.State) {
	t.Helper()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%+v", n.registry.Snapshot())
		}
	})
	providertest.Eventually(t, fmt.Sprintf("provider %s in states %v", name, want), func() bool {
		return cmp.Equal(n.states(name), want)
	})
}

func described(version string, names ...string) *providertest.Native {
	return &providertest.Native{Description: &providerv1.DescribeResponse{Names: names, Version: version}}
}

func TestAcquire(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	described("1.0.0", "vault").Start(t, n.socket("vault", "a"))
	handle := n.acquire(t, "vault")
	if handle.Socket != n.socket("vault", "a") || handle.Description.GetVersion() != "1.0.0" || handle.Protocol != registry.Native {
		t.Errorf("got %s, version %s, protocol %v", handle.Socket, handle.Description.GetVersion(), handle.Protocol)
	}
}

// A mount that waits goes on as soon as its provider is there, although not
// even the directory was there before.
func TestAcquire_ProviderComesLate(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	type outcome struct {
		at  time.Time
		err error
	}
	outcomes := make(chan outcome, 20)
	for range cap(outcomes) {
		go func() {
			handle, err := n.registry.Acquire(t.Context(), "vault")
			outcomes <- outcome{at: time.Now(), err: err}
			if err == nil {
				handle.Done()
			}
		}()
	}
	providertest.Eventually(t, "the directories were looked at", func() bool { return n.registry.Ready(t.Context()) == nil })
	described("1.0.0").Start(t, n.socket("vault", "a"))
	started := time.Now()
	for range cap(outcomes) {
		o := <-outcomes
		if o.err != nil {
			t.Fatal(o.err)
		}
		// Milliseconds where nothing else runs; a rescan would take 30 s.
		if woken := o.at.Sub(started); woken > 2*time.Second {
			t.Errorf("woken after %s", woken)
		} else {
			t.Logf("woken after %s", woken)
		}
	}
}

// Half a second, or a tenth of a short deadline, is left for the answer to
// reach the caller.
func TestAcquire_GivesUpBeforeTheDeadline(t *testing.T) {
	t.Parallel()
	tests := []struct{ timeout, want time.Duration }{
		{time.Second, 900 * time.Millisecond},
		{time.Minute, 59*time.Second + 500*time.Millisecond},
		{0, 2 * time.Minute},
	}
	for _, tt := range tests {
		t.Run(tt.timeout.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r, err := registry.New(registry.Config{
					NativeDir: "/n", LegacyDirs: []string{"/a", "/b"}, MaxMessageBytes: 1, Logger: slog.New(slog.DiscardHandler),
				})
				if err != nil {
					t.Fatal(err)
				}
				ctx := t.Context()
				if tt.timeout > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, tt.timeout)
					defer cancel()
				}
				started := time.Now()
				_, err = r.Acquire(ctx, "vault")
				if waited := time.Since(started); waited != tt.want {
					t.Errorf("gave up after %s, want %s", waited, tt.want)
				}
				checkUnavailable(t, err, `no instance serves on this node: looked for /n/vault/*.sock, /a/vault.sock, /b/vault.sock; `+
					"no socket is there; check that the provider's pod runs here")
			})
		})
	}
}

func checkUnavailable(t *testing.T, err error, want string) {
	t.Helper()
	e, ok := errors.AsType[*rpc.Error](err)
	if !ok {
		t.Fatalf("got %v, want a *rpc.Error", err)
	}
	if e.Reason != rpc.ReasonProviderUnavailable || status.Code(e) != codes.Unavailable {
		t.Errorf("got reason %s and code %s", e.Reason, status.Code(e))
	}
	if diff := cmp.Diff(want, e.Message); diff != "" {
		t.Errorf("message (-want +got):\n%s", diff)
	}
}

func TestAcquire_CallerLeaves(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := n.registry.Acquire(ctx, "vault")
		done <- err
	}()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that the call was cancelled", err)
	}
}

func TestAcquire_SaysWhyInstancesDoNotServe(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	described("1.0.0").Start(t, n.socket("vault", "sick")).Health.SetServingStatus("", healthv1.HealthCheckResponse_NOT_SERVING)
	n.awaitStates(t, "vault", map[string]registry.State{"sick.sock": registry.NotServing})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := n.registry.Acquire(ctx, "vault")
	if want := n.socket("vault", "sick") + " is not_serving: its health service says NOT_SERVING"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q in it", err, want)
	}
}

func TestHealth_IsFollowed(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	server := described("1.0.0").Start(t, n.socket("vault", "a"))
	n.awaitStates(t, "vault", map[string]registry.State{"a.sock": registry.Serving})
	server.Health.SetServingStatus("", healthv1.HealthCheckResponse_NOT_SERVING)
	n.awaitStates(t, "vault", map[string]registry.State{"a.sock": registry.NotServing})
	server.Health.SetServingStatus("", healthv1.HealthCheckResponse_SERVING)
	n.awaitStates(t, "vault", map[string]registry.State{"a.sock": registry.Serving})
}

// A process under another uid than its directory's owner gets nothing to see.
func TestRefused_OtherOwner(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root to give a directory away")
	}
	n := newNode(t)
	provider := described("1.0.0")
	dir := filepath.Join(n.native, "vault")
	if err := os.MkdirAll(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, 4321, -1); err != nil {
		t.Fatal(err)
	}
	provider.Start(t, n.socket("vault", "a"))
	n.awaitStates(t, "vault", map[string]registry.State{"a.sock": registry.Refused})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := n.registry.Acquire(ctx, "vault")
	want := fmt.Sprintf("no instance serves on this node: looked for %s/vault/*.sock, %s/vault.sock, %s/vault.sock; "+
		"%s is refused: the listening process has uid 0, but its directory %s belongs to uid 4321: "+
		"run the provider under that uid or give the directory to uid 0; check that the provider's pod runs here",
		n.native, n.etc, n.run, n.socket("vault", "a"), dir)
	checkUnavailable(t, err, want)

	// The directory is given to the right owner: the refusal is not for ever.
	if err := os.Chown(dir, 0, -1); err != nil {
		t.Fatal(err)
	}
	n.acquire(t, "vault")
}

func TestDirectories_ComeAndGo(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	for i := range 3 {
		server := described(fmt.Sprint(i)).Start(t, n.socket("vault", "a"))
		if got := n.acquire(t, "vault").Description.GetVersion(); got != fmt.Sprint(i) {
			t.Errorf("round %d: version %s serves", i, got)
		}
		server.Stop()
		if err := os.RemoveAll(filepath.Dir(n.native)); err != nil {
			t.Fatal(err)
		}
		providertest.Eventually(t, "the provider is forgotten", func() bool { return len(n.registry.Snapshot()) == 0 })
	}
}

func TestNew_Validates(t *testing.T) {
	t.Parallel()
	valid := registry.Config{NativeDir: "/run/x", MaxMessageBytes: 1, Logger: slog.New(slog.DiscardHandler)}
	tests := []struct {
		mutate func(*registry.Config)
		want   string
	}{
		{func(c *registry.Config) { c.NativeDir = "" }, "registry: no directory for providers is given"},
		{func(c *registry.Config) { c.MaxMessageBytes = 0 }, "registry: the maximum message size must be more than 0"},
		{func(c *registry.Config) { c.RescanInterval = -1 }, "registry: the rescan interval is negative"},
		{func(c *registry.Config) { c.Logger = nil }, "registry: no logger is given"},
	}
	for _, tt := range tests {
		t.Run(tt.want, func(t *testing.T) {
			t.Parallel()
			cfg := valid
			tt.mutate(&cfg)
			if _, err := registry.New(cfg); err == nil || err.Error() != tt.want {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

// A directory that cannot be read is named to who waits for what may be in it.
func TestAcquire_SaysWhatCannotBeRead(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	if err := os.MkdirAll(filepath.Dir(n.run), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(n.run, nil, 0o600); err != nil { // a file where a directory should be
		t.Fatal(err)
	}
	// The registry needs a moment to see it.
	want := "no socket is there; look for providers: open " + n.run + ": not a directory"
	deadline, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var err error
	for err == nil || !strings.Contains(err.Error(), want) {
		if deadline.Err() != nil {
			t.Fatalf("got %v, want %q in it", err, want)
		}
		short, cancel := context.WithTimeout(deadline, 50*time.Millisecond)
		_, err = n.registry.Acquire(short, "vault")
		cancel()
	}
}
