// Package unixsocket listens on and dials unix sockets between processes that
// must not trust everything on the node.
//
// A socket appears at its path only when it is complete: bound, listening, with
// its owner, group and mode. Both ends of a connection learn who the other is
// from the kernel (SO_PEERCRED) and may refuse it before a byte is exchanged.
package unixsocket

import (
	"errors"
	"fmt"
	"path/filepath"
)

// MaxPathLength is the longest path of a unix socket, in bytes: sun_path of
// unix(7) without its terminating zero byte.
const MaxPathLength = 107

// DefaultMaxMessageBytes is the largest gRPC message either way, 16 MiB, unless
// it is configured. A volume's files travel in one message.
const DefaultMaxMessageBytes = 16 << 20

// Unowned as a uid or gid leaves the owner or the group as the kernel set it.
const Unowned = -1

// ErrInUse says that a process is listening at the path.
var ErrInUse = errors.New("another process is listening there")

// ErrPathTooLong says that a path is longer than MaxPathLength.
var ErrPathTooLong = errors.New("socket path too long")

func validatePath(path string) error {
	switch {
	case path == "":
		return errors.New("socket path is empty")
	case !filepath.IsAbs(path):
		return fmt.Errorf("socket path %q is not absolute", path)
	case len(path) > MaxPathLength:
		return fmt.Errorf("%w: %q has %d bytes, the kernel allows %d; use a shorter directory or name",
			ErrPathTooLong, path, len(path), MaxPathLength)
	}
	return nil
}
