package file

import (
	"io/fs"
	"syscall"
)

// stamp is what the file system says about a file's state. It changes when
// the file is written to or replaced, also where the writer puts its
// modification time back.
type stamp struct {
	size     int64
	modified int64
	changed  syscall.Timespec
	inode    uint64
}

func stampOf(info fs.FileInfo) stamp {
	s := stamp{size: info.Size(), modified: info.ModTime().UnixNano()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		s.changed, s.inode = st.Ctim, st.Ino
	}
	return s
}
