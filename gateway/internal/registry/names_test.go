package registry_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/postern-dev/postern/gateway/internal/providertest"
	"github.com/postern-dev/postern/gateway/internal/registry"
)

func TestNames(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		setup func(t *testing.T, n *node)
		// ask is the name, want the base name of the socket that serves it.
		ask, want string
	}{
		{
			name:  "directory, though Describe does not say it",
			setup: func(t *testing.T, n *node) { described("1", "other").Start(t, n.socket("vault", "a")) },
			ask:   "vault", want: "vault/a.sock",
		},
		{
			name:  "alias",
			setup: func(t *testing.T, n *node) { described("1", "vault", "openbao").Start(t, n.socket("vault", "a")) },
			ask:   "openbao", want: "vault/a.sock",
		},
		{
			name: "the directory of the name wins over an alias",
			setup: func(t *testing.T, n *node) {
				described("1", "vault", "openbao").Start(t, n.socket("vault", "a"))
				described("1").Start(t, n.socket("openbao", "a"))
			},
			ask: "openbao", want: "openbao/a.sock",
		},
		{
			name: "an alias has the same owner however often it is asked for",
			setup: func(t *testing.T, n *node) {
				described("1", "shared").Start(t, n.socket("beta", "b"))
				described("1", "shared").Start(t, n.socket("alpha", "a"))
				n.awaitStates(t, "alpha", map[string]registry.State{"a.sock": registry.Serving})
				n.awaitStates(t, "beta", map[string]registry.State{"b.sock": registry.Serving})
			},
			ask: "shared", want: "alpha/a.sock",
		},
		{
			name:  "legacy",
			setup: func(t *testing.T, n *node) { new(providertest.Legacy).Start(t, filepath.Join(n.run, "aws.sock")) },
			ask:   "aws", want: "providers/aws.sock",
		},
		{
			name: "a legacy provider without a good Version serves all the same",
			setup: func(t *testing.T, n *node) {
				l := &providertest.Legacy{VersionError: status.Error(codes.Internal, "boom")}
				l.Start(t, filepath.Join(n.run, "aws.sock"))
			},
			ask: "aws", want: "providers/aws.sock",
		},
		{
			name: "native wins over legacy",
			setup: func(t *testing.T, n *node) {
				described("1").Start(t, n.socket("aws", "a"))
				n.acquire(t, "aws")
				new(providertest.Legacy).Start(t, filepath.Join(n.run, "aws.sock"))
				n.awaitStates(t, "aws", map[string]registry.State{"a.sock": registry.Serving, "aws.sock": registry.Draining})
			},
			ask: "aws", want: "aws/a.sock",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			tt.setup(t, n)
			if tt.name == "the directory of the name wins over an alias" {
				n.awaitStates(t, "vault", map[string]registry.State{"a.sock": registry.Serving})
			}
			if got := n.acquire(t, tt.ask).Socket; !strings.HasSuffix(got, "/"+tt.want) {
				t.Errorf("%s is served by %s, want %s", tt.ask, got, tt.want)
			}
		})
	}
}

func TestNames_DirectoryWithoutSocketTakesTheAlias(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	if err := os.MkdirAll(filepath.Join(n.native, "openbao"), 0o750); err != nil {
		t.Fatal(err)
	}
	described("1", "vault", "openbao").Start(t, n.socket("vault", "a"))
	n.acquire(t, "vault")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := n.registry.Acquire(ctx, "openbao")
	want := `no socket is there; provider "vault" would serve the name too, but it has a directory of its own`
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q in it", err, want)
	}
}

func TestLegacy_FirstDirectoryWins(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	new(providertest.Legacy).Start(t, filepath.Join(n.etc, "aws.sock"))
	new(providertest.Legacy).Start(t, filepath.Join(n.run, "aws.sock"))
	providertest.Eventually(t, "both serve", func() bool { return len(n.registry.Connected()) == 2 })
	if got, want := n.acquire(t, "aws").Socket, filepath.Join(n.etc, "aws.sock"); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestDiscovery_IgnoresWhatIsNoSocketOfAProvider(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	good := n.socket("vault", "a")
	described("1").Start(t, good)
	for _, bad := range []string{
		filepath.Join(n.native, "not valid", "a.sock"),
		filepath.Join(n.native, "vault", ".hidden.sock"),
		filepath.Join(n.native, "vault", "a.socket"),
		filepath.Join(n.native, "vault", "deep", "a.sock"),
		filepath.Join(n.run, strings.Repeat("x", 31)+".sock"),
	} {
		described("1").Start(t, bad)
	}
	if err := os.WriteFile(n.socket("vault", "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(good, n.socket("vault", "link")); err != nil {
		t.Fatal(err)
	}
	described("1").Start(t, n.socket("vault", "z"))
	providertest.Eventually(t, "the last one is found", func() bool { return n.states("vault")["z.sock"] == registry.Serving })
	var sockets []string
	for _, p := range n.registry.Snapshot() {
		for _, i := range p.Instances {
			sockets = append(sockets, i.Socket)
		}
	}
	slices.Sort(sockets)
	if diff := cmp.Diff([]string{good, n.socket("vault", "z")}, sockets); diff != "" {
		t.Errorf("sockets (-want +got):\n%s", diff)
	}
}
