package chaos_test

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/postern-dev/postern/test/build"
	"github.com/postern-dev/postern/test/chaos"
	"github.com/postern-dev/postern/test/mountns"
)

// duration is a minute of what "make chaos" does for ten.
const duration = time.Minute

func TestMain(m *testing.M) {
	if os.Getuid() != 0 {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	enter := mountns.Again
	if mountns.Inside(os.Getenv) {
		enter = func(context.Context) (int, error) { return m.Run(), nil }
	}
	code, err := enter(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		code = 1
	}
	os.Exit(code)
}

// The seed is another one each time. The test prints it, and postern-chaos takes
// it. It is not parallel: the other tests here need none of the time it measures.
func TestChaos(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	builder, err := build.Here(os.Getenv, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	report, err := chaos.Run(t.Context(), chaos.Config{
		Builder: builder, Duration: duration, Seed: uint64(time.Now().Unix()), Rate: chaos.DefaultRate,
		Progress: t.Output(), LogDir: t.ArtifactDir(),
	})
	if report != nil {
		t.Logf("\n%s", report)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := report.Err(); err != nil {
		t.Errorf("what must not be:\n%v", err)
	}
}
