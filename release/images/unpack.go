package images

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
)

// Unpack unpacks an archive's file into a directory, and returns the layout's
// index. It lists the image once for each of its names.
func Unpack(file, dir string) (index v1.ImageIndex, err error) {
	archive, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("open an image: %w", err)
	}
	defer func() { err = errors.Join(err, archive.Close()) }()
	root, err := os.OpenRoot(dir) // nothing is written outside, whatever the tar says
	if err != nil {
		return nil, fmt.Errorf("unpack %s: %w", file, err)
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	if err := unpack(archive, root); err != nil {
		return nil, fmt.Errorf("unpack %s: %w", file, err)
	}
	index, err = layout.ImageIndexFromPath(dir)
	if err != nil {
		return nil, fmt.Errorf("read %s, which is not an OCI layout: %w", file, err)
	}
	return index, nil
}

func unpack(r io.Reader, root *os.Root) error {
	entries := tar.NewReader(r)
	for {
		header, err := entries.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if header.Typeflag != tar.TypeReg {
			continue
		}
		if err := root.MkdirAll(path.Dir(header.Name), 0o755); err != nil {
			return err
		}
		if err := unpackFile(entries, root, header.Name); err != nil {
			return err
		}
	}
}

func unpackFile(r io.Reader, root *os.Root, name string) (err error) {
	file, err := root.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	_, err = io.Copy(file, r)
	return err
}
