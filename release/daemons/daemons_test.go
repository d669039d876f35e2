package daemons_test

import (
	"archive/tar"
	"debug/elf"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/postern-dev/postern/release/daemons"
	"github.com/postern-dev/postern/release/images"
	"github.com/postern-dev/postern/release/internal/git/gittest"
)

// build builds images of a tree into a new directory.
func build(t *testing.T, cfg daemons.Config) []daemons.Image {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	cfg.Progress = t.Output()
	builder, err := daemons.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	built, err := builder.Build(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return built
}

func TestBuilder_Build(t *testing.T) {
	t.Parallel()
	tree := gittest.New(t, gittest.Project())
	head := tree.Git("rev-parse", "HEAD")
	dir := t.TempDir()
	built := build(t, daemons.Config{Root: tree.Dir, Dir: dir})
	for i, want := range []struct{ name, version, user, title string }{
		{"postern-driver", "v0.2.0-dev.1.g" + head[:12], "0:0", "Driver"},
		{"postern-provider-x", "v0.3.0-dev.1.g" + head[:12], "65010:65010", "X"},
	} {
		image := built[i]
		wantImage := daemons.Image{
			Name: want.name, Version: want.version, Digest: image.Digest,
			Reference: "ghcr.io/postern-dev/" + want.name + ":" + want.version,
			Tarball:   filepath.Join(dir, want.name+"-"+want.version+".tar"),
		}
		if diff := cmp.Diff(wantImage, image); diff != "" {
			t.Errorf("image (-want +got):\n%s", diff)
		}
		labels := map[string]string{
			"org.opencontainers.image.title":       want.title,
			"org.opencontainers.image.description": map[string]string{"Driver": "Mounts.", "X": "Serves."}[want.title],
			"org.opencontainers.image.source":      "https://github.com/postern-dev/postern",
			"org.opencontainers.image.revision":    head,
			"org.opencontainers.image.version":     want.version,
			"org.opencontainers.image.licenses":    "Apache-2.0",
			"org.opencontainers.image.created":     "2026-03-04T05:06:07Z",
		}
		index := open(t, image)
		manifest, err := index.IndexManifest()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(labels, manifest.Annotations); diff != "" {
			t.Errorf("annotations of the index (-want +got):\n%s", diff)
		}
		var platforms []string
		for _, d := range manifest.Manifests {
			platforms = append(platforms, d.Platform.String())
			one, err := index.Image(d.Digest)
			if err != nil {
				t.Fatal(err)
			}
			checkConfig(t, one, labels, v1.Config{User: want.user, Entrypoint: []string{"/" + want.name}, Labels: labels})
			checkFiles(t, one, d.Platform, image, head)
		}
		if diff := cmp.Diff(daemons.Platforms(), platforms); diff != "" {
			t.Errorf("platforms (-want +got):\n%s", diff)
		}
	}
}

// open unpacks an image for several platforms.
func open(t *testing.T, image daemons.Image) v1.ImageIndex {
	t.Helper()
	layout, err := images.Unpack(image.Tarball, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	digest, err := v1.NewHash(image.Digest)
	if err != nil {
		t.Fatal(err)
	}
	index, err := layout.ImageIndex(digest)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(index); err != nil {
		t.Errorf("%s is not valid: %v", image.Tarball, err)
	}
	return index
}

func checkConfig(t *testing.T, image v1.Image, annotations map[string]string, want v1.Config) {
	t.Helper()
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, config.Config); diff != "" {
		t.Errorf("configuration (-want +got):\n%s", diff)
	}
	if !config.Created.Equal(gittest.Time()) {
		t.Errorf("created = %s, want the commit's time", config.Created)
	}
	manifest, err := image.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(annotations, manifest.Annotations); diff != "" {
		t.Errorf("annotations (-want +got):\n%s", diff)
	}
}

// checkFiles: an image holds one static program, certificates and names: nothing
// that could run anything else.
func checkFiles(t *testing.T, image v1.Image, platform *v1.Platform, of daemons.Image, head string) {
	t.Helper()
	files := contents(t, image)
	var names []string
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	want := []string{"etc/group", "etc/passwd", "etc/ssl/certs/ca-certificates.crt", of.Name}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	if got := strings.Count(string(files[want[2]]), "BEGIN CERTIFICATE"); got < 100 {
		t.Errorf("%d certificate authorities", got)
	}
	if nonroot := strings.Contains(string(files["etc/passwd"]), "nonroot:x:65010:65010:"); nonroot != (of.Name != "postern-driver") {
		t.Errorf("/etc/passwd of %s:\n%s", of.Name, files["etc/passwd"])
	}
	program := filepath.Join(t.TempDir(), of.Name)
	if err := os.WriteFile(program, files[of.Name], 0o700); err != nil {
		t.Fatal(err)
	}
	binary, err := elf.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = binary.Close() }()
	machines := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}
	if binary.Machine != machines[platform.Architecture] {
		t.Errorf("the program is for %s, the image for %s", binary.Machine, platform)
	}
	if slices.ContainsFunc(binary.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		t.Error("the program is not static")
	}
	if platform.OS == runtime.GOOS && platform.Architecture == runtime.GOARCH {
		out, err := exec.Command(program).CombinedOutput()
		if want := of.Version + " " + head + " 2026-03-04T05:06:07Z\n"; err != nil || string(out) != want {
			t.Errorf("the program says %q, %v; want %q", out, err, want)
		}
	}
}

// contents returns the regular files of an image.
func contents(t *testing.T, image v1.Image) map[string][]byte {
	t.Helper()
	layers, err := image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for _, layer := range layers {
		reader, err := layer.Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		for entries := tar.NewReader(reader); ; {
			header, err := entries.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if header.Typeflag == tar.TypeDir {
				continue
			}
			if files[header.Name], err = io.ReadAll(entries); err != nil {
				t.Fatal(err)
			}
			if !header.ModTime.Equal(gittest.Time()) || header.Uid != 0 || header.Mode&0o022 != 0 {
				t.Errorf("%s: %s, uid %d, mode %o", header.Name, header.ModTime, header.Uid, header.Mode)
			}
		}
		if err := reader.Close(); err != nil {
			t.Error(err)
		}
	}
	return files
}

// TestBuilder_Reproducible builds one commit in two places that have nothing in
// common: no directory, no build cache, no settings of go.
func TestBuilder_Reproducible(t *testing.T) {
	platforms := []string{"linux/" + runtime.GOARCH}
	here := gittest.New(t, gittest.Project())
	want := build(t, daemons.Config{Root: here.Dir, Platforms: platforms})

	there := filepath.Join(t.TempDir(), "another", "place")
	here.Git("clone", "--quiet", "--no-local", here.Dir, there)
	t.Setenv("GOCACHE", t.TempDir())
	t.Setenv("GOFLAGS", "-buildvcs=true -ldflags=-X=main.x=y")
	t.Setenv("GOAMD64", "v2")
	t.Setenv("GOARM64", "v8.1")
	t.Setenv("TMPDIR", t.TempDir())
	t.Setenv("TZ", "Asia/Tokyo")
	got := build(t, daemons.Config{Root: there, Platforms: platforms})
	for i := range want {
		if got[i].Digest != want[i].Digest {
			t.Errorf("%s: %s in one place, %s in another", want[i].Name, want[i].Digest, got[i].Digest)
		}
	}
}

func TestBuilder_Versions(t *testing.T) {
	t.Parallel()
	platforms, names := []string{"linux/" + runtime.GOARCH}, []string{"postern-driver"}
	tree := gittest.New(t, gittest.Project())
	head := tree.Git("rev-parse", "HEAD")
	check := func(what, version, revision string, cfg daemons.Config) {
		t.Helper()
		cfg.Root, cfg.Platforms, cfg.Names = tree.Dir, platforms, names
		image := build(t, cfg)[0]
		if image.Version != version || !strings.HasSuffix(image.Reference, ":"+version) {
			t.Errorf("%s: %s %s, want version %s", what, image.Version, image.Reference, version)
		}
		one := single(t, image)
		config, err := one.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		if got := config.Config.Labels["org.opencontainers.image.revision"]; got != revision {
			t.Errorf("%s: revision %s, want %s", what, got, revision)
		}
		if !cfg.Time.IsZero() && !config.Created.Equal(cfg.Time) {
			t.Errorf("%s: created %s, want %s", what, config.Created, cfg.Time)
		}
	}
	tree.Tag("driver/v0.2.0")
	check("release", "v0.2.0", head, daemons.Config{})
	tree.Write(map[string]string{"new": ""})
	check("release with changes", "v0.2.1-dev.0.g"+head[:12]+"-dirty", head+"-dirty", daemons.Config{})
	check("chosen", "v9.9.9", head+"-dirty", daemons.Config{
		Version: "v9.9.9", Time: time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC), Repository: "localhost:5000/x",
	})
	if err := os.RemoveAll(filepath.Join(tree.Dir, ".git")); err != nil {
		t.Fatal(err)
	}
	check("without git", "v0.2.0-dev", "unknown", daemons.Config{})
}

// single unpacks an image for one platform.
func single(t *testing.T, image daemons.Image) v1.Image {
	t.Helper()
	layout, err := images.Unpack(image.Tarball, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	digest, err := v1.NewHash(image.Digest)
	if err != nil {
		t.Fatal(err)
	}
	one, err := layout.Image(digest)
	if err != nil {
		t.Fatal(err)
	}
	return one
}

func TestBuilder_Built(t *testing.T) {
	t.Parallel()
	tree := gittest.New(t, gittest.Project())
	cfg := daemons.Config{
		Root: tree.Dir, Dir: t.TempDir(), Platforms: []string{"linux/" + runtime.GOARCH}, Names: []string{"postern-driver"},
		Progress: t.Output(),
	}
	builder, err := daemons.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := builder.Built(t.Context()); err == nil || !strings.Contains(err.Error(), "is not built yet") {
		t.Errorf("before the build: %v", err)
	}
	want := build(t, cfg)
	want[0].Digest = ""
	got, err := builder.Built(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("built (-want +got):\n%s", diff)
	}
}

func TestNew_Errors(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change func(files map[string]string, cfg *daemons.Config)
		want   string
	}{
		"no root":     {func(_ map[string]string, cfg *daemons.Config) { cfg.Root = "" }, "Root is not set"},
		"no dir":      {func(_ map[string]string, cfg *daemons.Config) { cfg.Dir = "" }, "Dir is not set"},
		"no progress": {func(_ map[string]string, cfg *daemons.Config) { cfg.Progress = nil }, "Progress is not set"},
		"no versions": {func(files map[string]string, _ *daemons.Config) { delete(files, "versions.yaml") }, "read the versions"},
		"unknown image": {
			func(_ map[string]string, cfg *daemons.Config) { cfg.Names = []string{"driver"} },
			`there is no image "driver"; there are postern-driver, postern-provider-x`,
		},
		"no entry": {
			func(files map[string]string, _ *daemons.Config) {
				files["driver/cmd/postern-new/main.go"] = "package main\n"
			}, "driver/cmd/postern-new has no entry below images in versions.yaml",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			files, dir := gittest.Project(), t.TempDir()
			cfg := daemons.Config{Root: dir, Dir: t.TempDir(), Progress: t.Output()}
			tt.change(files, &cfg)
			write(t, dir, files)
			if _, err := daemons.New(cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error = %v, want %q", err, tt.want)
			}
		})
	}
}

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, contents := range files {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(contents), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestBuilder_BuildErrors(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		file, contents, platform, want string
	}{
		"does not compile": {"driver/cmd/postern-driver/main.go", "package main\nfunc main() { undefined() }\n", "linux/" + runtime.GOARCH, "undefined: undefined"},
		"no such platform": {"new", "", "linux/vax", "unsupported GOOS/GOARCH"},
		"half a platform":  {"new", "", "linux", `platform "linux": want os/architecture`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			files, dir := gittest.Project(), t.TempDir()
			files[tt.file] = tt.contents
			write(t, dir, files)
			builder, err := daemons.New(daemons.Config{
				Root: dir, Dir: t.TempDir(), Platforms: []string{tt.platform}, Names: []string{"postern-driver"}, Progress: t.Output(),
			})
			if err != nil {
				t.Fatal(err)
			}
			_, err = builder.Build(t.Context())
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "postern-driver") {
				t.Errorf("error = %v, want %q", err, tt.want)
			}
		})
	}
}
