package file_test

import (
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/postern-dev/postern/providers/sdk"
)

func TestFetch_Unreadable(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	write(t, root, map[string]string{"shop/a": "A"})
	for _, dir := range []string{filepath.Dir(root), root, filepath.Join(root, "shop")} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(root, "shop/a"), 0); err != nil {
		t.Fatal(err)
	}
	var err error
	asNobody(t, func() { _, _, err = fetch(t, root, "- objectName: a") })
	wantError(t, err, sdk.ReasonAccessDenied, "the provider may not read the file")
}

// asNobody calls do with the access to files that an ordinary user has, also in
// tests that run as root, who may read everything.
func asNobody(t *testing.T, do func()) {
	t.Helper()
	const nobody = 65534
	done := make(chan struct{})
	go func() {
		defer close(done)
		// Of this thread alone, which ends with the goroutine.
		runtime.LockOSThread()
		if os.Getuid() == 0 {
			if err := syscall.Setfsuid(nobody); err != nil {
				t.Error(err)
				return
			}
		}
		do()
	}()
	<-done
}
