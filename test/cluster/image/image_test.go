package image_test

import (
	"archive/tar"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/postern-dev/postern/test/cluster/image"
)

func TestTarball(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(program, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	i := image.Image{
		Name: "local/it:1", Entrypoint: "/bin/it", User: "1:2",
		Files: map[string]string{"/bin/it": program}, Links: map[string]string{"/usr/bin/that": "/bin/it"},
	}
	dir := filepath.Join(t.TempDir(), "images")
	path, err := i.Tarball(dir)
	if err != nil {
		t.Fatal(err)
	}
	built, err := tarball.ImageFromPath(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	config, err := built.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if got := config.Config; got.User != "1:2" || !cmp.Equal(got.Entrypoint, []string{"/bin/it"}) || config.OS != "linux" {
		t.Errorf("the image's configuration is %+v", config)
	}
	manifest, err := tarball.LoadManifest(func() (io.ReadCloser, error) { return os.Open(path) })
	if err != nil || len(manifest) != 1 || !cmp.Equal(manifest[0].RepoTags, []string{"local/it:1"}) {
		t.Errorf("the tarball's manifest is %+v, %v", manifest, err)
	}
	want := map[string]string{
		"bin/": "drwxr-xr-x ", "etc/": "drwxr-xr-x ", "tmp/": "dtrwxrwxrwx ", "usr/": "drwxr-xr-x ", "usr/bin/": "drwxr-xr-x ",
		"bin/it": "-rwxr-xr-x text", "usr/bin/that": "Lrwxrwxrwx /bin/it",
	}
	if diff := cmp.Diff(want, contents(t, built)); diff != "" {
		t.Errorf("the image's files (-want +got):\n%s", diff)
	}
	keepsOneFile(t, i, path, program)
}

// keepsOneFile makes the image again, unchanged and changed.
func keepsOneFile(t *testing.T, i image.Image, path, program string) {
	t.Helper()
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	again, err := i.Tarball(filepath.Dir(path))
	if err != nil || again != path {
		t.Errorf("the same image again: %s, %v, want %s", again, err, path)
	}
	if after, err := os.Stat(path); err != nil || !os.SameFile(before, after) {
		t.Errorf("it was written again (%v)", err)
	}
	if err := os.WriteFile(program, []byte("other"), 0o600); err != nil {
		t.Fatal(err)
	}
	if other, err := i.Tarball(filepath.Dir(path)); err != nil || other == path {
		t.Errorf("another image: %s, %v, want another file", other, err)
	}
	files, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(files) != 2 {
		t.Errorf("%v in the directory, %v, want the two images", files, err)
	}
}

func contents(t *testing.T, built v1.Image) map[string]string {
	t.Helper()
	layers, err := built.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("%d layers, %v", len(layers), err)
	}
	stream, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stream.Close() }()
	files := map[string]string{}
	for r := tar.NewReader(stream); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[header.Name] = header.FileInfo().Mode().String() + " " + string(text) + header.Linkname
	}
}

func TestTarballNamesAFileThatIsMissing(t *testing.T) {
	t.Parallel()
	i := image.Image{Name: "local/it:1", Files: map[string]string{"/it": "/no/such/file"}}
	if _, err := i.Tarball(t.TempDir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Tarball() = %v", err)
	}
}
