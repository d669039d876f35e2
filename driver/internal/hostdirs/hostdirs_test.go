//go:build linux

package hostdirs_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/postern-dev/postern/driver/internal/hostdirs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	gatewayUID = 65001
	vaultUID   = 65011
)

func newDirs(t *testing.T, root string, change func(*hostdirs.Config)) *hostdirs.Dirs {
	t.Helper()
	cfg := hostdirs.Config{
		GatewayDir:   filepath.Join(root, "gateway"),
		ProvidersDir: filepath.Join(root, "providers"),
		LegacyDirs:   []string{filepath.Join(root, "legacy")},
		GatewayUID:   gatewayUID,
		ProviderUIDs: map[string]int{"vault": vaultUID},
		Logger:       slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&cfg)
	}
	dirs, err := hostdirs.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return dirs
}

// access is what ls -ldn shows.
func access(t *testing.T, path string) string {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		t.Fatal("no stat")
	}
	return fmt.Sprintf("%v %d:%d", info.Mode(), stat.Uid, stat.Gid)
}

func TestCreate_GivesEachDirectoryItsOwner(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	dirs := newDirs(t, root, nil)
	// Twice: the second time there is something to repair.
	for _, spoil := range []bool{false, true} {
		if spoil {
			vault := filepath.Join(root, "providers/vault")
			if err := os.Chown(vault, 0, 0); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(filepath.Join(root, "gateway"), 0o777); err != nil {
				t.Fatal(err)
			}
		}
		if err := dirs.Create(); err != nil {
			t.Fatal(err)
		}
		for path, want := range map[string]string{
			"gateway":         "drwxr-x--- 65001:65001",
			"providers":       "drwxr-x--x 0:65001",
			"providers/vault": "dgrwxr-x--- 65011:65001",
		} {
			if got := access(t, filepath.Join(root, path)); got != want {
				t.Errorf("%s: %s, want %s", path, got, want)
			}
		}
	}
}

func TestCreate_RefusesWhatIsNoDirectory(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	elsewhere := t.TempDir()
	if err := os.Symlink(elsewhere, filepath.Join(root, "gateway")); err != nil {
		t.Fatal(err)
	}
	before := access(t, elsewhere)
	err := newDirs(t, root, nil).Create()
	if want := filepath.Join(root, "gateway") + " is not a directory: remove it"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	if after := access(t, elsewhere); after != before {
		t.Errorf("what the link leads to was changed: %s", after)
	}
}

func TestRun_OpensLegacySocketsToTheGateway(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	legacy := filepath.Join(root, "legacy")
	if err := os.Mkdir(legacy, 0o700); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(legacy, "upstream.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close() //nolint:errcheck // a test
	if err := os.Chmod(socket, 0o755); err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(root, "secret")
	if err := os.WriteFile(secret, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(secret, filepath.Join(legacy, "link.sock")); err != nil {
		t.Fatal(err)
	}
	runOnce(t, newDirs(t, root, nil))
	if got, want := access(t, socket), "Srwxrwxr-x 0:65001"; got != want {
		t.Errorf("socket: %s, want %s", got, want)
	}
	if got, want := access(t, legacy), "drwxr-x--- 0:65001"; got != want {
		t.Errorf("directory: %s, want %s", got, want)
	}
	if got, want := access(t, secret), "-rw------- 0:0"; got != want {
		t.Errorf("a link was followed: %s, want %s", got, want)
	}
}

func TestRun_LogsALastingFaultOnce(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "gateway"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var logged bytes.Buffer
	dirs := newDirs(t, root, func(cfg *hostdirs.Config) { cfg.Logger = slog.New(slog.NewTextHandler(&logged, nil)) })
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := dirs.Run(ctx); err != nil {
			t.Fatal(err)
		}
	})
	if got := strings.Count(logged.String(), "cannot keep the socket directories"); got != 1 {
		t.Errorf("logged %d times: %s", got, logged.String())
	}
}

func TestNew_Refuses(t *testing.T) {
	t.Parallel()
	for want, change := range map[string]func(*hostdirs.Config){
		`host directory "gateway" is not an absolute path`: func(c *hostdirs.Config) { c.GatewayDir = "gateway" },
		`provider name "../vault" is not a file name`:      func(c *hostdirs.Config) { c.ProviderUIDs = map[string]int{"../vault": 1} },
		`uid -1 of provider "vault" is negative`:           func(c *hostdirs.Config) { c.ProviderUIDs["vault"] = -1 },
		`host directories need a logger`:                   func(c *hostdirs.Config) { c.Logger = nil },
	} {
		cfg := hostdirs.Config{
			GatewayDir: "/g", ProvidersDir: "/p", ProviderUIDs: map[string]int{"vault": 1}, Logger: slog.New(slog.DiscardHandler),
		}
		change(&cfg)
		if _, err := hostdirs.New(cfg); err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}

// runOnce lets Run do its first round.
func runOnce(t *testing.T, dirs *hostdirs.Dirs) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := dirs.Run(ctx); err != nil {
		t.Fatal(err)
	}
}
