// Package incluster runs the double of AWS in a test cluster, in place of what is
// outside of real ones: a Deployment behind a Service, for which MinIO checks the
// tokens of pods with the keys of the cluster's issuer. It keeps everything in
// memory.
package incluster

import (
	"context"
	_ "embed" // the manifests
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
	"github.com/postern-dev/postern/test/aws/control"
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
type Cluster interface {
	// Command runs a program in the cluster's network, with kubectl set up.
	Command(ctx context.Context, name string, args ...string) *exec.Cmd
	// Dial connects as a process of the node does.
	Dial(ctx context.Context, network, address string) (net.Conn, error)
}

// Image writes an image of the binaries postern-aws and minio to a tarball.
func Image(double, minio, tarball string) error {
	_, err := images.Archive{
		Names: []string{ImageName},
		Images: []images.Image{{
			Platform: "linux/" + runtime.GOARCH,
			Layers: []images.Layer{{
				Files: []images.File{
					{Path: "/postern-aws", Source: double},
					{Path: "/minio", Source: minio},
					{Path: "/tmp", Mode: os.ModeDir | os.ModeSticky | 0o777},
				},
				Fast: true,
			}},
			Entrypoint: []string{"/postern-aws"},
		}},
	}.Write(tarball)
	if err != nil {
		return fmt.Errorf("make the image of the double of AWS: %w", err)
	}
	return nil
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
	apply := cluster.Command(ctx, "kubectl", "apply", "-f", "-")
	apply.Stdin = strings.NewReader(fill.Replace(manifests))
	if _, err := output(apply); err != nil {
		return nil, fmt.Errorf("apply the manifests of the double of AWS: %w", err)
	}
	if err := ready(ctx, cluster); err != nil {
		return nil, err
	}
	ip, err := output(cluster.Command(ctx, "kubectl", "-n", Namespace, "get", "service", "aws", "-o", "jsonpath={.spec.clusterIP}"))
	if err != nil {
		return nil, fmt.Errorf("look up the address of the double of AWS: %w", err)
	}
	return &Server{
		Client: control.NewClient("http://" + net.JoinHostPort(ip, "8081")).
			Via(&http.Transport{DialContext: cluster.Dial, DisableKeepAlives: true}),
		Address: "http://" + net.JoinHostPort(ip, "8080"),
	}, nil
}

func ready(ctx context.Context, cluster Cluster) error {
	_, err := output(cluster.Command(ctx, "kubectl", "-n", Namespace, "rollout", "status", "deployment/aws", "--timeout=90s"))
	if err == nil {
		return nil
	}
	ctx = context.WithoutCancel(ctx)
	pods, more := output(cluster.Command(ctx, "kubectl", "-n", Namespace, "describe", "pods"))
	logs, evenMore := output(cluster.Command(ctx, "kubectl", "-n", Namespace, "logs", "deployment/aws", "--all-containers", "--prefix", "--tail=20"))
	return errors.Join(fmt.Errorf("wait for the double of AWS: %w; its pods:\n%s\n%s", err, pods, logs), more, evenMore)
}

// Delete removes it, and returns when it is gone.
func Delete(ctx context.Context, cluster Cluster) error {
	_, err := output(cluster.Command(ctx, "kubectl", "delete", "namespace/"+Namespace, "clusterrolebinding/aws-issuer-discovery", "--timeout=60s"))
	if err != nil {
		return fmt.Errorf("remove the double of AWS: %w", err)
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
