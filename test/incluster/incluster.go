// Package incluster runs servers for tests in a test cluster: each is a Deployment
// behind a Service of the same name, in a namespace of that name.
package incluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/postern-dev/postern/release/images"
)

// Cluster is what it runs in.
type Cluster interface {
	// Command runs a program in the cluster's network, with kubectl set up.
	Command(ctx context.Context, name string, args ...string) *exec.Cmd
	// Dial connects as a process of the node does.
	Dial(ctx context.Context, network, address string) (net.Conn, error)
}

// Image writes an image of programs to a tarball. Each is at the root by its own
// name; the first is the entrypoint.
func Image(name, tarball string, programs ...string) error {
	files := []images.File{{Path: "/tmp", Mode: os.ModeDir | os.ModeSticky | 0o777}}
	for _, program := range programs {
		files = append(files, images.File{Path: "/" + filepath.Base(program), Source: program})
	}
	_, err := images.Archive{
		Names: []string{name},
		Images: []images.Image{{
			Platform:   "linux/" + runtime.GOARCH,
			Layers:     []images.Layer{{Files: files, Fast: true}},
			Entrypoint: []string{"/" + filepath.Base(programs[0])},
		}},
	}.Write(tarball)
	if err != nil {
		return fmt.Errorf("make the image %s: %w", name, err)
	}
	return nil
}

// Workload is a server in a cluster.
type Workload struct {
	Cluster Cluster
	// Name of the namespace, the Deployment and the Service.
	Name string
	// What it is, for errors.
	What string
}

// Apply puts its manifests.
func (w Workload) Apply(ctx context.Context, manifests string) error {
	apply := w.Cluster.Command(ctx, "kubectl", "apply", "-f", "-")
	apply.Stdin = strings.NewReader(manifests)
	if _, err := output(apply); err != nil {
		return fmt.Errorf("apply the manifests of %s: %w", w.What, err)
	}
	return nil
}

// Ready waits until the Deployment is, again after the node was restarted.
func (w Workload) Ready(ctx context.Context) error {
	deployment := "deployment/" + w.Name
	_, err := output(w.Cluster.Command(ctx, "kubectl", "-n", w.Name, "rollout", "status", deployment, "--timeout=90s"))
	if err == nil {
		return nil
	}
	ctx = context.WithoutCancel(ctx)
	pods, more := output(w.Cluster.Command(ctx, "kubectl", "-n", w.Name, "describe", "pods"))
	logs, evenMore := output(w.Cluster.Command(ctx, "kubectl", "-n", w.Name, "logs", deployment, "--all-containers", "--prefix", "--tail=20"))
	return errors.Join(fmt.Errorf("wait for %s: %w; its pods:\n%s\n%s", w.What, err, pods, logs), more, evenMore)
}

// IP returns the address of its Service, for programs in the cluster's network that
// are no pods, and so do not know its name.
func (w Workload) IP(ctx context.Context) (string, error) {
	ip, err := output(w.Cluster.Command(ctx, "kubectl", "-n", w.Name, "get", "service", w.Name, "-o", "jsonpath={.spec.clusterIP}"))
	if err != nil {
		return "", fmt.Errorf("look up the address of %s: %w", w.What, err)
	}
	return ip, nil
}

// Transport connects as a process of the node does.
func (w Workload) Transport() *http.Transport {
	return &http.Transport{DialContext: w.Cluster.Dial, DisableKeepAlives: true}
}

// Delete removes its namespace and other objects of it, such as
// clusterrolebinding/aws, and returns when they are gone.
func (w Workload) Delete(ctx context.Context, objects ...string) error {
	args := append([]string{"delete", "--timeout=60s", "namespace/" + w.Name}, objects...)
	if _, err := output(w.Cluster.Command(ctx, "kubectl", args...)); err != nil {
		return fmt.Errorf("remove %s: %w", w.What, err)
	}
	return nil
}

func output(cmd *exec.Cmd) (string, error) {
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("%w: %s", err, strings.TrimSpace(string(exit.Stderr)))
	}
	return strings.TrimSpace(string(out)), err
}
