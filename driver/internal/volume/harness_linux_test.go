package volume

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/postern-dev/postern/driver/internal/volume/volumetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// api is a way to mount.
type api struct {
	name     string
	fallback bool
}

var apis = []api{{"detached", false}, {"fallback", true}}

// manager returns a Manager that mounts this way, and a target for it.
func (a api) manager(tb testing.TB) (m *Manager, target string) {
	tb.Helper()
	m, root := newManager(tb, Config{ForceFallback: a.fallback})
	return m, targetIn(root)
}

// newManager returns a Manager for a kubelet root of its own, which is free of
// mounts when the test ends.
func newManager(tb testing.TB, cfg Config) (*Manager, string) {
	tb.Helper()
	if cfg.Root == "" {
		cfg.Root = volumetest.TempRoot(tb)
	}
	m, err := New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return m, cfg.Root
}

func mustPublish(tb testing.TB, m *Manager, spec Spec) {
	tb.Helper()
	if err := m.Publish(tb.Context(), spec); err != nil {
		tb.Fatal(err)
	}
}

func mustUpdate(tb testing.TB, m *Manager, spec Spec, wantChanged bool) {
	tb.Helper()
	changed, err := m.Update(tb.Context(), spec)
	if err != nil || changed != wantChanged {
		tb.Fatalf("Update: changed %v, %v; want changed %v", changed, err, wantChanged)
	}
}

func mustState(tb testing.TB, m *Manager, target string, want State) {
	tb.Helper()
	if got, err := m.State(target); err != nil || got != want {
		tb.Fatalf("State: %v, %v; want %v", got, err, want)
	}
}

// mustUnpublish also checks that nothing is left of the volume.
func mustUnpublish(tb testing.TB, m *Manager, target string) {
	tb.Helper()
	if err := m.Unpublish(tb.Context(), target); err != nil {
		tb.Fatal(err)
	}
	if _, err := os.Lstat(target); !os.IsNotExist(err) {
		tb.Errorf("Lstat of the target after Unpublish: %v", err)
	}
	mustHaveNoMounts(tb, m)
}

// mustHaveNoMounts checks that neither a mount nor a staging directory is left.
func mustHaveNoMounts(tb testing.TB, m *Manager) {
	tb.Helper()
	if mounts := volumetest.Mounts(tb, m.cfg.Root); len(mounts) > 0 {
		tb.Errorf("mounts left: %v", mounts)
	}
	if entries, err := os.ReadDir(m.cfg.StagingDir); len(entries) > 0 {
		tb.Errorf("staging directory holds %v, %v", entries, err)
	}
}
