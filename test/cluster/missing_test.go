package cluster

import (
	"debug/elf"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A busybox that needs shared libraries is found out: in an image it could not start.
func TestBusyboxHasToBeStatic(t *testing.T) {
	shell, err := os.ReadFile("/bin/sh")
	if err != nil {
		t.Skipf("no /bin/sh to play a busybox with shared libraries: %v", err)
	}
	if file, err := elf.Open("/bin/sh"); err != nil || !slices.ContainsFunc(file.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		t.Skip("/bin/sh needs no shared libraries here")
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "busybox"), shell, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	if _, err := findBusybox(); err == nil || !strings.Contains(err.Error(), "busybox-static") {
		t.Errorf("findBusybox() = %v", err)
	}
	if got := MissingPackages(); !slices.Contains(got, "busybox-static") {
		t.Errorf("MissingPackages() = %v", got)
	}
	if got := strings.Join(Missing(), "\n"); !strings.Contains(got, "apt-get install") || !strings.Contains(got, "busybox-static") {
		t.Errorf("Missing() = %q", got)
	}
}
