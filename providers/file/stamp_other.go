//go:build !linux

package file

import "io/fs"

// stamp is what the file system says about a file's state.
type stamp struct {
	size     int64
	modified int64
}

func stampOf(info fs.FileInfo) stamp {
	return stamp{size: info.Size(), modified: info.ModTime().UnixNano()}
}
