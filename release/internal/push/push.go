// Package push brings images from tar files into a registry.
package push

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/postern-dev/postern/release/images"
)

// Pusher pushes images.
type Pusher struct {
	// Keychain has the registry's credentials. Required.
	Keychain authn.Keychain
	// Overwrite lets a tag be moved from one image to another. Without it only a
	// tag of a tree with changes is: others stay what they were once.
	Overwrite bool
}

// Result is what is in the registry now.
type Result struct {
	// Reference is the name with the digest, repository:tag@sha256:...
	Reference string
	// Present: it was there already, and nothing was pushed.
	Present bool
}

// Push pushes the image in a tar file under a name with a tag.
func (p Pusher) Push(ctx context.Context, tarball, reference string) (Result, error) {
	tag, err := name.NewTag(reference)
	if err != nil {
		return Result{}, fmt.Errorf("push to %q: %w", reference, err)
	}
	dir, err := os.MkdirTemp("", "postern-push-")
	if err != nil {
		return Result{}, fmt.Errorf("make a directory to unpack %s in: %w", tarball, err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	image, digest, err := open(tarball, dir)
	if err != nil {
		return Result{}, err
	}
	result := Result{Reference: reference + "@" + digest.String()}
	options := []remote.Option{remote.WithContext(ctx), remote.WithAuthFromKeychain(p.Keychain)}
	there, err := existing(tag, options)
	switch {
	case err != nil:
		return Result{}, err
	case there == digest:
		result.Present = true
		return result, nil
	case there != v1.Hash{} && !p.Overwrite && !strings.HasSuffix(tag.TagStr(), "-dirty"):
		return Result{}, fmt.Errorf("%s is %s already, and this image is %s: "+
			"raise the version in versions.yaml, or give --overwrite", reference, there, digest)
	}
	if err := remote.Push(tag, image, options...); err != nil {
		return Result{}, explain(reference, err)
	}
	return result, nil
}

// open returns the image in a tar file.
func open(tarball, dir string) (remote.Taggable, v1.Hash, error) {
	index, err := images.Unpack(tarball, dir)
	if err != nil {
		return nil, v1.Hash{}, err
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return nil, v1.Hash{}, fmt.Errorf("read the index of %s: %w", tarball, err)
	}
	if len(manifest.Manifests) == 0 {
		return nil, v1.Hash{}, fmt.Errorf("%s holds no image", tarball)
	}
	first := manifest.Manifests[0]
	var image remote.Taggable
	if first.MediaType.IsIndex() {
		image, err = index.ImageIndex(first.Digest)
	} else {
		image, err = index.Image(first.Digest)
	}
	if err != nil {
		return nil, v1.Hash{}, fmt.Errorf("read the image of %s: %w", tarball, err)
	}
	return image, first.Digest, nil
}

// existing returns what a tag is in the registry, nothing if it is not there.
func existing(tag name.Tag, options []remote.Option) (v1.Hash, error) {
	descriptor, err := remote.Head(tag, options...)
	if err == nil {
		return descriptor.Digest, nil
	}
	var answer *transport.Error
	if errors.As(err, &answer) {
		switch answer.StatusCode {
		// Some registries forbid a look at a repository that is not there yet. If
		// it is forbidden indeed, so is the push, and that says why.
		case http.StatusNotFound, http.StatusUnauthorized, http.StatusForbidden:
			return v1.Hash{}, nil
		}
	}
	return v1.Hash{}, explain(tag.String(), err)
}

// explain adds what to do.
func explain(reference string, err error) error {
	var answer *transport.Error
	if errors.As(err, &answer) && (answer.StatusCode == http.StatusUnauthorized || answer.StatusCode == http.StatusForbidden) {
		return fmt.Errorf("push %s: the registry refused: log in with \"docker login\", \"podman login\" or \"crane auth login\" "+
			"as somebody who may write there: %w", reference, err)
	}
	return fmt.Errorf("push %s: %w", reference, err)
}
