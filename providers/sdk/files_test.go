package sdk_test

import (
	"errors"
	"io/fs"
	"strings"
	"testing"

	"github.com/postern-dev/postern/providers/sdk"
)

func TestValidateFiles(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 255)
	deep := strings.Repeat(long[:15]+"/", 256)
	for _, tt := range []struct {
		name  string
		paths []string
		mode  fs.FileMode
		want  string
	}{
		{name: "none"},
		{name: "plain", paths: []string{"a", "b/c", "b/d", ".hidden", "a..b", "b/..c", "b-", long, deep[:4095]}},
		{name: "all bits", paths: []string{"a"}, mode: 0o777},
		{name: "empty", paths: []string{""}, want: `file "": the path is empty`},
		{name: "absolute", paths: []string{"/a"}, want: `file "/a": the path is absolute`},
		{name: "up", paths: []string{"../a"}, want: `file "../a": the path starts with ".."`},
		{name: "writer's own", paths: []string{"..data"}, want: `file "..data": the path starts with ".."`},
		{name: "up within", paths: []string{"a/../b"}, want: `file "a/../b": the path is not in clean form`},
		{name: "dot", paths: []string{"."}, want: `file ".": the path is not in clean form`},
		{name: "double slash", paths: []string{"a//b"}, want: `file "a//b": the path is not in clean form`},
		{name: "trailing slash", paths: []string{"a/"}, want: `file "a/": the path is not in clean form`},
		{name: "nul", paths: []string{"a\x00"}, want: `file "a\x00": the path holds a NUL`},
		{name: "not utf-8", paths: []string{"a\xff"}, want: `file "a\xff": the path is not UTF-8`},
		{name: "long element", paths: []string{long + "x"}, want: `the path has an element longer than 255 bytes`},
		{name: "long", paths: []string{deep + "x"}, want: `the path is longer than 4096 bytes`},
		{name: "twice", paths: []string{"a", "b", "a"}, want: `file "a": two objects give this file: set another path for one of them`},
		{name: "file and directory", paths: []string{"a/b/c", "a"}, want: `file "a/b/c": "a" is a file and cannot be a directory too`},
		{name: "setuid", paths: []string{"a"}, mode: 0o644 | fs.ModeSetuid, want: `is more than 0777`},
		{name: "directory", paths: []string{"a"}, mode: 0o755 | fs.ModeDir, want: `is more than 0777`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var files []sdk.File
			for _, p := range tt.paths {
				files = append(files, sdk.File{Path: p, Mode: tt.mode})
			}
			err := sdk.ValidateFiles(files)
			if tt.want == "" {
				if err != nil {
					t.Fatalf("ValidateFiles() = %v", err)
				}
				return
			}
			e, ok := errors.AsType[*sdk.Error](err)
			if !ok || e.Reason != sdk.ReasonInvalidResponse {
				t.Fatalf("ValidateFiles() = %v, want INVALID_RESPONSE", err)
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("ValidateFiles() = %v, want %s in it", err, tt.want)
			}
		})
	}
}
