// Package incluster runs the double of AWS in a test cluster, in place of what is
// outside of real ones: a Deployment behind a Service, for which MinIO checks the
// tokens of pods with the keys of the cluster's issuer. It keeps everything in
// memory.
package incluster

import (
	"context"
	_ "embed" // the manifests
	"net"
	"strings"
	"time"

	"github.com/postern-dev/postern/test/aws/control"
	"github.com/postern-dev/postern/test/incluster"
)

// What pods reach.
const (
	// Endpoint is the URL of all of AWS' services in all regions.
	Endpoint = "http://aws.aws:8080"
	// PodIdentity is the URL of the EKS Pod Identity agent.
	PodIdentity = "http://aws.aws:8082/v1/credentials"
)

// Namespace is where it runs.
const Namespace = "aws"

// ImageName is what Image makes and Deploy runs.
const ImageName = "local/aws:1"

const (
	audience = "sts.amazonaws.com"
	// minioRole is what MinIO calls the role of whoever has a token of the
	// audience, of which its name is a hash.
	minioRole = "arn:minio:iam:::role/oxnUw3DAuQF1uggjXGxI2AmW8IA"
)

//go:embed aws.yaml
var manifests string

// Cluster is what it runs in.
type Cluster = incluster.Cluster

// Image writes an image of the binaries postern-aws and minio to a tarball.
func Image(double, minio, tarball string) error {
	return incluster.Image(ImageName, tarball, double, minio)
}

// Server is a running double and a client of its control API.
type Server struct {
	*control.Client

	// Address is the URL of Endpoint for programs in the cluster's network that
	// are no pods, and so do not know its name.
	Address string
}

// Deploy runs it, and has it trust the cluster's issuer, a URL. The cluster must
// have the image.
func Deploy(ctx context.Context, cluster Cluster, issuer string) (*Server, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	fill := strings.NewReplacer("${IMAGE}", ImageName, "${ISSUER}", issuer, "${AUDIENCE}", audience, "${MINIO_ROLE}", minioRole)
	w := workload(cluster)
	if err := w.Apply(ctx, fill.Replace(manifests)); err != nil {
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
	return workload(cluster).Delete(ctx, "clusterrolebinding/aws-issuer-discovery")
}

func workload(cluster Cluster) incluster.Workload {
	return incluster.Workload{Cluster: cluster, Name: Namespace, What: "the double of AWS"}
}
