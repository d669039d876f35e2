package images_test

import (
	"archive/tar"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/postern-dev/postern/release/images"
)

// example is an archive with all that an archive can have.
func example(t *testing.T) images.Archive {
	t.Helper()
	program := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(program, []byte("#!/bin/true"), 0o700); err != nil {
		t.Fatal(err)
	}
	image := func(platform string) images.Image {
		return images.Image{
			Platform: platform,
			Layers: []images.Layer{
				{Comment: "data", Files: []images.File{
					{Path: "/etc/data", Contents: []byte("for " + platform)},
					{Path: "/tmp", Mode: fs.ModeDir | fs.ModeSticky | 0o777},
					{Path: "/var/lib/own", Mode: fs.ModeDir, UID: 65001, GID: 65002},
				}},
				{
					Comment: "program", Fast: true,
					Files: []images.File{{Path: "/bin/program", Source: program}},
					Links: map[string]string{"/bin/sh": "program", "/bin/ls": "/bin/program"},
				},
			},
			Entrypoint:  []string{"/bin/program"},
			Cmd:         []string{"--help"},
			User:        "65001:65002",
			Env:         []string{"A=b"},
			WorkingDir:  "/tmp",
			Labels:      map[string]string{"label": "1"},
			Annotations: map[string]string{"annotation": "2"},
			Created:     time.Date(2026, 3, 4, 5, 6, 7, 8, time.FixedZone("", 3600)),
		}
	}
	return images.Archive{
		Names:       []string{"local/busybox:1", "ghcr.io/a/b:v1"},
		Images:      []images.Image{image("linux/amd64"), image("linux/arm64")},
		Annotations: map[string]string{"of": "the index"},
	}
}

// write writes an archive and unpacks it again.
func write(t *testing.T, a images.Archive) (v1.Hash, v1.ImageIndex) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "new", "image.tar")
	digest, err := a.Write(file)
	if err != nil {
		t.Fatal(err)
	}
	index, err := images.Unpack(file, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return digest, index
}

func indexManifest(t *testing.T, index v1.ImageIndex) *v1.IndexManifest {
	t.Helper()
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	return manifest
}

func TestArchive_NamesTheImage(t *testing.T) {
	t.Parallel()
	digest, index := write(t, example(t))
	var names []string
	for _, d := range indexManifest(t, index).Manifests {
		if d.Digest != digest || d.MediaType != types.OCIImageIndex {
			t.Errorf("descriptor = %s %s, want the index %s", d.MediaType, d.Digest, digest)
		}
		if d.Annotations["io.containerd.image.name"] != d.Annotations["org.opencontainers.image.ref.name"] {
			t.Errorf("annotations differ: %v", d.Annotations)
		}
		names = append(names, d.Annotations["io.containerd.image.name"])
	}
	if diff := cmp.Diff([]string{"docker.io/local/busybox:1", "ghcr.io/a/b:v1"}, names); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
}

func TestArchive_Index(t *testing.T) {
	t.Parallel()
	digest, top := write(t, example(t))
	index, err := top.ImageIndex(digest)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(index); err != nil {
		t.Errorf("the index is not valid: %v", err)
	}
	manifest := indexManifest(t, index)
	if manifest.Annotations["of"] != "the index" {
		t.Errorf("annotations = %v", manifest.Annotations)
	}
	var platforms []string
	for _, d := range manifest.Manifests {
		platforms = append(platforms, d.Platform.String())
		image, err := index.Image(d.Digest)
		if err != nil {
			t.Fatal(err)
		}
		checkImage(t, image, d.Platform)
	}
	if diff := cmp.Diff([]string{"linux/amd64", "linux/arm64"}, platforms); diff != "" {
		t.Errorf("platforms (-want +got):\n%s", diff)
	}
}

// checkImage compares an image with what example declares.
func checkImage(t *testing.T, image v1.Image, platform *v1.Platform) {
	t.Helper()
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	want := v1.Config{
		User: "65001:65002", Env: []string{"A=b"}, Entrypoint: []string{"/bin/program"}, Cmd: []string{"--help"},
		WorkingDir: "/tmp", Labels: map[string]string{"label": "1"},
	}
	if diff := cmp.Diff(want, config.Config); diff != "" {
		t.Errorf("configuration (-want +got):\n%s", diff)
	}
	created := time.Date(2026, 3, 4, 4, 6, 7, 0, time.UTC)
	if !config.Created.Equal(created) {
		t.Errorf("created = %s, want %s", config.Created, created)
	}
	if config.OS != platform.OS || config.Architecture != platform.Architecture {
		t.Errorf("platform = %s/%s, want %s", config.OS, config.Architecture, platform)
	}
	manifest, err := image.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	if manifest.Annotations["annotation"] != "2" || manifest.MediaType != types.OCIManifestSchema1 {
		t.Errorf("manifest = %+v", manifest)
	}
	layers, err := image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	var files []file
	for _, layer := range layers {
		files = append(files, listed(t, layer, created)...)
	}
	wantFiles := []file{
		{"etc/", 0o755, 0, 0, "", ""},
		{"etc/data", 0o644, 0, 0, "", "for " + platform.String()},
		{"tmp/", 0o1777, 0, 0, "", ""},
		{"var/", 0o755, 0, 0, "", ""},
		{"var/lib/", 0o755, 0, 0, "", ""},
		{"var/lib/own/", 0o755, 65001, 65002, "", ""},
		{"bin/", 0o755, 0, 0, "", ""},
		{"bin/ls", 0o777, 0, 0, "/bin/program", ""},
		{"bin/program", 0o755, 0, 0, "", "#!/bin/true"},
		{"bin/sh", 0o777, 0, 0, "program", ""},
	}
	if diff := cmp.Diff(wantFiles, files); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

// file is what a layer says of a file.
type file struct {
	Name     string
	Mode     int64
	UID, GID int
	Link     string
	Contents string
}

func listed(t *testing.T, layer v1.Layer, modified time.Time) []file {
	t.Helper()
	reader, err := layer.Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = reader.Close() }()
	var files []file
	for entries := tar.NewReader(reader); ; {
		header, err := entries.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		contents, err := io.ReadAll(entries)
		if err != nil {
			t.Fatal(err)
		}
		if !header.ModTime.Equal(modified) {
			t.Errorf("%s is of %s, want %s", header.Name, header.ModTime, modified)
		}
		files = append(files, file{header.Name, header.Mode, header.Uid, header.Gid, header.Linkname, string(contents)})
	}
}

// One platform is an image, not an index of one.
func TestArchive_OnePlatform(t *testing.T) {
	t.Parallel()
	archive := images.Archive{Names: []string{"pause:3"}, Images: []images.Image{{Platform: "linux/arm64"}}}
	digest, index := write(t, archive)
	image, err := index.Image(digest)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(image); err != nil {
		t.Errorf("the image is not valid: %v", err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if config.Architecture != "arm64" || config.Created.Unix() != 0 {
		t.Errorf("configuration = %+v", config)
	}
}

func TestArchive_SameBytes(t *testing.T) {
	t.Parallel()
	var written []string
	for range 2 {
		name := filepath.Join(t.TempDir(), "image.tar")
		if _, err := example(t).Write(name); err != nil { // from sources in another directory
			t.Fatal(err)
		}
		contents, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		written = append(written, string(contents))
	}
	if written[0] != written[1] {
		t.Error("two archives of the same differ")
	}
}

func TestArchive_Errors(t *testing.T) {
	t.Parallel()
	files := func(files ...images.File) func(*images.Archive) {
		return func(a *images.Archive) { a.Images[0].Layers[0].Files = files }
	}
	for name, tt := range map[string]struct {
		change func(*images.Archive)
		want   string
	}{
		"no name":            {func(a *images.Archive) { a.Names = nil }, "no name"},
		"name with a digest": {func(a *images.Archive) { a.Names = []string{"a@sha256:b"} }, `image name "a@sha256:b"`},
		"no platform":        {func(a *images.Archive) { a.Images = nil }, "for no platform"},
		"half a platform":    {func(a *images.Archive) { a.Images[0].Platform = "linux" }, `platform "linux": want os/architecture`},
		"platform twice":     {func(a *images.Archive) { a.Images[1].Platform = "linux/amd64" }, "linux/amd64 twice"},
		"path goes up":       {files(images.File{Path: "/a/../b"}), `path "/a/../b"`},
		"no path":            {files(images.File{}), `path ""`},
		"file twice":         {files(images.File{Path: "/a"}, images.File{Path: "/a"}), "/a is in a layer twice"},
		"file and directory": {files(images.File{Path: "/a"}, images.File{Path: "/a", Mode: fs.ModeDir}), "/a is in a layer twice"},
		"below a file":       {files(images.File{Path: "/a"}, images.File{Path: "/a/b/c"}), "/a is not a directory, but /a/b/c is below it"},
		"source and contents": {
			files(images.File{Path: "/a", Source: "/dev/null", Contents: []byte("b")}), "both a source and contents",
		},
		"no source":           {files(images.File{Path: "/a", Source: "no/such/file"}), "put /a into an image"},
		"source is no file":   {files(images.File{Path: "/a", Source: "/"}), "/ is not a regular file"},
		"link in place of it": {func(a *images.Archive) { a.Images[0].Layers[0].Links = map[string]string{"/tmp": "x"} }, "/tmp is in a layer twice"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			archive := example(t)
			tt.change(&archive)
			dir := t.TempDir()
			_, err := archive.Write(filepath.Join(dir, "image.tar"))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error = %v, want %q", err, tt.want)
			}
			left, err := os.ReadDir(dir)
			if err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

// What cannot be put into its place leaves nothing beside it.
func TestArchive_LeavesNothingBehind(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	taken := filepath.Join(dir, "image.tar")
	if err := os.Mkdir(taken, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := example(t).Write(taken); err == nil {
		t.Error("an archive in place of a directory: no error")
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestReference(t *testing.T) {
	t.Parallel()
	for short, want := range map[string]string{
		"busybox":                       "docker.io/library/busybox:latest",
		"local/busybox:1":               "docker.io/local/busybox:1",
		"index.docker.io/local/a:1":     "docker.io/local/a:1",
		"registry.k8s.io/pause:3.10":    "registry.k8s.io/pause:3.10",
		"localhost:5000/a/b:v1.0-dev.1": "localhost:5000/a/b:v1.0-dev.1",
	} {
		if got, err := images.Reference(short); got != want || err != nil {
			t.Errorf("Reference(%q) = %q, %v; want %q", short, got, err, want)
		}
	}
}

// A tar that somebody else made writes nothing outside the directory.
func TestUnpack_StaysInside(t *testing.T) {
	t.Parallel()
	outside := t.TempDir()
	file := filepath.Join(outside, "evil.tar")
	out, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	archive := tar.NewWriter(out)
	err = archive.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "../escaped", Mode: 0o644})
	if err := errors.Join(err, archive.Close(), out.Close()); err != nil {
		t.Fatal(err)
	}
	inside := filepath.Join(outside, "inside")
	if err := os.Mkdir(inside, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := images.Unpack(file, inside); err == nil {
		t.Error("no error")
	}
	if _, err := os.Stat(filepath.Join(outside, "escaped")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file is outside: %v", err)
	}
}

func TestUnpack_Errors(t *testing.T) {
	t.Parallel()
	empty := filepath.Join(t.TempDir(), "empty.tar")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		empty + ".gone": "open an image",
		empty:           "not an OCI layout",
	} {
		if _, err := images.Unpack(file, t.TempDir()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Unpack(%s): %v, want %q", file, err, want)
		}
	}
}
