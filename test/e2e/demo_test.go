package e2e_test

import (
	"bytes"
	"context"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/postern-dev/postern/test/demo"
)

// The demo is the first thing that anybody sees of the project: it must work,
// show what it promises and leave nothing behind.
func TestDemo(t *testing.T) { //nolint:paralleltest // sets TMPDIR
	for name, test := range map[string]struct {
		run  func(context.Context, demo.Config) error
		want []string
	}{
		"file": {demo.File, []string{
			`username         "bob"`, "-r-------- 0:0 password", "type tmpfs (rw,nosuid,nodev,noexec",
			"csi.NodePublishVolume", "gateway.Fetch", "provider.Fetch", "no process, no mount and no directory is left",
		}},
		"vault": {demo.Vault, []string{
			`myUsername       "bob"`, `myPassword       "p4ssw0rd"`, "/v1/auth/kubernetes/login", "/v1/secret/data/app",
			"no process, no mount and no directory is left",
		}},
	} {
		t.Run(name, func(t *testing.T) { //nolint:paralleltest // as above
			dir := temporary(t)
			var out bytes.Buffer
			if err := test.run(t.Context(), demo.Config{Out: &out, Progress: io.Discard, Getenv: os.Getenv}); err != nil {
				t.Fatalf("%v\n%s", err, out.String())
			}
			for _, want := range test.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("the demo does not show %q:\n%s", want, out.String())
				}
			}
			wantEmpty(t, dir)
		})
	}
}

// An interrupted demo cleans up as one that comes to its end.
func TestDemoInterrupted(t *testing.T) { //nolint:paralleltest // as above
	dir := temporary(t)
	ctx, cancel := context.WithCancel(t.Context())
	// As soon as it shows the files, which is in the middle of a mount.
	out := &trigger{text: "What the application finds", act: cancel}
	if err := demo.File(ctx, demo.Config{Out: out, Progress: io.Discard, Getenv: os.Getenv}); err == nil {
		t.Error("the demo was interrupted and says that it came to its end")
	}
	if ctx.Err() == nil {
		t.Fatal("the demo was not interrupted")
	}
	wantEmpty(t, dir)
}

// trigger acts when a text is written to it.
type trigger struct {
	text string
	act  func()
}

func (w *trigger) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte(w.text)) {
		w.act()
	}
	return len(p), nil
}

// temporary makes a temporary directory for the test alone, which the daemons'
// uids reach. Its path is short, for the sockets' sake.
func temporary(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "demo-")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	must(t, os.Chmod(dir, 0o755))
	t.Setenv("TMPDIR", dir)
	return dir
}

func wantEmpty(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	must(t, err)
	if len(left) != 0 {
		t.Errorf("left in the temporary directory: %v", left)
	}
}
