package volume

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/postern-dev/postern/driver/internal/volume/volumetest"
)

func TestManager_UnpublishMissing(t *testing.T) {
	t.Parallel()
	for _, api := range apis {
		t.Run(api.name, func(t *testing.T) {
			t.Parallel()
			m, target := api.manager(t)
			mustUnpublish(t, m, target) // not even its parent exists
			if err := os.MkdirAll(filepath.Dir(target), 0o750); err != nil {
				t.Fatal(err)
			}
			mustUnpublish(t, m, target)
			if err := os.MkdirAll(target, 0o750); err != nil {
				t.Fatal(err)
			}
			mustUnpublish(t, m, target)
			mustUnpublish(t, m, target)
		})
	}
}

// A volume in use is taken away all the same, and its secrets are gone for those
// who hold it, here through another mount as in a container.
func TestManager_UnpublishBusy(t *testing.T) {
	t.Parallel()
	for _, api := range apis {
		t.Run(api.name, func(t *testing.T) {
			t.Parallel()
			m, target := api.manager(t)
			mustPublish(t, m, Spec{Target: target, Files: []File{volumetest.File("a", "1"), volumetest.File("d/b", "2")}})
			container := volumetest.TempRoot(t)
			seen := filepath.Join(container, "secrets")
			if err := os.Mkdir(seen, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := unix.Mount(target, seen, "", unix.MS_BIND, ""); err != nil {
				t.Fatal(err)
			}
			held, err := os.Open(target)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = held.Close() }()
			if err := unix.Unmount(target, 0); !errors.Is(err, unix.EBUSY) {
				t.Fatalf("the mount is not busy: %v", err)
			}
			mustUnpublish(t, m, target)
			volumetest.MustBe(t, seen, map[string]string{"": "0755 0:0 /"})
		})
	}
}
