// Package daemons builds the images of the project's daemons from the source
// tree: one per daemon, for one platform or several, each a tar file.
package daemons

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/postern-dev/postern/release/images"
	"github.com/postern-dev/postern/release/internal/git"
	"github.com/postern-dev/postern/release/internal/versions"
)

// Repository is where the official images are.
const Repository = "ghcr.io/postern-dev"

// Platforms that are released.
func Platforms() []string { return []string{"linux/amd64", "linux/arm64"} }

// Config says what to build.
type Config struct {
	// Root is the root of the source tree. Required.
	Root string
	// Dir is where the tar files go: <image>-<version>.tar. Required.
	Dir string
	// Names of the images, such as postern-driver; default: all.
	Names []string
	// Platforms; default: Platforms().
	Platforms []string
	// Repository is what the images' names begin with; default: Repository.
	Repository string
	// Version of the images, for tests; default: that of each one's set.
	Version string
	// Time of the images and their files; default: the commit's.
	Time time.Time
	// Progress gets a line for each step. Required.
	Progress io.Writer
}

// Image is an image that was built.
type Image struct {
	// Name such as postern-driver, and its Version.
	Name, Version string
	// Reference is the full name with the tag.
	Reference string
	// Tarball is the file's path.
	Tarball string
	// Digest such as sha256:...
	Digest string
}

// Builder builds images.
type Builder struct {
	cfg     Config
	daemons []versions.Daemon
	images  map[string]versions.Image
}

// New reads the tree's versions and checks cfg.
func New(cfg Config) (*Builder, error) {
	switch {
	case cfg.Root == "":
		return nil, errors.New("images: Root is not set")
	case cfg.Dir == "":
		return nil, errors.New("images: Dir is not set")
	case cfg.Progress == nil:
		return nil, errors.New("images: Progress is not set")
	}
	if len(cfg.Platforms) == 0 {
		cfg.Platforms = Platforms()
	}
	if cfg.Repository == "" {
		cfg.Repository = Repository
	}
	file, err := versions.Read(cfg.Root)
	if err != nil {
		return nil, err
	}
	all, err := file.Daemons(cfg.Root)
	if err != nil {
		return nil, err
	}
	chosen, err := choose(all, cfg.Names)
	if err != nil {
		return nil, err
	}
	for _, d := range chosen {
		if _, ok := file.Images[d.Name]; !ok {
			return nil, fmt.Errorf("%s/cmd/%s has no entry below images in %s: give it one, with a uid", d.Module, d.Name, versions.FileName)
		}
	}
	return &Builder{cfg: cfg, daemons: chosen, images: file.Images}, nil
}

// choose picks the daemons of these names.
func choose(all []versions.Daemon, names []string) ([]versions.Daemon, error) {
	if len(names) == 0 {
		return all, nil
	}
	var chosen []versions.Daemon
	for _, name := range names {
		at := slices.IndexFunc(all, func(d versions.Daemon) bool { return d.Name == name })
		if at < 0 {
			var known []string
			for _, d := range all {
				known = append(known, d.Name)
			}
			return nil, fmt.Errorf("there is no image %q; there are %s", name, strings.Join(known, ", "))
		}
		chosen = append(chosen, all[at])
	}
	return chosen, nil
}

// source is the state of the tree that is built.
type source struct {
	revision string
	time     time.Time
	version  func(*versions.Set) (string, error)
}

// source asks git for commit, time and versions.
func (b *Builder) source(ctx context.Context) (source, error) {
	s := source{revision: versions.Unknown, time: time.Unix(0, 0).UTC()}
	repository, err := git.Open(ctx, b.cfg.Root)
	switch {
	case errors.Is(err, git.ErrNoRepository):
		s.version = func(set *versions.Set) (string, error) { return set.UntrackedVersion(), nil }
	case err != nil:
		return source{}, err
	default:
		head, err := repository.Head(ctx)
		if err != nil {
			return source{}, err
		}
		s.revision, s.time = head.Hash, head.Time
		if head.Dirty {
			s.revision += "-dirty"
		}
		s.version = func(set *versions.Set) (string, error) { return set.BuildVersion(ctx, repository, head) }
	}
	if b.cfg.Version != "" {
		s.version = func(*versions.Set) (string, error) { return b.cfg.Version, nil }
	}
	if !b.cfg.Time.IsZero() {
		s.time = b.cfg.Time.UTC()
	}
	return s, nil
}

// Build builds the images and returns them in the order of their names.
func (b *Builder) Build(ctx context.Context) ([]Image, error) {
	from, err := b.source(ctx)
	if err != nil {
		return nil, err
	}
	binaries, err := os.MkdirTemp("", "postern-images-")
	if err != nil {
		return nil, fmt.Errorf("make a directory for binaries: %w", err)
	}
	defer func() { _ = os.RemoveAll(binaries) }()
	var built []Image
	for _, daemon := range b.daemons {
		image, err := b.image(daemon, from)
		if err != nil {
			return nil, err
		}
		image, err = b.build(ctx, image, recipe{
			daemon: daemon, image: b.images[daemon.Name], source: from,
			version: image.Version, dir: filepath.Join(binaries, daemon.Name),
		})
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", daemon.Name, err)
		}
		built = append(built, image)
	}
	return built, nil
}

// Built returns what Build would, from the files that it wrote before. Digests
// are left out.
func (b *Builder) Built(ctx context.Context) ([]Image, error) {
	from, err := b.source(ctx)
	if err != nil {
		return nil, err
	}
	var built []Image
	for _, daemon := range b.daemons {
		image, err := b.image(daemon, from)
		if err != nil {
			return nil, err
		}
		if _, err := os.Stat(image.Tarball); err != nil {
			return nil, fmt.Errorf("image %s %s is not built yet: %w", image.Name, image.Version, err)
		}
		built = append(built, image)
	}
	return built, nil
}

// image says what a daemon's image is called and where it goes.
func (b *Builder) image(daemon versions.Daemon, from source) (Image, error) {
	version, err := from.version(daemon.Set)
	if err != nil {
		return Image{}, fmt.Errorf("image %s: %w", daemon.Name, err)
	}
	return Image{
		Name: daemon.Name, Version: version,
		Reference: b.cfg.Repository + "/" + daemon.Name + ":" + version,
		Tarball:   filepath.Join(b.cfg.Dir, daemon.Name+"-"+version+".tar"),
	}, nil
}

// build builds one image for each platform.
func (b *Builder) build(ctx context.Context, image Image, r recipe) (Image, error) {
	start := time.Now()
	archive := images.Archive{Names: []string{image.Reference}, Annotations: r.labels()}
	for _, platform := range b.cfg.Platforms {
		one, err := r.build(ctx, b.cfg.Root, platform)
		if err != nil {
			return Image{}, fmt.Errorf("%s: %w", platform, err)
		}
		archive.Images = append(archive.Images, one)
	}
	digest, err := archive.Write(image.Tarball)
	if err != nil {
		return Image{}, err
	}
	image.Digest = digest.String()
	_, _ = fmt.Fprintf(b.cfg.Progress, "images: %s %s: built for %s in %s\n", image.Name, image.Version,
		strings.Join(b.cfg.Platforms, " and "), time.Since(start).Round(100*time.Millisecond))
	return image, nil
}
