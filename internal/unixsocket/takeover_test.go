package unixsocket_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-dev/postern/internal/unixsocket"
)

// instance listens and counts who connects. It serves until its listener closes.
type instance struct {
	net.Listener
	name  string
	ended chan struct{}
}

// takeOver starts an instance that answers each connection with its name.
func takeOver(t *testing.T, path, name string) *instance {
	t.Helper()
	i := &instance{
		Listener: listen(t, unixsocket.ListenConfig{Path: path, TakeOver: true}),
		name:     name, ended: make(chan struct{}),
	}
	go func() {
		defer close(i.ended)
		for {
			conn, err := i.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte(name))
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() { i.close(t) })
	return i
}

func (i *instance) close(t *testing.T) {
	t.Helper()
	if err := i.Close(); err != nil {
		t.Errorf("close %s: %v", i.name, err)
	}
	<-i.ended
}

// answering returns the name of the instance at path, or "".
func answering(path string) string {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return ""
	}
	defer func() { _ = conn.Close() }()
	buffer := make([]byte, 16)
	n, _ := conn.Read(buffer) // an instance that ends answers nobody
	return string(buffer[:n])
}

func wantAnswering(t *testing.T, path, want string) {
	t.Helper()
	if got := answering(path); got != want {
		t.Errorf("%q answers, want %q", got, want)
	}
}

func TestTakeOver(t *testing.T) {
	t.Parallel()
	path := filepath.Join(openDir(t), "x.sock")
	older := takeOver(t, path, "older")
	open, err := net.Dial("unix", path) // waits in its backlog, or is accepted
	if err != nil {
		t.Fatal(err)
	}
	newer := takeOver(t, path, "newer")
	wantAnswering(t, path, "newer")
	buffer := make([]byte, 16)
	if n, err := open.Read(buffer); err != nil || string(buffer[:n]) != "older" {
		t.Errorf("the connection to the older one got %q, %v", buffer[:n], err)
	}
	_ = open.Close()
	older.close(t)
	wantAnswering(t, path, "newer")
	newer.close(t)
	if got := names(t, filepath.Dir(path)); len(got) != 0 {
		t.Errorf("left in the directory: %q", got)
	}
}

// TestTakeOver_GivesBack: the older one starts anew while the newer one is up,
// and ends after all.
func TestTakeOver_GivesBack(t *testing.T) {
	t.Parallel()
	path := filepath.Join(openDir(t), "x.sock")
	takeOver(t, path, "oldest")
	takeOver(t, path, "older")
	newest := takeOver(t, path, "newest")
	newest.close(t)
	wantAnswering(t, path, "older")
}

// TestTakeOver_Reclaims: who took the path over was killed, and left a socket
// that nobody listens on, or nothing.
func TestTakeOver_Reclaims(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(*testing.T, string){
		"stale":   leaveStale,
		"nothing": func(*testing.T, string) {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(openDir(t), "x.sock")
			takeOver(t, path, "survivor")
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			leave(t, path)
			eventually(t, func() bool { return answering(path) == "survivor" })
		})
	}
}

// TestTakeOver_AlwaysAnswers connects all the time while instances come and go
// in every order.
func TestTakeOver_AlwaysAnswers(t *testing.T) {
	t.Parallel()
	path := filepath.Join(openDir(t), "x.sock")
	current := takeOver(t, path, "0")
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for range 2 {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				conn, err := net.Dial("unix", path)
				if err != nil {
					t.Errorf("nobody answers: %v", err)
					return
				}
				_, _ = conn.Read(make([]byte, 1)) // one at a time: a backlog has an end
				_ = conn.Close()
			}
		})
	}
	for i := range 100 {
		next := takeOver(t, path, "n")
		if i%2 == 0 {
			current, next = next, current
		}
		next.close(t)
	}
	close(stop)
	clients.Wait()
	current.close(t)
}

func TestTakeOver_ConcurrentSafe(t *testing.T) {
	t.Parallel()
	path := filepath.Join(openDir(t), "x.sock")
	for range 10 {
		var wg sync.WaitGroup
		for range 6 {
			wg.Go(func() {
				l, err := unixsocket.Listen(t.Context(), unixsocket.ListenConfig{Path: path, TakeOver: true})
				if err != nil {
					t.Error(err)
					return
				}
				if err := l.Close(); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if got := names(t, filepath.Dir(path)); len(got) != 0 {
			t.Errorf("left in the directory: %q", got)
		}
	}
}

func TestTakeOver_RemovesTheNamesOfTheDead(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	path := filepath.Join(dir, "x.sock")
	leaveStale(t, filepath.Join(dir, ".x.sock.123"))
	leaveStale(t, filepath.Join(dir, ".y.sock.123")) // another path's
	takeOver(t, path, "older")
	takeOver(t, path, "newer")
	var spares int
	for _, name := range names(t, dir) {
		switch {
		case name == ".x.sock.123":
			t.Error("the name of a dead instance is left")
		case strings.HasPrefix(name, ".x.sock."):
			spares++
		}
	}
	if spares != 2 {
		t.Errorf("%d second names, want one of each instance: %q", spares, names(t, dir))
	}
	if _, err := os.Lstat(filepath.Join(dir, ".y.sock.123")); err != nil {
		t.Errorf("what belongs to another path is gone: %v", err)
	}
}

func TestTakeOver_LeavesOthersAlone(t *testing.T) {
	t.Parallel()
	path := filepath.Join(openDir(t), "x.sock")
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := unixsocket.Listen(t.Context(), unixsocket.ListenConfig{Path: path, TakeOver: true})
	if err == nil || !strings.HasSuffix(err.Error(), "that is not a socket; remove it") {
		t.Errorf("error = %v", err)
	}
	if got := names(t, filepath.Dir(path)); len(got) != 1 {
		t.Errorf("left in the directory: %q", got)
	}
}

// TestTakeOver_IsAsked: who does not ask for it still gets ErrInUse.
func TestTakeOver_IsAsked(t *testing.T) {
	t.Parallel()
	path := filepath.Join(openDir(t), "x.sock")
	takeOver(t, path, "first")
	if _, err := unixsocket.Listen(t.Context(), unixsocket.ListenConfig{Path: path}); !errors.Is(err, unixsocket.ErrInUse) {
		t.Errorf("error = %v, want ErrInUse", err)
	}
}

// TestTakeOver_LongPath: the second name may be longer than a socket's path.
func TestTakeOver_LongPath(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	dir = filepath.Join(dir, strings.Repeat("d", unixsocket.MaxPathLength-len(dir)-len("//x.sock")))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "x.sock")
	takeOver(t, path, "older")
	newer := takeOver(t, path, "newer")
	newer.close(t)
	wantAnswering(t, path, "older")
}

func eventually(t *testing.T, done func() bool) {
	t.Helper()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	for !done() {
		select {
		case <-ticker.C:
		case <-deadline.C:
			t.Fatal("it did not happen within 20 s")
		}
	}
}
