//go:build !linux

package hostdirs

import (
	"fmt"
	"io/fs"
	"os"
)

// ensure makes dir; owners and modes are Linux's.
func ensure(dir string, _, _ int, mode fs.FileMode) error {
	if err := os.MkdirAll(dir, mode.Perm()); err != nil {
		return fmt.Errorf("make directory %s: %w", dir, err)
	}
	return nil
}

func openTo(string, int, fs.FileMode) error { return nil }
