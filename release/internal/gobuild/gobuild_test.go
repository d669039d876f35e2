package gobuild_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-dev/postern/release/internal/gobuild"
)

// What it builds is tested where images are made of it.

func example(t *testing.T) gobuild.Build {
	t.Helper()
	return gobuild.Build{Dir: ".", Package: ".", Platform: "linux/amd64", Output: filepath.Join(t.TempDir(), "out")}
}

func TestBuild_EndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := example(t).Run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v", err)
	}
}

func TestBuild_WithoutGo(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if err := example(t).Run(t.Context()); err == nil || !strings.Contains(err.Error(), "go is not installed") {
		t.Errorf("error = %v", err)
	}
}

func TestBuild_Platform(t *testing.T) {
	t.Parallel()
	for _, platform := range []string{"", "linux", "linux/arm/v7"} {
		build := example(t)
		build.Platform = platform
		if err := build.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "want os/architecture") {
			t.Errorf("platform %q: %v", platform, err)
		}
	}
}
