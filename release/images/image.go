package images

import (
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Image is what an image is on one platform.
type Image struct {
	// Platform such as "linux/amd64". Required.
	Platform string
	// Layers, lowest first. What changes least goes first: a node does not pull a
	// layer that it has.
	Layers []Layer
	// Entrypoint and Cmd are the command and its default arguments.
	Entrypoint, Cmd []string
	// User is "uid:gid" or "uid". Empty: root.
	User string
	// Env holds name=value.
	Env []string
	// WorkingDir defaults to the root.
	WorkingDir string
	// Labels go into the configuration, Annotations into the manifest.
	Labels, Annotations map[string]string
	// Created is the time of the image and of its files. Default: 1970.
	Created time.Time
}

// Reference returns a name with registry, repository and tag in full, as
// container runtimes write it: "local/busybox:1" is "docker.io/local/busybox:1".
func Reference(short string) (string, error) {
	tag, err := name.NewTag(short)
	if err != nil {
		return "", fmt.Errorf("image name %q: %w", short, err)
	}
	repository := tag.Name()
	if rest, ok := strings.CutPrefix(repository, name.DefaultRegistry+"/"); ok {
		repository = "docker.io/" + rest
	}
	return repository, nil
}

func (i Image) platform() (*v1.Platform, error) {
	platform, err := v1.ParsePlatform(i.Platform)
	if err != nil || platform.OS == "" || platform.Architecture == "" {
		return nil, fmt.Errorf("platform %q: want os/architecture, such as linux/amd64", i.Platform)
	}
	return platform, nil
}

// build makes the manifest, the configuration and the layers.
func (i Image) build(platform *v1.Platform) (v1.Image, error) {
	image := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	image = mutate.ConfigMediaType(image, types.OCIConfigJSON)
	image, err := mutate.ConfigFile(image, i.config(platform))
	if err != nil {
		return nil, fmt.Errorf("configure the image: %w", err)
	}
	for _, layer := range i.Layers {
		blob, err := layer.build(i.created())
		if err != nil {
			return nil, err
		}
		history := v1.History{Created: v1.Time{Time: i.created()}, CreatedBy: layer.Comment}
		if image, err = mutate.Append(image, mutate.Addendum{Layer: blob, History: history}); err != nil {
			return nil, fmt.Errorf("append a layer: %w", err)
		}
	}
	if len(i.Annotations) > 0 {
		image = mutate.Annotations(image, maps.Clone(i.Annotations)).(v1.Image) // it returns what it is given
	}
	return image, nil
}

func (i Image) config(platform *v1.Platform) *v1.ConfigFile {
	return &v1.ConfigFile{
		Architecture: platform.Architecture,
		OS:           platform.OS,
		Variant:      platform.Variant,
		Created:      v1.Time{Time: i.created()},
		RootFS:       v1.RootFS{Type: "layers"},
		Config: v1.Config{
			User: i.User, Env: i.Env, Entrypoint: i.Entrypoint, Cmd: i.Cmd,
			WorkingDir: i.WorkingDir, Labels: maps.Clone(i.Labels),
		},
	}
}

func (i Image) created() time.Time {
	if i.Created.IsZero() {
		return time.Unix(0, 0).UTC()
	}
	return i.Created.UTC().Truncate(time.Second)
}
