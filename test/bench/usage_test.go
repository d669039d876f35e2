package bench

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/postern-dev/postern/test/process"
)

// The time of a process counts, and so does that of the children it waited for.
func TestCPUTime(t *testing.T) {
	t.Parallel()
	const spin = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done"
	for name, script := range map[string]string{"own": spin, "children": "sh -c '" + spin + "'"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := stopped(t, script)
			got, err := cpuTime(p)
			if err != nil || got < 20*time.Millisecond {
				t.Errorf("cpuTime() = %v, %v, want what so many steps take at least", got, err)
			}
			if twice, err := cpuTime(p, p); err != nil || twice != 2*got {
				t.Errorf("cpuTime of two = %v, %v, of one %v", twice, err, got)
			}
		})
	}
}

// stopped returns a shell that has run a script and has been stopped, so that
// nothing about it changes any more.
func stopped(t *testing.T, script string) *process.Process {
	t.Helper()
	p, err := process.Start(process.Config{
		Name: "sh", Path: "/bin/sh", Args: []string{"-c", script + "; kill -STOP $$"}, LogFile: filepath.Join(t.TempDir(), "log"),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := p.WaitFor(ctx, func(context.Context) error {
		status, err := p.Status()
		if err == nil && status["State"] != "T (stopped)" {
			err = fmt.Errorf("its state is %s, not stopped", status["State"])
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestParseChildrenTime(t *testing.T) {
	t.Parallel()
	const after = " S 1 2 3 0 -1 4194304 95 0 0 0 11 12 130 20 20 0 1 0 1313029 3133440 350"
	for _, name := range []string{"cat", "a b", "strange) S 1"} {
		got, err := parseChildrenTime("7 (" + name + ")" + after)
		if want := 1500 * time.Millisecond; err != nil || got != want {
			t.Errorf("program %q: %v, %v, want %v", name, got, err, want)
		}
	}
	for _, broken := range []string{"", "7 (cat) S 1 2", "7 (cat) S 1 2 3 0 -1 4194304 95 0 0 0 11 12 x 20 20"} {
		if got, err := parseChildrenTime(broken); err == nil {
			t.Errorf("%q: %v, want an error", broken, got)
		}
	}
}

func TestMemoryOf(t *testing.T) {
	t.Parallel()
	p := stopped(t, ":")
	want, err := p.RSS()
	if err != nil {
		t.Fatal(err)
	}
	got, err := memoryOf(p, p)
	if err != nil || got.all != 2*want || got.anonymous <= 0 || got.anonymous >= got.all {
		t.Errorf("memoryOf(two of the same) = %+v, %v, want %d resident, a part of it anonymous", got, err, 2*want)
	}
}
