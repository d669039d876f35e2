//go:build !linux

package volume

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/postern-dev/postern/driver/internal/volume/volumetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// contents returns what the volume's files hold, by the names that pods use, and
// how many entries the volume's directory has.
func contents(t *testing.T, target string) (map[string]string, int) {
	t.Helper()
	found := map[string]string{}
	entries, err := os.ReadDir(target)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.OpenRoot(filepath.Join(target, "..data"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = data.Close() }()
	err = fs.WalkDir(data.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(filepath.Join(target, filepath.FromSlash(path)))
		found[path] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found, len(entries)
}

func TestManager_Lifecycle(t *testing.T) {
	t.Parallel()
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	m, err := New(Config{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	target := targetIn(root)
	mustState := func(want State) {
		t.Helper()
		if got, err := m.State(target); got != want || err != nil {
			t.Fatalf("State: %v, %v; want %v", got, err, want)
		}
	}
	mustHold := func(want map[string]string, entries int) {
		t.Helper()
		got, n := contents(t, target)
		if diff := cmp.Diff(want, got); diff != "" || n != entries {
			t.Fatalf("%d entries, want %d; files (-want +got):\n%s", n, entries, diff)
		}
	}

	mustRead := func(want map[string]string) {
		t.Helper()
		files, err := m.Read(target)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for _, f := range files {
			got[f.Path] = string(f.Contents.Reveal())
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("Read (-want +got):\n%s", diff)
		}
	}

	mustState(NotMounted)
	if _, err := m.Read(target); !errors.Is(err, ErrNotMounted) {
		t.Fatalf("Read: %v", err)
	}
	spec := Spec{Target: target, Files: []File{volumetest.File("a", "1"), volumetest.File("d/b", "2")}}
	if _, err := m.Update(t.Context(), spec); !errors.Is(err, ErrNotMounted) {
		t.Fatalf("Update: %v", err)
	}
	if err := m.Publish(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	mustState(Complete)
	mustHold(map[string]string{"a": "1", "d/b": "2"}, 4)
	mustRead(map[string]string{"a": "1", "d/b": "2"})
	if changed, err := m.Update(t.Context(), spec); changed || err != nil {
		t.Fatalf("Update: changed %v, %v", changed, err)
	}

	spec.Files = []File{volumetest.File("a", "3"), volumetest.File("c", "4")}
	if changed, err := m.Update(t.Context(), spec); !changed || err != nil {
		t.Fatalf("Update: changed %v, %v", changed, err)
	}
	want := map[string]string{"a": "3", "c": "4"}
	mustHold(want, 4)

	// A file that a provider wrote by itself gives way to a link.
	if err := os.Remove(filepath.Join(target, "a")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(target, "a"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	mustState(Incomplete)
	if err := m.Publish(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	mustHold(maps.Clone(want), 4)

	for range 2 {
		if err := m.Unpublish(t.Context(), target); err != nil {
			t.Fatal(err)
		}
		mustState(NotMounted)
		if _, err := os.Lstat(target); !os.IsNotExist(err) {
			t.Fatalf("the target is left: %v", err)
		}
	}
	if err := m.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
}
