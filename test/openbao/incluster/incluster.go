// Package incluster runs OpenBao in a test cluster as its users do: a Deployment
// behind a Service, which checks the tokens of pods with the cluster's API. Its
// data survives the end of its container and of the node, but not of its pod.
package incluster

import (
	"context"
	"crypto/rand"
	_ "embed" // the manifests
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"github.com/postern-dev/postern/release/images"
	"github.com/postern-dev/postern/test/openbao"
)

// Address is the server's URL for pods.
const Address = "http://openbao.openbao:8200"

// ImageName is what Image makes and Deploy runs.
const ImageName = "local/openbao:1"

//go:embed openbao.yaml
var manifests string

// Cluster is what it runs in.
type Cluster interface {
	// Command runs a program in the cluster's network, with kubectl set up.
	Command(ctx context.Context, name string, args ...string) *exec.Cmd
	// Dial connects as a process of the node does.
	Dial(ctx context.Context, network, address string) (net.Conn, error)
}

// Image writes an image of the binary bao to a tarball.
func Image(bao, tarball string) error {
	_, err := images.Archive{
		Names: []string{ImageName},
		Images: []images.Image{{
			Platform: "linux/" + runtime.GOARCH,
			Layers: []images.Layer{{
				Files: []images.File{
					{Path: "/bao", Source: bao},
					{Path: "/tmp", Mode: os.ModeDir | os.ModeSticky | 0o777},
				},
				Fast: true,
			}},
			Entrypoint: []string{"/bao"},
		}},
	}.Write(tarball)
	if err != nil {
		return fmt.Errorf("make the image of OpenBao: %w", err)
	}
	return nil
}

// Server is a running OpenBao and a client of it.
type Server struct {
	*openbao.Client

	// ClusterAddress is its URL for programs in the cluster's network that are
	// no pods, and so do not know its name.
	ClusterAddress string
}

// Deploy runs it, gives it its keys, a kv-v2 engine at secret/ and the auth
// method at auth/kubernetes. The cluster must have the image.
func Deploy(ctx context.Context, cluster Cluster) (*Server, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	fill := strings.NewReplacer("${IMAGE}", ImageName, "${SEAL_KEY}", hex.EncodeToString(key))
	apply := cluster.Command(ctx, "kubectl", "apply", "-f", "-")
	apply.Stdin = strings.NewReader(fill.Replace(manifests))
	if _, err := output(apply); err != nil {
		return nil, fmt.Errorf("apply the manifests of OpenBao: %w", err)
	}
	s := &Server{}
	if err := s.Ready(ctx, cluster); err != nil {
		return nil, err
	}
	ip, err := output(cluster.Command(ctx, "kubectl", "-n", "openbao", "get", "service", "openbao", "-o", "jsonpath={.spec.clusterIP}"))
	if err != nil {
		return nil, fmt.Errorf("look up the address of OpenBao: %w", err)
	}
	s.ClusterAddress = "http://" + net.JoinHostPort(ip, "8200")
	s.Client = openbao.NewClient(s.ClusterAddress, "").Via(&http.Transport{DialContext: cluster.Dial, DisableKeepAlives: true})
	if err := s.setUp(ctx); err != nil {
		return nil, fmt.Errorf("set up OpenBao: %w", err)
	}
	return s, nil
}

// Ready waits until the Deployment is, again after the node was restarted.
func (*Server) Ready(ctx context.Context, cluster Cluster) error {
	_, err := output(cluster.Command(ctx, "kubectl", "-n", "openbao", "rollout", "status", "deployment/openbao", "--timeout=90s"))
	if err == nil {
		return nil
	}
	pods, more := output(cluster.Command(context.WithoutCancel(ctx), "kubectl", "-n", "openbao", "describe", "pods"))
	return errors.Join(fmt.Errorf("wait for OpenBao: %w; its pods:\n%s", err, pods), more)
}

func (s *Server) setUp(ctx context.Context) error {
	if err := s.Initialize(ctx); err != nil {
		return err
	}
	err := errors.Join(
		s.Write(ctx, "sys/mounts/secret", map[string]any{"type": "kv", "options": map[string]any{"version": "2"}}),
		s.Write(ctx, "sys/auth/kubernetes", map[string]any{"type": "kubernetes"}),
		// With the certificate and the token of its own pod.
		s.Write(ctx, "auth/kubernetes/config", map[string]any{"kubernetes_host": "https://kubernetes.default.svc"}),
	)
	if err != nil {
		return err
	}
	// A new kv-v2 engine refuses everything for a moment.
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		if err = s.Read(ctx, "secret/config", nil); err == nil {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		}
	}
}

func output(cmd *exec.Cmd) (string, error) {
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("%w: %s", err, strings.TrimSpace(string(exit.Stderr)))
	}
	return strings.TrimSpace(string(out)), err
}
