package harness

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/postern-dev/postern/test/kubelet"
	"github.com/postern-dev/postern/test/process"
)

// Close must see what is left behind, or every test that passes proves nothing.
func TestCloseReportsWhatIsLeft(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	t.Run("nothing", func(t *testing.T) {
		t.Parallel()
		n := bare(t)
		if err := n.Close(); err != nil {
			t.Errorf("Close() = %v", err)
		}
		if _, err := os.Stat(n.root); !os.IsNotExist(err) {
			t.Errorf("the directory is still there (%v)", err)
		}
	})
	t.Run("mount", func(t *testing.T) {
		t.Parallel()
		n := bare(t)
		target := n.Path("mount")
		if err := os.Mkdir(target, 0o750); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("tmpfs", target, "tmpfs", 0, "size=4k"); err != nil {
			t.Fatal(err)
		}
		if err := n.Close(); !errors.Is(err, ErrLeft) || !strings.Contains(err.Error(), target) {
			t.Errorf("Close() = %v, want ErrLeft and the mount", err)
		}
		if mounts, err := kubelet.Mounts(target); err != nil || len(mounts) != 0 {
			t.Errorf("still mounted: %v (%v)", mounts, err)
		}
	})
	t.Run("process", func(t *testing.T) {
		t.Parallel()
		n := bare(t)
		program := n.Path("sleep")
		if err := copyProgram("/bin/sleep", program); err != nil {
			t.Fatal(err)
		}
		p, err := process.Start(process.Config{Name: "sleep", Path: program, Args: []string{"1000"}, LogFile: filepath.Join(t.TempDir(), "log")})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Kill)
		if err := n.Close(); !errors.Is(err, ErrLeft) || !strings.Contains(err.Error(), program) {
			t.Errorf("Close() = %v, want ErrLeft and the program", err)
		}
	})
}

func TestStartFailsWithoutDaemonsAndLeavesNothing(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("daemons run as others: needs root")
	}
	_, err := Start(t.Context(), Config{Binaries: t.TempDir(), Providers: map[string][]string{"file": nil}})
	if err == nil || !strings.Contains(err.Error(), "build it first") {
		t.Errorf("Start() = %v, want it to say what to do", err)
	}
}

// bare returns a node with a directory and no daemons.
func bare(t *testing.T) *Node {
	t.Helper()
	root, err := os.MkdirTemp("", "postern-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	return &Node{root: root, Providers: map[string]*Daemon{}}
}
