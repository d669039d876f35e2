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
	"strings"
	"time"

	"github.com/postern-dev/postern/test/incluster"
	"github.com/postern-dev/postern/test/openbao"
)

// Address is the server's URL for pods.
const Address = "http://openbao.openbao:8200"

// ImageName is what Image makes and Deploy runs.
const ImageName = "local/openbao:1"

//go:embed openbao.yaml
var manifests string

// Cluster is what it runs in.
type Cluster = incluster.Cluster

// Image writes an image of the binary bao to a tarball.
func Image(bao, tarball string) error { return incluster.Image(ImageName, tarball, bao) }

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
	w := workload(cluster)
	if err := w.Apply(ctx, fill.Replace(manifests)); err != nil {
		return nil, err
	}
	s := &Server{}
	if err := s.Ready(ctx, cluster); err != nil {
		return nil, err
	}
	ip, err := w.IP(ctx)
	if err != nil {
		return nil, err
	}
	s.ClusterAddress = "http://" + net.JoinHostPort(ip, "8200")
	s.Client = openbao.NewClient(s.ClusterAddress, "").Via(w.Transport())
	if err := s.setUp(ctx); err != nil {
		return nil, fmt.Errorf("set up OpenBao: %w", err)
	}
	return s, nil
}

// Ready waits until the Deployment is, again after the node was restarted.
func (*Server) Ready(ctx context.Context, cluster Cluster) error { return workload(cluster).Ready(ctx) }

func workload(cluster Cluster) incluster.Workload {
	return incluster.Workload{Cluster: cluster, Name: "openbao", What: "OpenBao"}
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
