package unixsocket_test

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/postern-dev/postern/internal/unixsocket"
)

func TestListen_Mode(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ mode, want fs.FileMode }{
		"default":  {mode: 0, want: 0o600},
		"group":    {mode: 0o660, want: 0o660}, // wider than umask 022 allows
		"everyone": {mode: 0o666, want: 0o666},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(openDir(t), "x.sock")
			l := listen(t, unixsocket.ListenConfig{Path: path, Mode: tt.mode})
			info, err := os.Lstat(path)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := info.Mode(), tt.want|fs.ModeSocket; got != want {
				t.Errorf("mode = %v, want %v", got, want)
			}
			if got := l.Addr().String(); got != path {
				t.Errorf("Addr = %q, want %q", got, path)
			}
			if !answers(t, path) {
				t.Error("nobody answers")
			}
			if got := names(t, filepath.Dir(path)); len(got) != 1 {
				t.Errorf("the directory has %q, want the socket only", got)
			}
		})
	}
}

func TestListen_Owner(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("needs root, to give files away")
	}
	const dirGroup = 4242
	for name, tt := range map[string]struct{ uid, gid, wantUID, wantGID int }{
		"zero value":  {wantUID: 0, wantGID: dirGroup},
		"unowned":     {uid: unixsocket.Unowned, gid: unixsocket.Unowned, wantUID: 0, wantGID: dirGroup},
		"uid only":    {uid: 7, gid: unixsocket.Unowned, wantUID: 7, wantGID: dirGroup},
		"gid only":    {gid: 8, wantUID: 0, wantGID: 8},
		"uid and gid": {uid: 7, gid: 8, wantUID: 7, wantGID: 8},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := openDir(t)
			if err := os.Chown(dir, 0, dirGroup); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(dir, 0o750|fs.ModeSetgid); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "x.sock")
			listen(t, unixsocket.ListenConfig{Path: path, Mode: 0o660, UID: tt.uid, GID: tt.gid})
			var st syscall.Stat_t
			if err := syscall.Lstat(path, &st); err != nil {
				t.Fatal(err)
			}
			if int(st.Uid) != tt.wantUID || int(st.Gid) != tt.wantGID || st.Mode&0o7777 != 0o660 {
				t.Errorf("owner %d:%d mode %o, want %d:%d mode 660", st.Uid, st.Gid, st.Mode&0o7777, tt.wantUID, tt.wantGID)
			}
		})
	}
}

func TestListen_Refuses(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	valid := unixsocket.ListenConfig{Path: filepath.Join(dir, "x.sock")}
	tooLong := "/" + strings.Repeat("x", unixsocket.MaxPathLength)
	for name, tt := range map[string]struct {
		mutate func(*unixsocket.ListenConfig)
		want   string
	}{
		"empty path":    {func(c *unixsocket.ListenConfig) { c.Path = "" }, "listen: socket path is empty"},
		"relative path": {func(c *unixsocket.ListenConfig) { c.Path = "x.sock" }, `listen: socket path "x.sock" is not absolute`},
		"long path": {
			func(c *unixsocket.ListenConfig) { c.Path = tooLong },
			`listen: socket path too long: "` + tooLong + `" has 108 bytes, the kernel allows 107; use a shorter directory or name`,
		},
		"file type in mode": {
			func(c *unixsocket.ListenConfig) { c.Mode = fs.ModeSetuid | 0o600 },
			"listen: mode urw------- has more than permission bits",
		},
		"uid": {
			func(c *unixsocket.ListenConfig) { c.UID = -2 },
			"listen: owner -2:0 is not a uid and gid; use -1 to leave one",
		},
		"gid": {
			func(c *unixsocket.ListenConfig) { c.GID = -2 },
			"listen: owner 0:-2 is not a uid and gid; use -1 to leave one",
		},
		"no directory": {
			func(c *unixsocket.ListenConfig) { c.Path = dir + "/no/x.sock" },
			"listen on " + dir + "/no/x.sock: lock directory " + dir + "/no: open " + dir + "/no: no such file or directory",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := valid
			tt.mutate(&cfg)
			l, err := unixsocket.Listen(t.Context(), cfg)
			if err == nil {
				_ = l.Close()
				t.Fatal("no error")
			}
			if err.Error() != tt.want {
				t.Errorf("error\n got %s\nwant %s", err, tt.want)
			}
		})
	}
}

// TestListen_LongPath: all of the kernel's 107 bytes can be used, although the
// name that the socket is bound to first would be longer.
func TestListen_LongPath(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	dir = filepath.Join(dir, strings.Repeat("d", unixsocket.MaxPathLength-len(dir)-len("//x.sock")))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "x.sock")
	listen(t, unixsocket.ListenConfig{Path: path})
	if len(path) != unixsocket.MaxPathLength || !answers(t, path) {
		t.Errorf("nobody answers at a path of %d bytes", len(path))
	}
}

func TestListen_ReplacesStale(t *testing.T) {
	t.Parallel()
	path := filepath.Join(openDir(t), "x.sock")
	leaveStale(t, path)
	listen(t, unixsocket.ListenConfig{Path: path})
	if !answers(t, path) {
		t.Error("nobody answers")
	}
}

func TestListen_RefusesLive(t *testing.T) {
	t.Parallel()
	path := filepath.Join(openDir(t), "x.sock")
	listen(t, unixsocket.ListenConfig{Path: path})
	_, err := unixsocket.Listen(t.Context(), unixsocket.ListenConfig{Path: path})
	if !errors.Is(err, unixsocket.ErrInUse) {
		t.Errorf("error = %v, want ErrInUse", err)
	}
	if want := "listen on " + path + ": another process is listening there"; err == nil || err.Error() != want {
		t.Errorf("error = %v, want %s", err, want)
	}
	if !answers(t, path) {
		t.Error("the first one does not answer any more")
	}
}

// TestListen_RefusesBusy: a server whose backlog is full does not answer, but is
// not gone.
func TestListen_RefusesBusy(t *testing.T) {
	t.Parallel()
	path := filepath.Join(openDir(t), "x.sock")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	waiting, err := net.Dial("unix", path) // takes the one place
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = waiting.Close() })
	if _, err := unixsocket.Listen(t.Context(), unixsocket.ListenConfig{Path: path}); !errors.Is(err, unixsocket.ErrInUse) {
		t.Errorf("error = %v, want ErrInUse", err)
	}
}

func TestListen_LeavesOthersAlone(t *testing.T) {
	t.Parallel()
	for name, put := range map[string]func(path string) error{
		"file":      func(path string) error { return os.WriteFile(path, []byte("x"), 0o600) },
		"directory": func(path string) error { return os.Mkdir(path, 0o700) },
		"symlink":   func(path string) error { return os.Symlink("elsewhere", path) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(openDir(t), "x.sock")
			if err := put(path); err != nil {
				t.Fatal(err)
			}
			before, err := os.Lstat(path)
			if err != nil {
				t.Fatal(err)
			}
			_, err = unixsocket.Listen(t.Context(), unixsocket.ListenConfig{Path: path})
			if err == nil || !strings.HasSuffix(err.Error(), "that is not a socket; remove it") {
				t.Errorf("error = %v", err)
			}
			after, err := os.Lstat(path)
			if err != nil || !os.SameFile(before, after) {
				t.Errorf("the %s is gone: %v", name, err)
			}
		})
	}
}

func TestListen_RemovesAbandoned(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	abandoned := filepath.Join(dir, ".postern-listen-123")
	if err := os.Mkdir(abandoned, 0o700); err != nil {
		t.Fatal(err)
	}
	leaveStale(t, filepath.Join(abandoned, "s"))
	listen(t, unixsocket.ListenConfig{Path: filepath.Join(dir, "x.sock")})
	if got := names(t, dir); len(got) != 1 || got[0] != "x.sock" {
		t.Errorf("the directory has %q, want x.sock only", got)
	}
}

// TestListen_WaitsForLock: while another process is at work in the directory
// Listen waits, and no longer than its context.
func TestListen_WaitsForLock(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	other, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = other.Close() })
	if err := unix.Flock(int(other.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	cfg := unixsocket.ListenConfig{Path: filepath.Join(dir, "x.sock")}
	if _, err := unixsocket.Listen(ctx, cfg); !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v, want Canceled", err)
	}
	done := make(chan error, 1)
	go func() {
		l, err := unixsocket.Listen(t.Context(), cfg)
		if err == nil {
			err = l.Close()
		}
		done <- err
	}()
	if err := unix.Flock(int(other.Fd()), unix.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("after the lock is free: %v", err)
	}
}

// TestListen_ConcurrentSafe: of many that want the same path, all of whom see a
// stale socket there first, one gets it.
func TestListen_ConcurrentSafe(t *testing.T) {
	t.Parallel()
	path := filepath.Join(openDir(t), "x.sock")
	for range 20 {
		leaveStale(t, path)
		var (
			wg  sync.WaitGroup
			won atomic.Pointer[net.Listener]
		)
		for range 8 {
			wg.Go(func() {
				l, err := unixsocket.Listen(t.Context(), unixsocket.ListenConfig{Path: path})
				switch {
				case err == nil && !won.CompareAndSwap(nil, &l):
					t.Error("two listen at once")
					_ = l.Close()
				case err != nil && !errors.Is(err, unixsocket.ErrInUse):
					t.Error(err)
				}
			})
		}
		wg.Wait()
		winner := won.Load()
		if winner == nil {
			t.Fatal("nobody listens")
		}
		if !answers(t, path) {
			t.Error("the winner's socket is not there")
		}
		if err := (*winner).Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestListen_NeverWider looks at the socket all the time while it comes and
// goes: it must never have another mode than the final one.
func TestListen_NeverWider(t *testing.T) {
	t.Parallel()
	path := filepath.Join(openDir(t), "x.sock")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if info, err := os.Lstat(path); err == nil && info.Mode().Perm() != 0o620 {
				t.Errorf("mode = %v", info.Mode())
				return
			}
		}
	})
	for range 200 {
		l, err := unixsocket.Listen(t.Context(), unixsocket.ListenConfig{Path: path, Mode: 0o620})
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	wg.Wait()
}

// leaveStale leaves a socket as a process that was killed does.
func leaveStale(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func answers(t *testing.T, path string) bool {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
