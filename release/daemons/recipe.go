package daemons

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/postern-dev/postern/release/images"
	"github.com/postern-dev/postern/release/internal/gobuild"
	"github.com/postern-dev/postern/release/internal/roots"
	"github.com/postern-dev/postern/release/internal/versions"
)

// project is where the source is.
const project = "https://github.com/postern-dev/postern"

// recipe is how one image is made.
type recipe struct {
	daemon  versions.Daemon
	image   versions.Image
	source  source
	version string
	// dir is for its binaries.
	dir string
}

// build makes the image for one platform: certificate authorities, which change
// rarely, below the program. There is nothing else in it; no shell.
func (r recipe) build(ctx context.Context, root, platform string) (images.Image, error) {
	binary := filepath.Join(r.dir, strings.ReplaceAll(platform, "/", "-"))
	err := gobuild.Build{
		Dir: filepath.Join(root, filepath.FromSlash(r.daemon.Module)), Package: "./cmd/" + r.daemon.Name,
		Platform: platform, Version: r.version, Revision: r.source.revision, Time: r.source.time, Output: binary,
	}.Run(ctx)
	if err != nil {
		return images.Image{}, err
	}
	authorities, err := roots.PEM()
	if err != nil {
		return images.Image{}, err
	}
	path := "/" + r.daemon.Name
	return images.Image{
		Platform: platform,
		Layers: []images.Layer{
			{
				Comment: "certificate authorities",
				Files:   []images.File{{Path: roots.Path, Contents: authorities}},
			}, {
				Comment: r.daemon.Name + " " + r.version,
				Files: []images.File{
					{Path: "/etc/passwd", Contents: []byte(r.passwd())},
					{Path: "/etc/group", Contents: []byte(r.group())},
					{Path: path, Source: binary, Mode: 0o755},
				},
			},
		},
		Entrypoint:  []string{path},
		User:        fmt.Sprintf("%d:%d", *r.image.UID, *r.image.UID),
		Labels:      r.labels(),
		Annotations: r.labels(),
		Created:     r.source.time,
	}, nil
}

// labels are OCI's predefined annotations.
func (r recipe) labels() map[string]string {
	const prefix = "org.opencontainers.image."
	return map[string]string{
		prefix + "title":       r.image.Title,
		prefix + "description": r.image.Description,
		prefix + "source":      project,
		prefix + "revision":    r.source.revision,
		prefix + "version":     r.version,
		prefix + "licenses":    "Apache-2.0",
		prefix + "created":     r.source.time.Format(time.RFC3339),
	}
}

// passwd and group give the user a name.
func (r recipe) passwd() string {
	root := "root:x:0:0:root:/:/sbin/nologin\n"
	if *r.image.UID == 0 {
		return root
	}
	return root + fmt.Sprintf("nonroot:x:%d:%d:%s:/:/sbin/nologin\n", *r.image.UID, *r.image.UID, r.daemon.Name)
}

func (r recipe) group() string {
	root := "root:x:0:\n"
	if *r.image.UID == 0 {
		return root
	}
	return root + fmt.Sprintf("nonroot:x:%d:\n", *r.image.UID)
}
