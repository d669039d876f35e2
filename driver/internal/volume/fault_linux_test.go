package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/postern-dev/postern/driver/internal/volume/volumetest"
)

// scenario is a publish onto something, with all that may be seen at the target
// while it runs or after it was stopped.
type scenario struct {
	name     string
	fallback bool
	// first tells that nothing is mounted before.
	first   bool
	prepare func(tb testing.TB, m *Manager, target string)
	files   []File
	// before is the volume as prepare leaves it, nil if nothing can be read.
	before map[string]string
}

var (
	oldFiles = []File{volumetest.File("a", "old"), volumetest.File("b", "old"), volumetest.File("d/c", "old"), volumetest.File("d/e", "old")}
	newFiles = []File{volumetest.File("a", "new"), volumetest.File("d/c", "new"), volumetest.File("d/x", "new"), volumetest.File("z", "new")}

	oldRevision = map[string]string{"a": "old", "b": "old", "d/c": "old", "d/e": "old"}
	newRevision = map[string]string{"a": "new", "d/c": "new", "d/x": "new", "z": "new"}
)

func scenarios() []scenario {
	publishOld := func(tb testing.TB, m *Manager, target string) {
		tb.Helper()
		mustPublish(tb, m, Spec{Target: target, Files: oldFiles})
	}
	nothing := func(testing.TB, *Manager, string) {}
	empty := func(tb testing.TB, _ *Manager, target string) {
		tb.Helper()
		volumetest.MountTmpfs(tb, target, "")
	}
	broken := func(tb testing.TB, _ *Manager, target string) {
		tb.Helper()
		volumetest.MountBroken(tb, target)
	}
	written := func(tb testing.TB, _ *Manager, target string) {
		tb.Helper()
		volumetest.MountTmpfs(tb, target, "")
		for path, contents := range oldRevision {
			volumetest.WriteFile(tb, filepath.Join(target, path), contents, 0o644)
		}
	}
	damaged := func(tb testing.TB, m *Manager, target string) {
		tb.Helper()
		publishOld(tb, m, target)
		volumetest.WriteFile(tb, filepath.Join(target, "..2020", "left"), "x", 0o644)
		volumetest.Symlink(tb, "..2020", filepath.Join(target, "..data_tmp"))
		volumetest.Symlink(tb, "..data/gone", filepath.Join(target, "gone"))
	}
	return []scenario{
		{"first publish", false, true, nothing, newFiles, nil},
		{"first publish with fallback", true, true, nothing, newFiles, nil},
		{"broken mount", false, false, broken, newFiles, nil},
		{"update", false, false, publishOld, newFiles, oldRevision},
		{"update with fallback", true, false, publishOld, newFiles, oldRevision},
		{"empty mount", false, false, empty, newFiles, nil},
		{"provider-written files", false, false, written, newFiles, nil},
		{"update after a kill", false, false, damaged, newFiles, oldRevision},
	}
}

// visible returns the files of the volume's revision, by way of ..data, and
// fails the test if one of them cannot be found under its own name. It is nil
// if there is no revision.
func visible(tb testing.TB, target string) map[string]string {
	tb.Helper()
	data := filepath.Join(target, "..data")
	if _, err := os.Stat(data); err != nil {
		return nil
	}
	found := map[string]string{}
	err := filepath.WalkDir(data+"/", func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		contents, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(data, path)
		found[name] = string(contents)
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	return found
}

func same(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if b[k] != v {
			return false
		}
	}
	return true
}

// mustBeWhole checks what may be at the target after a publish was stopped
// anywhere, and that the next one puts all right and leaves nothing behind.
func (s *scenario) mustBeWhole(tb testing.TB, m *Manager, target string) {
	tb.Helper()
	state, err := m.State(target)
	if err != nil {
		tb.Fatal(err)
	}
	got := visible(tb, target)
	switch {
	case state == Complete && !same(got, newRevision) && !same(got, s.before):
		tb.Errorf("the volume is complete with %v", got)
	case state != Complete && got != nil && !same(got, newRevision) && !same(got, s.before):
		tb.Errorf("the volume is %v with %v", state, got)
	case state == Incomplete && s.first:
		tb.Error("the volume is incomplete")
	}
	mustPublish(tb, m, Spec{Target: target, Files: s.files})
	if got := visible(tb, target); !same(got, newRevision) {
		tb.Errorf("after a retry the volume holds %v", got)
	}
	entries, err := os.ReadDir(target)
	if err != nil || len(entries) != 5 { // ..data, the revision, a, d, z
		tb.Errorf("after a retry the volume's directory holds %v, %v", entries, err)
	}
	mustState(tb, m, target, Complete)
	if err := m.Sweep(tb.Context()); err != nil {
		tb.Error(err)
	}
	mustState(tb, m, target, Complete)
	mustUnpublish(tb, m, target)
}

// countSteps runs the scenario once undisturbed.
func (s *scenario) countSteps(t *testing.T) int {
	t.Helper()
	steps := 0
	m, root := newManager(t, Config{ForceFallback: s.fallback})
	s.prepare(t, m, targetIn(root))
	m.cfg.Observe = func(string) { steps++ }
	mustPublish(t, m, Spec{Target: targetIn(root), Files: s.files})
	if steps < 8 {
		t.Fatalf("a publish has %d steps", steps)
	}
	return steps
}

// A failure or the end of the context at any step leaves the volume as it was
// or, past the swap, as it should be.
func TestManager_PublishFailsAtAnyStep(t *testing.T) {
	t.Parallel()
	injected := errors.New("injected")
	for _, s := range scenarios() {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			for n := range s.countSteps(t) {
				m, root := newManager(t, Config{ForceFallback: s.fallback})
				target := targetIn(root)
				s.prepare(t, m, target)
				ctx, cancel := context.WithCancelCause(t.Context())
				step, failed := 0, ""
				stop := func(name string) error {
					if step++; step == n+1 {
						failed = name
						return injected
					}
					return nil
				}
				if n%2 == 0 {
					m.cfg.inject = stop
				} else {
					m.cfg.Observe = func(name string) {
						if stop(name) != nil {
							cancel(injected) // this step is still done, the next is not
						}
					}
				}
				err := m.Publish(ctx, Spec{Target: target, Files: s.files})
				cancel(nil)
				m.cfg.inject, m.cfg.Observe = nil, nil
				if err != nil && !errors.Is(err, injected) {
					t.Errorf("%s: Publish: %v", failed, err)
				}
				// When the staging is taken away the volume is in place.
				if n%2 == 0 && err == nil && failed != "unmount staging directory" {
					t.Errorf("%s: the failure is lost", failed)
				}
				if err != nil && s.first {
					mustHaveLeftNothing(t, m, target, failed)
				}
				if got := visible(t, target); err != nil && s.before != nil && n%2 == 0 && beforeSwap(failed) && !same(got, s.before) {
					t.Errorf("%s: the volume holds %v", failed, got)
				}
				s.mustBeWhole(t, m, target)
			}
		})
	}
}

// beforeSwap reports whether readers have noticed nothing when this step fails.
func beforeSwap(step string) bool {
	switch step {
	case "replace entry by link", "remove stale entry", "verify volume":
		return false
	default:
		return true
	}
}

// mustHaveLeftNothing checks, for a target that was not mounted, that the failed
// publish took everything back.
func mustHaveLeftNothing(t *testing.T, m *Manager, target, step string) {
	t.Helper()
	if _, err := os.Lstat(target); !os.IsNotExist(err) {
		t.Errorf("%s: the target is left: %v", step, err)
	}
	mustHaveNoMounts(t, m)
}

func TestManager_StopsBeforeStep(t *testing.T) {
	t.Parallel()
	m, root := newManager(t, Config{})
	gone := errors.New("the pod is gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	m.cfg.Observe = func(name string) {
		if name == "mount detached" {
			cancel(gone)
		}
	}
	target := targetIn(root)
	err := m.Publish(ctx, Spec{Target: target, Files: oldFiles})
	want := fmt.Sprintf(`publish volume at %s: stopped before step "create revision": the pod is gone`, target)
	if err == nil || err.Error() != want || !errors.Is(err, gone) {
		t.Errorf("Publish: %v\nwant %s", err, want)
	}
	if err := m.Unpublish(ctx, target); !errors.Is(err, gone) {
		t.Errorf("Unpublish: %v", err)
	}
}
