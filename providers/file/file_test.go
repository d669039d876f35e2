package file_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-dev/postern/providers/file"
	"github.com/postern-dev/postern/providers/sdk"
)

func newProvider(t *testing.T, cfg file.Config) *file.Provider {
	t.Helper()
	if cfg.MaxFileBytes == 0 {
		cfg.MaxFileBytes = 1 << 20
	}
	if cfg.MaxFiles == 0 {
		cfg.MaxFiles = 100
	}
	p, err := file.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// fetch fetches for a pod of namespace shop, from <root>/shop.
func fetch(t *testing.T, root, objects string) (map[string]string, map[string]string, error) {
	t.Helper()
	req := request("shop", objects)
	req.DefaultFileMode = 0o644
	resp, err := newProvider(t, file.Config{Root: root, PerNamespace: true}).Fetch(t.Context(), req)
	if err != nil {
		return nil, nil, err
	}
	if err := sdk.ValidateFiles(resp.Files); err != nil {
		t.Fatal(err)
	}
	contents, versions := map[string]string{}, map[string]string{}
	for _, f := range resp.Files {
		contents[f.Path] = string(f.Contents.Reveal())
	}
	for _, o := range resp.Objects {
		versions[o.ID] = o.Version
	}
	return contents, versions, nil
}

func wantError(t *testing.T, err error, reason sdk.Reason, text string) {
	t.Helper()
	e, ok := errors.AsType[*sdk.Error](err)
	if !ok || e.Reason != reason || !strings.Contains(e.Error(), text) {
		t.Errorf("error is %v, want %s with %q", err, reason, text)
	}
}

func TestFetch(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	write(t, root, map[string]string{
		"shop/a": "A", "shop/dir/b": "B", "shop/dir/sub/c": "C", "shop/hex": " 616263\n", "shop/empty": "",
	})
	link(t, "dir/b", filepath.Join(root, "shop/link"))
	for _, tt := range []struct {
		name, objects string
		want          map[string]string
	}{
		{"file", "- objectName: a", map[string]string{"a": "A"}},
		{"empty file", "- objectName: empty", map[string]string{"empty": ""}},
		{"below", "- objectName: dir/b", map[string]string{"dir/b": "B"}},
		{"alias", "- {objectName: dir/b, objectAlias: x}", map[string]string{"x": "B"}},
		{"path", "- {objectName: dir/b, path: x/y}", map[string]string{"x/y": "B"}},
		{"unclean", "- objectName: ./dir//b", map[string]string{"dir/b": "B"}},
		{"directory", "- objectName: dir", map[string]string{"dir/b": "B", "dir/sub/c": "C"}},
		{"directory, alias", "- {objectName: dir/, objectAlias: d}", map[string]string{"d/b": "B", "d/sub/c": "C"}},
		{"directory into the volume itself", `- {objectName: dir, path: "."}`, map[string]string{"b": "B", "sub/c": "C"}},
		{"hex", "- {objectName: hex, objectEncoding: HEX}", map[string]string{"hex": "abc"}},
		{"hex as it is", "- objectName: hex", map[string]string{"hex": " 616263\n"}},
		{"link within", "- objectName: link", map[string]string{"link": "B"}},
		{"twice, apart", "- objectName: a\n- {objectName: a, path: b}", map[string]string{"a": "A", "b": "A"}},
		{"all", `- objectName: "."`, map[string]string{
			"a": "A", "dir/b": "B", "dir/sub/c": "C", "hex": " 616263\n", "empty": "", "link": "B",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, versions, err := fetch(t, root, tt.objects)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("files (-want +got):\n%s", diff)
			}
			for path := range got {
				if versions[path] == "" {
					t.Errorf("file %q has no version", path)
				}
			}
		})
	}
}

func link(t *testing.T, to, at string) {
	t.Helper()
	if err := os.Symlink(to, at); err != nil {
		t.Fatal(err)
	}
}

// Nothing leads out of the directory of the pod's namespace.
func TestFetch_Confined(t *testing.T) {
	t.Parallel()
	root, outside := t.TempDir(), t.TempDir()
	write(t, root, map[string]string{"shop/a": "A", "bank/secret": "the bank's"})
	write(t, outside, map[string]string{"secret": "the node's"})
	link(t, filepath.Join(outside, "secret"), filepath.Join(root, "shop/absolute"))
	link(t, "../bank/secret", filepath.Join(root, "shop/relative"))
	link(t, "../bank", filepath.Join(root, "shop/dirlink"))
	link(t, "loop", filepath.Join(root, "shop/loop"))
	if err := syscall.Mkfifo(filepath.Join(root, "shop/pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, object string
		reason       sdk.Reason
		want         string
	}{
		{"up", "../bank/secret", sdk.ReasonInvalidParameters, "must be a path below the provider's directory"},
		{"up from below", "x/../../bank/secret", sdk.ReasonInvalidParameters, "must be a path below the provider's directory"},
		{"absolute", filepath.Join(outside, "secret"), sdk.ReasonInvalidParameters, "must be a path below the provider's directory"},
		{"backslash", `..\bank\secret`, sdk.ReasonInvalidParameters, "must be a path below the provider's directory"},
		{"absolute link", "absolute", sdk.ReasonAccessDenied, `object "absolute": the file is, or is behind, a symbolic link that leaves`},
		{"relative link", "relative", sdk.ReasonAccessDenied, "a symbolic link that leaves"},
		{"behind a link", "dirlink/secret", sdk.ReasonAccessDenied, "a symbolic link that leaves"},
		{"directory link", "dirlink", sdk.ReasonAccessDenied, "a symbolic link that leaves"},
		{"endless link", "loop", sdk.ReasonAccessDenied, "or never ends"},
		{"pipe", "pipe", sdk.ReasonAccessDenied, "is no regular file"},
		{"below a file", "a/b", sdk.ReasonObjectNotFound, "there is no such file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, _, err := fetch(t, root, fmt.Sprintf("- objectName: %q", tt.object))
			wantError(t, err, tt.reason, tt.want)
			if err != nil && strings.Contains(err.Error(), "the bank's") {
				t.Errorf("the error holds content: %v", err)
			}
		})
	}
}

func TestFetch_NamespaceDirectoryIsNoWayOut(t *testing.T) {
	t.Parallel()
	root, outside := t.TempDir(), t.TempDir()
	write(t, outside, map[string]string{"a": "the node's"})
	link(t, outside, filepath.Join(root, "shop"))
	_, _, err := fetch(t, root, "- objectName: a")
	wantError(t, err, sdk.ReasonAccessDenied, `the directory of namespace "shop" cannot be opened`)
}

func TestFetch_WholeRoot(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	write(t, root, map[string]string{"bank/secret": "x"})
	p := newProvider(t, file.Config{Root: root})
	resp, err := p.Fetch(t.Context(), request("shop", "- objectName: bank/secret"))
	if err != nil || len(resp.Files) != 1 {
		t.Fatalf("Fetch() = %v, %v", resp, err)
	}
	if resp.Sharing != sdk.SharingNamespace {
		t.Errorf("sharing is %s", resp.Sharing)
	}
}

func TestFetch_Parameters(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, objects string
		want          []string // fields
	}{
		{"not set", "", []string{"objects"}},
		{"empty list", "[]", []string{"objects"}},
		{"no name", "- path: x", []string{"objects[0].objectName"}},
		{"null entry", "- objectName: a\n-", []string{"objects[1].objectName"}},
		{"bad path", "- {objectName: a, path: /x}", []string{"objects[0].path"}},
		{"two paths", "- {objectName: a, path: x, objectAlias: y}", []string{"objects[0].path"}},
		{"bad encoding", "- {objectName: a, objectEncoding: rot13}", []string{"objects[0].objectEncoding"}},
		{"bad mode", "- {objectName: a, filePermission: \"9\"}", []string{"objects"}},
		{
			"all at once", "- objectName: ../a\n- {objectName: b, path: ../c, objectEncoding: x}",
			[]string{"objects[0].objectName", "objects[0].path", "objects[1].path", "objects[1].objectEncoding"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, _, err := fetch(t, t.TempDir(), tt.objects)
			wantError(t, err, sdk.ReasonInvalidParameters, "objects")
			var got []string
			if e, ok := errors.AsType[*sdk.Error](err); ok {
				for _, v := range e.Fields {
					got = append(got, v.Field)
				}
			}
			if tt.name == "all at once" { // an object without a path of its own uses its name
				got = slices.DeleteFunc(got, func(f string) bool { return f == "objects[0].path" })
				tt.want = slices.DeleteFunc(tt.want, func(f string) bool { return f == "objects[0].path" })
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("fields (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFetch_Limits(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	write(t, root, map[string]string{
		"shop/big": "12345", "shop/dir/a": "", "shop/dir/b": "", "shop/dir/c": "",
		"shop/deep" + strings.Repeat("/d", 16) + "/a": "",
	})
	if err := os.Mkdir(filepath.Join(root, "shop/none"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(root, "shop/endless"), 0o755); err != nil {
		t.Fatal(err)
	}
	link(t, ".", filepath.Join(root, "shop/endless/again"))
	p := newProvider(t, file.Config{Root: root, PerNamespace: true, MaxFileBytes: 4, MaxFiles: 2})
	for object, want := range map[string]struct {
		reason sdk.Reason
		text   string
	}{
		"big":     {sdk.ReasonResponseTooLarge, `object "big": the file "big" is larger than 4 bytes`},
		"dir":     {sdk.ReasonResponseTooLarge, `object "dir": the directory holds more than 2 files`},
		"deep":    {sdk.ReasonResponseTooLarge, `object "deep": the directory holds directories nested more than 16 deep`},
		"endless": {sdk.ReasonAccessDenied, "a symbolic link that leaves the provider's directory or never ends"},
		"none":    {sdk.ReasonObjectNotFound, `object "none": the directory holds no files`},
	} {
		_, err := p.Fetch(t.Context(), request("shop", "- objectName: "+object))
		wantError(t, err, want.reason, want.text)
	}
}

// The layout in which Kubernetes mounts Secrets and ConfigMaps: each name is a
// link into a directory that is replaced as a whole.
func TestFetch_KubernetesVolume(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	shop := filepath.Join(root, "shop")
	write(t, shop, map[string]string{"..2026_1/user": "U", "..2026_1/tls/key": "K"})
	link(t, "..2026_1", filepath.Join(shop, "..data"))
	link(t, "..data/user", filepath.Join(shop, "user"))
	link(t, "..data/tls", filepath.Join(shop, "tls"))
	got, before, err := fetch(t, root, `- objectName: "."`)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"user": "U", "tls/key": "K"}, got); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	write(t, shop, map[string]string{"..2026_2/user": "V", "..2026_2/tls/key": "K"})
	if err := os.Symlink("..2026_2", filepath.Join(shop, "..new")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(shop, "..new"), filepath.Join(shop, "..data")); err != nil {
		t.Fatal(err)
	}
	got, after, err := fetch(t, root, `- objectName: "."`)
	if err != nil {
		t.Fatal(err)
	}
	if got["user"] != "V" || before["user"] == after["user"] {
		t.Errorf("after a change user is %q, version %s then %s", got["user"], before["user"], after["user"])
	}
}

func TestFetch_Versions(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	write(t, root, map[string]string{"shop/a": "secret-1"})
	path := filepath.Join(root, "shop/a")
	const objects = "- objectName: a"
	version := func(objects string) string {
		_, versions, err := fetch(t, root, objects)
		if err != nil {
			t.Fatal(err)
		}
		return versions["a"]
	}
	first := version(objects)
	if again := version(objects); again != first {
		t.Errorf("version of the same content is %s, then %s", first, again)
	}
	if other := version("- {objectName: a, filePermission: \"0400\"}"); other == first {
		t.Error("version is the same with another mode")
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	// In place, of the same size and with the modification time put back: what
	// tells is the change time, which some kernels keep in steps of 4 ms.
	limit := time.Now().Add(10 * time.Second)
	for version(objects) == first {
		if time.Now().After(limit) {
			t.Fatal("version is the same after a change in place")
		}
		write(t, root, map[string]string{"shop/a": "secret-2"})
		if err := os.Chtimes(path, info.ModTime(), info.ModTime()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFetch_EndsWithContext(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	write(t, root, map[string]string{"shop/a": "A", "shop/d/b": "B"})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, object := range []string{"a", "d"} {
		_, err := newProvider(t, file.Config{Root: root, PerNamespace: true}).Fetch(ctx, request("shop", "- objectName: "+object))
		if !errors.Is(err, context.Canceled) {
			t.Errorf("Fetch(%s) = %v, want %v", object, err, context.Canceled)
		}
	}
}

func TestNew(t *testing.T) {
	t.Parallel()
	valid := file.Config{Root: "/r", MaxFileBytes: 1, MaxFiles: 1}
	for want, mutate := range map[string]func(*file.Config){
		"--root is required":                          func(c *file.Config) { c.Root = "" },
		"--max-file-bytes must be more than 0, not 0": func(c *file.Config) { c.MaxFileBytes = 0 },
		"--max-files must be more than 0, not -1":     func(c *file.Config) { c.MaxFiles = -1 },
	} {
		cfg := valid
		mutate(&cfg)
		if _, err := file.New(cfg); err == nil || err.Error() != want {
			t.Errorf("New() = %v, want %s", err, want)
		}
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	if err := newProvider(t, file.Config{Root: root}).Health(t.Context()); err != nil {
		t.Errorf("Health() = %v", err)
	}
	gone := newProvider(t, file.Config{Root: filepath.Join(root, "gone"), PerNamespace: true})
	if err := gone.Health(t.Context()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Health() without a root = %v", err)
	}
	_, err := gone.Fetch(t.Context(), request("shop", "- objectName: a"))
	wantError(t, err, sdk.ReasonStoreUnavailable, "the provider's root directory cannot be opened")
}

func TestDefinition(t *testing.T) {
	t.Parallel()
	if err := file.Definition().Validate(); err != nil {
		t.Error(err)
	}
}
