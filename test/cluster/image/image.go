// Package image writes images of a few files, as tarballs that containerd
// imports, without an engine or a registry.
package image

import (
	"archive/tar"
	"bytes"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// searchPath is the PATH of what runs in an image.
const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Image is an image of one layer.
type Image struct {
	// Name and tag of it.
	Name string
	// Files from this machine, by their path in the image. All can be executed.
	Files map[string]string
	// Links are symbolic links, by their path in the image.
	Links map[string]string
	// Entrypoint is the program that runs; "" for none.
	Entrypoint string
	// User and group that it runs as, "65535:65535"; "" is root.
	User string
}

// Tarball writes the image to a file in dir and returns its path. If it is there
// already, from an earlier time, it is not written again.
func (i Image) Tarball(dir string) (string, error) {
	tag, err := name.NewTag(i.Name, name.WithDefaultRegistry(""))
	if err != nil {
		return "", fmt.Errorf("make image %s: %w", i.Name, err)
	}
	built, err := i.build()
	if err != nil {
		return "", fmt.Errorf("make image %s: %w", i.Name, err)
	}
	digest, err := built.Digest()
	if err != nil {
		return "", fmt.Errorf("make image %s: %w", i.Name, err)
	}
	file := strings.NewReplacer("/", "-", ":", "-").Replace(i.Name)
	target := filepath.Join(dir, file+"-"+digest.Hex[:16]+".tar")
	if _, err := os.Stat(target); err == nil {
		return target, nil
	}
	if err := write(target, tag, built); err != nil {
		return "", fmt.Errorf("write image %s: %w", i.Name, err)
	}
	return target, nil
}

// write writes a whole file or none.
func write(target string, tag name.Tag, built v1.Image) error {
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	file, err := os.CreateTemp(filepath.Dir(target), filepath.Base(target)+".*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(file.Name()) }() // fails once it has been renamed
	if err := tarball.Write(tag, built, file); err != nil {
		_ = file.Close()
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	return os.Rename(file.Name(), target)
}

func (i Image) build() (v1.Image, error) {
	layer, err := i.layer()
	if err != nil {
		return nil, err
	}
	// Not compressed: it is read once, on the machine where it was made.
	built, err := mutate.AppendLayers(empty.Image, static.NewLayer(layer, types.DockerUncompressedLayer))
	if err != nil {
		return nil, err
	}
	config, err := built.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", runtime.GOARCH
	config.Config = v1.Config{User: i.User, Env: []string{"PATH=" + searchPath}}
	if i.Entrypoint != "" {
		config.Config.Entrypoint = []string{i.Entrypoint}
	}
	return mutate.ConfigFile(built, config)
}

// layer returns the layer's tar archive, which is the same for the same files.
func (i Image) layer() ([]byte, error) {
	var buffer bytes.Buffer
	w := tar.NewWriter(&buffer)
	if err := i.writeDirs(w); err != nil {
		return nil, err
	}
	for _, target := range slices.Sorted(maps.Keys(i.Files)) {
		contents, err := os.ReadFile(i.Files[target])
		if err != nil {
			return nil, err
		}
		header := &tar.Header{Typeflag: tar.TypeReg, Name: target[1:], Mode: 0o755, Size: int64(len(contents))}
		if err := w.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := w.Write(contents); err != nil {
			return nil, err
		}
	}
	for _, target := range slices.Sorted(maps.Keys(i.Links)) {
		header := &tar.Header{Typeflag: tar.TypeSymlink, Name: target[1:], Linkname: i.Links[target], Mode: 0o777}
		if err := w.WriteHeader(header); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return buffer.Bytes(), nil
}

// writeDirs writes the directories of files and links, and those that programs
// expect.
func (i Image) writeDirs(w *tar.Writer) error {
	modes := map[string]int64{"/etc": 0o755, "/tmp": 0o1777}
	for target := range maps.Keys(i.Files) {
		addParents(modes, target)
	}
	for target := range maps.Keys(i.Links) {
		addParents(modes, target)
	}
	for _, dir := range slices.Sorted(maps.Keys(modes)) {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir[1:] + "/", Mode: modes[dir]}); err != nil {
			return err
		}
	}
	return nil
}

func addParents(modes map[string]int64, target string) {
	for dir := path.Dir(target); dir != "/"; dir = path.Dir(dir) {
		if _, known := modes[dir]; !known {
			modes[dir] = 0o755
		}
	}
}
