package unixsocket_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/postern-dev/postern/internal/unixsocket"
)

func TestClose(t *testing.T) {
	t.Parallel()
	path := filepath.Join(openDir(t), "x.sock")
	l := listen(t, unixsocket.ListenConfig{Path: path})
	for range 2 {
		if err := l.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	if got := names(t, filepath.Dir(path)); len(got) != 0 {
		t.Errorf("after Close there is %q", got)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after Close: %v", err)
	}
}

// TestClose_LeavesSuccessor: a newer instance took the path over while the older
// one still serves its last calls.
func TestClose_LeavesSuccessor(t *testing.T) {
	t.Parallel()
	path := filepath.Join(openDir(t), "x.sock")
	older := listen(t, unixsocket.ListenConfig{Path: path})
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	newer := listen(t, unixsocket.ListenConfig{Path: path})
	if err := older.Close(); err != nil {
		t.Fatal(err)
	}
	if !answers(t, path) {
		t.Fatal("the older one removed the newer one's socket")
	}
	if err := newer.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestClose_DirectoryGone(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(openDir(t), "d")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	l := listen(t, unixsocket.ListenConfig{Path: filepath.Join(dir, "x.sock")})
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}
