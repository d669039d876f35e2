package volume

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/postern-dev/postern/driver/internal/volume/volumetest"
)

// victimEnv holds the order of a process that this test binary starts as a
// child, which is to be killed.
const victimEnv = "POSTERN_TEST_VOLUME_VICTIM"

// order is what a victim does: publish newFiles and kill itself at a step.
type order struct {
	Root     string
	Fallback bool
	KillAt   int // counted from 1; 0 means not at all
	Umask    int
}

// TestVictim is the child: it carries out the order that it finds in its
// environment. Without one it has nothing to do.
func TestVictim(t *testing.T) { //nolint:paralleltest // it runs alone, in a process of its own
	encoded := os.Getenv(victimEnv)
	if encoded == "" {
		return
	}
	var o order
	if err := json.Unmarshal([]byte(encoded), &o); err != nil {
		t.Fatal(err)
	}
	unix.Umask(o.Umask)
	step := 0
	m, err := New(Config{Root: o.Root, ForceFallback: o.Fallback, Observe: func(string) {
		if step++; step == o.KillAt {
			_ = unix.Kill(os.Getpid(), unix.SIGKILL)
			select {} // the signal comes before anything else can happen
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	mustPublish(t, m, Spec{Target: targetIn(o.Root), Files: newFiles})
}

// run carries out the order in a child and reports whether it was killed.
func (o order) run(t *testing.T) (killed bool) {
	t.Helper()
	encoded, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	child := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestVictim$")
	child.Env = append(os.Environ(), victimEnv+"="+string(encoded))
	output, err := child.CombinedOutput()
	if err == nil {
		return false
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signal() == unix.SIGKILL {
			return true
		}
	}
	t.Fatalf("child: %v\n%s", err, output)
	return false
}

// Whatever step the driver is killed at, a pod finds a whole volume or none, the
// next publish puts all right, and nothing is leaked.
func TestManager_KilledAtAnyStep(t *testing.T) {
	t.Parallel()
	for _, s := range scenarios() {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			steps := s.countSteps(t)
			for n := range steps {
				m, root := newManager(t, Config{ForceFallback: s.fallback})
				s.prepare(t, m, targetIn(root))
				if !(order{Root: root, Fallback: s.fallback, KillAt: n + 1}).run(t) {
					t.Fatalf("not killed at step %d of %d", n+1, steps)
				}
				s.mustBeWhole(t, m, targetIn(root))
			}
		})
	}
}

func TestManager_PublishIgnoresUmask(t *testing.T) {
	t.Parallel()
	for _, umask := range []int{0, 0o077, 0o777} {
		for _, api := range apis {
			t.Run(fmt.Sprintf("%s %04o", api.name, umask), func(t *testing.T) {
				t.Parallel()
				m, root := newManager(t, Config{ForceFallback: api.fallback})
				if (order{Root: root, Fallback: api.fallback, Umask: umask}).run(t) {
					t.Fatal("killed")
				}
				volumetest.MustBe(t, targetIn(root), map[string]string{
					"": "0755 0:0 /", "/..data": "-> ..rev", "/..rev": "0755 0:0 /",
					"/..rev/a": "0644 0:0 new", "/..rev/z": "0644 0:0 new", "/..rev/d": "0755 0:0 /",
					"/..rev/d/c": "0644 0:0 new", "/..rev/d/x": "0644 0:0 new",
					"/a": "-> ..data/a", "/d": "-> ..data/d", "/z": "-> ..data/z",
				})
				mustUnpublish(t, m, targetIn(root))
			})
		}
	}
}
