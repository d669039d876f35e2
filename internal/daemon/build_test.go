package daemon

import (
	"runtime"
	"runtime/debug"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestBuildFrom(t *testing.T) {
	t.Parallel()
	stamped := func(modified string) *debug.BuildInfo {
		return &debug.BuildInfo{
			Main: debug.Module{Version: "v1.0.0"},
			Settings: []debug.BuildSetting{
				{Key: "vcs.revision", Value: "abc"},
				{Key: "vcs.time", Value: "2026-01-02T03:04:05Z"},
				{Key: "vcs.modified", Value: modified},
			},
		}
	}
	for name, tt := range map[string]struct {
		linked Build
		info   *debug.BuildInfo
		want   Build
	}{
		"nothing": {want: Build{Version: "unknown", Revision: "unknown", Time: "unknown"}},
		"stamped": {
			info: stamped("false"),
			want: Build{Version: "v1.0.0", Revision: "abc", Time: "2026-01-02T03:04:05Z"},
		},
		"dirty": {
			info: stamped("true"),
			want: Build{Version: "v1.0.0", Revision: "abc-dirty", Time: "2026-01-02T03:04:05Z"},
		},
		"the linker wins": {
			linked: Build{Version: "v2", Revision: "def", Time: "now"}, info: stamped("true"),
			want: Build{Version: "v2", Revision: "def", Time: "now"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tt.want.Go = runtime.Version()
			if diff := cmp.Diff(tt.want, buildFrom(tt.linked, tt.info)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
