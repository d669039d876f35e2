//go:build !unix

package unixsocket

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"syscall"
)

// tempSocket is the socket's name while it is in its private directory.
const tempSocket = "s"

// wsaeConnRefused is WSAECONNREFUSED of the Windows sockets API.
const wsaeConnRefused syscall.Errno = 10061

func listenIn(ctx context.Context, dir string) (*net.UnixListener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "unix", filepath.Join(dir, tempSocket))
	if err != nil {
		return nil, err
	}
	return l.(*net.UnixListener), nil // by the package net's contract for "unix"
}

func connect(ctx context.Context, path string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "unix", path)
}

// setOwner does nothing: files have no uid and gid here.
func setOwner(string, ListenConfig) error { return nil }

// lockDir does nothing: directories cannot be locked here.
func lockDir(context.Context, string) (unlock func(), err error) { return func() {}, nil }

func isRefused(err error) bool { return errors.Is(err, wsaeConnRefused) }

func isBusy(error) bool { return false }
