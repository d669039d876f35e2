package images

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Archive is an image as a file: its names, and what it is on each platform.
type Archive struct {
	// Names with tag, one or more; see Reference. Required.
	Names []string
	// Images, one per platform; several make an image index. Required.
	Images []Image
	// Annotations of the image index, if there is one.
	Annotations map[string]string
}

// Write writes the archive to a file, which is whole or not there, and returns
// the image's digest.
func (a Archive) Write(file string) (v1.Hash, error) {
	names, err := a.names()
	if err != nil {
		return v1.Hash{}, err
	}
	files := layoutFiles{}
	top, err := a.build(files)
	if err == nil {
		err = files.addIndex(top, names)
	}
	if err == nil {
		err = files.write(file)
	}
	if err != nil {
		return v1.Hash{}, fmt.Errorf("image %s: %w", names[0], err)
	}
	return top.Digest()
}

func (a Archive) names() ([]string, error) {
	if len(a.Names) == 0 {
		return nil, errors.New("an image has no name")
	}
	full := make([]string, 0, len(a.Names))
	for _, short := range a.Names {
		reference, err := Reference(short)
		if err != nil {
			return nil, err
		}
		full = append(full, reference)
	}
	slices.Sort(full)
	return slices.Compact(full), nil
}

// build makes the images, adds them to the layout, and returns the image, or the
// index of several.
func (a Archive) build(l layoutFiles) (manifest, error) {
	if len(a.Images) == 0 {
		return nil, errors.New("it is for no platform")
	}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	var last v1.Image
	platforms := map[string]bool{}
	for _, i := range a.Images {
		if platforms[i.Platform] {
			return nil, fmt.Errorf("it is for %s twice", i.Platform)
		}
		platforms[i.Platform] = true
		platform, err := i.platform()
		if err != nil {
			return nil, err
		}
		image, err := i.build(platform)
		if err == nil {
			err = l.addImage(image)
		}
		if err != nil {
			return nil, fmt.Errorf("for %s: %w", i.Platform, err)
		}
		index, last = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add: image, Descriptor: v1.Descriptor{Platform: platform},
		}), image
	}
	if len(a.Images) == 1 {
		return last, nil
	}
	if len(a.Annotations) > 0 {
		index = mutate.Annotations(index, maps.Clone(a.Annotations)).(v1.ImageIndex) // it returns what it is given
	}
	return index, l.addManifest(index)
}

// manifest is an image or an image index.
type manifest interface {
	partial.Describable
	RawManifest() ([]byte, error)
}

// Annotations that name an image in a layout's index: containerd reads the
// first, others the second.
const (
	containerdName = "io.containerd.image.name"
	referenceName  = "org.opencontainers.image.ref.name"
)

// addIndex adds the layout's index, which has the image once for each name.
func (l layoutFiles) addIndex(top manifest, names []string) error {
	descriptor, err := partial.Descriptor(top)
	if err != nil {
		return fmt.Errorf("describe it: %w", err)
	}
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex}
	for _, name := range names {
		named := *descriptor
		named.Annotations = map[string]string{containerdName: name, referenceName: name}
		index.Manifests = append(index.Manifests, named)
	}
	raw, err := json.Marshal(index)
	if err != nil {
		return fmt.Errorf("write its index: %w", err)
	}
	l.addBytes("index.json", raw)
	l.addBytes("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	return nil
}
