// Package installation puts Postern into a test cluster as its users do: images
// built as for a release, the charts of this tree, and Helm.
package installation

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/postern-dev/postern/release/daemons"
	"github.com/postern-dev/postern/test/build"
	"github.com/postern-dev/postern/test/cluster"
)

// Where it is installed.
const (
	// Namespace and Release are those of the documentation.
	Namespace = "postern-system"
	Release   = "postern"
	// crdRelease is the release of the custom resources.
	crdRelease = "postern-crds"
	// Version is the tag of the images.
	Version = "v0.0.0-test"
)

// Config is what New needs. All of it is required.
type Config struct {
	// Builder builds Helm.
	Builder *build.Builder
	Cluster *cluster.Cluster
	// Root is the repository's.
	Root string
	// Dir is an existing directory for images and Helm's files.
	Dir string
	// Progress gets a line for each step that takes long.
	Progress io.Writer
}

// Installation is what was or is to be installed.
type Installation struct {
	cfg  Config
	helm string
}

// New finds Helm. Nothing is in the cluster yet.
func New(ctx context.Context, cfg Config) (*Installation, error) {
	if cfg.Builder == nil || cfg.Cluster == nil || cfg.Root == "" || cfg.Dir == "" || cfg.Progress == nil {
		return nil, errors.New("installation: Builder, Cluster, Root, Dir and Progress have to be set")
	}
	helm, err := cfg.Builder.Server(ctx, build.Helm())
	if err != nil {
		return nil, err
	}
	return &Installation{cfg: cfg, helm: helm}, nil
}

// BuildImages builds the images of all daemons of the tree for this machine,
// which needs no cluster, and returns their tarballs.
func BuildImages(ctx context.Context, root, dir string, progress io.Writer) ([]string, error) {
	builder, err := daemons.New(daemons.Config{
		Root: root, Dir: dir, Platforms: []string{"linux/" + runtime.GOARCH}, Version: Version, Progress: progress,
	})
	if err != nil {
		return nil, err
	}
	built, err := builder.Build(ctx)
	if err != nil {
		return nil, err
	}
	var tarballs []string
	for _, image := range built {
		tarballs = append(tarballs, image.Tarball)
	}
	return tarballs, nil
}

// Chart is the path of Postern's chart.
func (i *Installation) Chart() string { return filepath.Join(i.cfg.Root, "charts/postern") }

// Install installs the custom resources and Postern with these values, in YAML,
// and returns when it is ready.
func (i *Installation) Install(ctx context.Context, values string) error {
	if _, err := i.Helm(ctx, "upgrade", crdRelease, filepath.Join(i.cfg.Root, "charts/postern-crds"), "--install"); err != nil {
		return err
	}
	file := filepath.Join(i.cfg.Dir, "values.yaml")
	if err := os.WriteFile(file, []byte(values), 0o600); err != nil {
		return fmt.Errorf("write the values: %w", err)
	}
	_, err := i.Helm(ctx, "install", Release, i.Chart(), "--namespace", Namespace, "--create-namespace",
		"--values", file, "--wait", "--timeout", "3m")
	if err != nil {
		return err
	}
	return i.registered(ctx)
}

// Upgrade changes values of what is installed, such as "gateway.image.tag=v2",
// and returns when it is ready.
func (i *Installation) Upgrade(ctx context.Context, values ...string) error {
	args := []string{"upgrade", Release, i.Chart(), "--namespace", Namespace, "--reset-then-reuse-values", "--wait", "--timeout", "3m"}
	for _, value := range values {
		args = append(args, "--set", value)
	}
	if _, err := i.Helm(ctx, args...); err != nil {
		return err
	}
	return i.registered(ctx)
}

// registered waits until kubelet knows the driver, which is a moment after the
// driver is ready. A pod in between starts too, but only at kubelet's next try.
func (i *Installation) registered(ctx context.Context) error {
	out, err := i.cfg.Cluster.Command(ctx, "kubectl", "wait", "csinode/"+i.cfg.Cluster.NodeName(), "--timeout=60s",
		"--for=jsonpath={.spec.drivers[*].name}=secrets-store.csi.k8s.io").CombinedOutput()
	if err != nil {
		return fmt.Errorf("wait until kubelet knows the driver: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// Uninstall removes Postern, but not its custom resources, and returns when its
// pods are gone.
func (i *Installation) Uninstall(ctx context.Context) error {
	_, err := i.Helm(ctx, "uninstall", Release, "--namespace", Namespace, "--wait", "--timeout", "3m")
	return err
}

// Helm runs Helm in the cluster and returns what it printed. A failure's error
// holds that, too.
func (i *Installation) Helm(ctx context.Context, args ...string) (string, error) {
	cmd := i.cfg.Cluster.Command(ctx, i.helm, args...)
	home := filepath.Join(i.cfg.Dir, "helm")
	cmd.Env = append(cmd.Env, "HELM_CACHE_HOME="+home, "HELM_CONFIG_HOME="+home, "HELM_DATA_HOME="+home)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("helm %s: %w\n%s%s", strings.Join(args, " "), err, stdout.String(), stderr.String())
	}
	return stdout.String(), nil
}

// Tag gives the image of a part, such as "provider-vault", one more tag.
func (i *Installation) Tag(ctx context.Context, part, tag string) error {
	name := daemons.Repository + "/postern-" + part
	return i.ctr(ctx, "images", "tag", name+":"+Version, name+":"+tag)
}

func (i *Installation) ctr(ctx context.Context, args ...string) error {
	args = slices.Concat([]string{"--address", "/run/containerd/containerd.sock", "--namespace", "k8s.io"}, args)
	out, err := i.cfg.Cluster.Command(ctx, "ctr", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ctr %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}
