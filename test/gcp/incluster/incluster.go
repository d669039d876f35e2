// Package incluster runs the double of Google Cloud in a test cluster, in place of
// what is outside of real ones: a Deployment behind a Service, which checks the
// tokens of pods with the keys of the cluster's issuer. It keeps everything in memory.
package incluster

import (
	"context"
	_ "embed" // the manifests
	"net"
	"strings"
	"time"

	"github.com/postern-dev/postern/test/gcp/control"
	"github.com/postern-dev/postern/test/incluster"
)

// What pods reach.
const (
	// Proxy is the URL of the proxy, for HTTPS_PROXY.
	Proxy = "http://gcp.gcp:8080"
	// Metadata is for GCE_METADATA_HOST: it has no scheme.
	Metadata = "gcp.gcp:8082"
)

// Namespace is where it runs.
const Namespace = "gcp"

// ImageName is what Image makes and Deploy runs.
const ImageName = "local/gcp:1"

//go:embed gcp.yaml
var manifests string

// Cluster is what it runs in.
type Cluster = incluster.Cluster

// Image writes an image of the binary postern-gcp to a tarball.
func Image(double, tarball string) error { return incluster.Image(ImageName, tarball, double) }

// Server is a running double and a client of its control API.
type Server struct {
	*control.Client

	// Address is the URL of Proxy for programs in the cluster's network that are no
	// pods, and so do not know its name.
	Address string
}

// Deploy runs it, and has it trust the cluster's issuer, a URL. The cluster must
// have the image. Its authority is new each time: Client.CA returns it.
func Deploy(ctx context.Context, cluster Cluster, issuer string) (*Server, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	w := workload(cluster)
	if err := w.Apply(ctx, strings.NewReplacer("${IMAGE}", ImageName, "${ISSUER}", issuer).Replace(manifests)); err != nil {
		return nil, err
	}
	if err := w.Ready(ctx); err != nil {
		return nil, err
	}
	ip, err := w.IP(ctx)
	if err != nil {
		return nil, err
	}
	return &Server{
		Client:  control.NewClient("http://" + net.JoinHostPort(ip, "8081")).Via(w.Transport()),
		Address: "http://" + net.JoinHostPort(ip, "8080"),
	}, nil
}

// Delete removes it, and returns when it is gone.
func Delete(ctx context.Context, cluster Cluster) error {
	return workload(cluster).Delete(ctx, "clusterrolebinding/gcp-issuer-discovery")
}

func workload(cluster Cluster) incluster.Workload {
	return incluster.Workload{Cluster: cluster, Name: Namespace, What: "the double of Google Cloud"}
}
