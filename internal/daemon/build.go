package daemon

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// Set by the linker (-ldflags "-X github.com/postern-dev/postern/internal/daemon.version=v1.2.3"),
// which needs variables; nothing assigns to them.
var (
	version  string
	revision string
	built    string
)

// Build is what a binary was built from. What is not known is "unknown".
type Build struct {
	// Version is a semantic version such as v0.1.0, or "(devel)".
	Version string
	// Revision is the commit, with "-dirty" if the tree had changes.
	Revision string
	// Time is the commit's or the build's, in RFC 3339.
	Time string
	// Go is the toolchain's version.
	Go string
}

// String returns one line for --version.
func (b Build) String() string {
	return fmt.Sprintf("%s (revision %s, %s, %s %s/%s)", b.Version, b.Revision, b.Time, b.Go, runtime.GOOS, runtime.GOARCH)
}

// BuildInfo returns what the linker was told, and for the rest what the Go
// toolchain put into the binary.
func BuildInfo() Build {
	info, _ := debug.ReadBuildInfo()
	return buildFrom(Build{Version: version, Revision: revision, Time: built}, info)
}

// buildFrom fills what b lacks from info, which may be nil.
func buildFrom(b Build, info *debug.BuildInfo) Build {
	b.Go = runtime.Version()
	settings := make(map[string]string)
	if info != nil {
		for _, s := range info.Settings {
			settings[s.Key] = s.Value
		}
		b.Version = either(b.Version, info.Main.Version)
	}
	commit := settings["vcs.revision"]
	if commit != "" && settings["vcs.modified"] == "true" {
		commit += "-dirty"
	}
	const unknown = "unknown"
	b.Version = either(b.Version, unknown)
	b.Revision = either(either(b.Revision, commit), unknown)
	b.Time = either(either(b.Time, settings["vcs.time"]), unknown)
	return b
}

func either(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
