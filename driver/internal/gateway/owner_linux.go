package gateway

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// requireOwner refuses a process that listens in the gateway's directory
// without being its owner: it would be handed the tokens of every pod.
func requireOwner(dir string, uid uint32) error {
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("look up the owner of %s: %w", dir, err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("look up the owner of %s: %w", dir, fs.ErrInvalid)
	}
	if stat.Uid != uid {
		return fmt.Errorf("the process that listens in %s has uid %d, but the directory belongs to uid %d", dir, uid, stat.Uid)
	}
	return nil
}
