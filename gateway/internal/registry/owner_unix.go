//go:build unix

package registry

import (
	"io/fs"
	"syscall"
)

// inode identifies a file as long as it exists.
type inode struct{ device, number uint64 }

// ownerOf returns a file's owner and identity.
func ownerOf(info fs.FileInfo) (uint32, inode) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ^uint32(0), inode{}
	}
	return st.Uid, inode{device: uint64(st.Dev), number: uint64(st.Ino)} //nolint:unconvert // the types differ between systems
}
