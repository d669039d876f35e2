package cluster

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	// criTimeout is how long a call to containerd may take.
	criTimeout = 10 * time.Second
	// visibleTimeout is how long the kubelet's view of the images may lag behind.
	visibleTimeout = time.Minute
)

// ImportImages gives containerd the images in tarballs, of docker's or OCI's
// layout, and returns when the kubelet sees them under the names that they have
// there. Pods use them with imagePullPolicy IfNotPresent or Never.
func (c *Cluster) ImportImages(ctx context.Context, tarballs ...string) error {
	var names []string
	for _, tarball := range tarballs {
		path, err := filepath.Abs(tarball)
		if err != nil {
			return fmt.Errorf("resolve %s: %w", tarball, err)
		}
		cmd := c.Command(ctx, "ctr", "--address", containerdSock, "--namespace", "k8s.io", "images", "import", path)
		output, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("import the images of %s: %w: %s", tarball, err, strings.TrimSpace(string(output)))
		}
		imported := importedNames(string(output))
		if len(imported) == 0 {
			return fmt.Errorf("import the images of %s: there is none for this machine's platform, or it has no name; ctr said: %q", tarball, output)
		}
		names = append(names, imported...)
	}
	// containerd tells its CRI plugin of an image a moment later. A pod created
	// before that would wait for the kubelet's next try.
	ctx, cancel := context.WithTimeout(ctx, visibleTimeout)
	defer cancel()
	return poll(ctx, "the kubelet sees the images", func(ctx context.Context) error {
		known, err := c.imageNames(ctx)
		if err != nil {
			return err
		}
		for _, name := range names {
			if !slices.Contains(known, name) {
				return fmt.Errorf("image %s is not there; those that are: %s", name, strings.Join(known, ", "))
			}
		}
		return nil
	})
}

// importedNames reads the names from lines like "unpacking NAME (DIGEST)...done".
func importedNames(output string) []string {
	var names []string
	for line := range strings.Lines(output) {
		fields := strings.Fields(line)
		if len(fields) >= 2 && fields[0] == "unpacking" {
			names = append(names, fields[1])
		}
	}
	return names
}

// imageNames asks containerd as the kubelet does.
func (c *Cluster) imageNames(ctx context.Context) (names []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, criTimeout)
	defer cancel()
	conn, err := grpc.NewClient("unix:"+c.NodePath(containerdSock), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("connect to containerd: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	response, err := criapi.NewImageServiceClient(conn).ListImages(ctx, &criapi.ListImagesRequest{})
	if err != nil {
		return nil, fmt.Errorf("ask containerd for its images: %w", err)
	}
	for _, image := range response.GetImages() {
		names = append(names, image.GetRepoTags()...)
	}
	return names, nil
}
