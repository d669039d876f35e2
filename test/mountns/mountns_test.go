package mountns_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/postern-dev/postern/test/kubelet"
	"github.com/postern-dev/postern/test/mountns"
)

// targetEnv is where the child is to mount; it ends with a code of its own.
const (
	targetEnv = "POSTERN_TEST_MOUNTNS_TARGET"
	childCode = 7
)

func TestMain(m *testing.M) {
	target := os.Getenv(targetEnv)
	if !mountns.Inside(os.Getenv) {
		os.Exit(m.Run())
	}
	if err := mount(target); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(childCode)
}

func mount(target string) error {
	if err := unix.Mount("tmpfs", target, "tmpfs", 0, "size=4k"); err != nil {
		return err
	}
	mounts, err := kubelet.Mounts(target)
	if err == nil && len(mounts) != 1 {
		err = fmt.Errorf("mounts %v, want the one just made", mounts)
	}
	return err
}

// What is mounted in the namespace is mounted there alone.
func TestAgain(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	target := filepath.Join(t.TempDir(), "mount")
	if err := os.Mkdir(target, 0o750); err != nil {
		t.Fatal(err)
	}
	t.Setenv(targetEnv, target)
	if code, err := mountns.Again(t.Context()); err != nil || code != childCode {
		t.Errorf("Again() = %d, %v, want the child's code %d", code, err, childCode)
	}
	mounts, err := kubelet.Mounts(target)
	if err != nil || len(mounts) != 0 {
		t.Errorf("mounts outside of the namespace: %v (%v)", mounts, err)
	}
}
