package images

import (
	"archive/tar"
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// layoutFiles is an OCI layout: what is in its tar, by name.
type layoutFiles map[string]entry

func (l layoutFiles) addImage(image v1.Image) error {
	layers, err := image.Layers()
	if err != nil {
		return fmt.Errorf("list layers: %w", err)
	}
	for _, layer := range layers {
		digest, err := layer.Digest()
		if err != nil {
			return fmt.Errorf("layer's digest: %w", err)
		}
		size, err := layer.Size()
		if err != nil {
			return fmt.Errorf("layer's size: %w", err)
		}
		l.add(blobName(digest), size, layer.Compressed)
	}
	config, err := image.RawConfigFile()
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	digest, err := image.ConfigName()
	if err != nil {
		return fmt.Errorf("configuration's digest: %w", err)
	}
	l.addBytes(blobName(digest), config)
	return l.addManifest(image)
}

func (l layoutFiles) addManifest(m manifest) error {
	raw, err := m.RawManifest()
	if err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	digest, err := m.Digest()
	if err != nil {
		return fmt.Errorf("manifest's digest: %w", err)
	}
	l.addBytes(blobName(digest), raw)
	return nil
}

func blobName(digest v1.Hash) string { return "blobs/" + digest.Algorithm + "/" + digest.Hex }

func (l layoutFiles) addBytes(name string, contents []byte) {
	l.add(name, int64(len(contents)), func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(contents)), nil
	})
}

func (l layoutFiles) add(name string, size int64, open func() (io.ReadCloser, error)) {
	header := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, ModTime: time.Unix(0, 0)}
	l[name] = entry{header: header, open: open}
}

// write writes the tar beside its place and moves it there when it is whole.
func (l layoutFiles) write(file string) (err error) {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil { //nolint:gosec // images are for everybody
		return fmt.Errorf("make the directory of the tar: %w", err)
	}
	temporary, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".*")
	if err != nil {
		return fmt.Errorf("make a file beside the tar's: %w", err)
	}
	defer func() {
		if err != nil { // which says enough
			_ = temporary.Close()
			_ = os.Remove(temporary.Name())
		}
	}()
	buffered := bufio.NewWriterSize(temporary, 1<<20)
	if err := errors.Join(writeTar(buffered, sorted(l)), buffered.Flush(), temporary.Chmod(0o644)); err != nil {
		return fmt.Errorf("write the tar: %w", err)
	}
	if err := temporary.Close(); err != nil {
		return fmt.Errorf("write the tar: %w", err)
	}
	return os.Rename(temporary.Name(), file)
}
