// Package pods_test runs Postern as its users do: charts, images and pods in a
// real Kubernetes cluster of one node, with OpenBao in it. It needs root and some
// packages; see package cluster. It prints what it measures: go test -v shows it.
package pods_test

import (
	"context"
	_ "embed" // values
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	azurecluster "github.com/postern-dev/postern/test/azure/incluster"
	"github.com/postern-dev/postern/test/build"
	"github.com/postern-dev/postern/test/cluster"
	gcpcluster "github.com/postern-dev/postern/test/gcp/incluster"
	"github.com/postern-dev/postern/test/installation"
	"github.com/postern-dev/postern/test/openbao/incluster"
	"github.com/postern-dev/postern/test/otlp"
)

// system is the namespace of Postern.
const system = installation.Namespace

// nextTag is a second tag of each of Postern's images, to upgrade to.
const nextTag = "v0.0.1-test"

// valuesTemplate becomes the values that Postern is installed with.
//
//go:embed testdata/values.yaml
var valuesTemplate string

// shared is what all tests share; TestMain sets it.
var shared environment

// environment is a cluster with OpenBao and Postern.
type environment struct {
	root    string
	builder *build.Builder
	cluster *cluster.Cluster
	client  kubernetes.Interface
	dynamic dynamic.Interface
	bao     *incluster.Server
	postern *installation.Installation
	traces  *otlp.Receiver
	// values that Postern is installed with.
	values string
	// dir holds all files of this run.
	dir string
	// took says how long the parts of the set-up took.
	took []string
}

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "pods:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	if missing := cluster.Missing(); len(missing) > 0 {
		fmt.Fprintf(os.Stderr, "pods: SKIPPED: no test with real pods ran, since this machine cannot run a cluster; it lacks\n  %s\n",
			strings.Join(missing, "\n  "))
		return 0, nil
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := os.MkdirTemp("", "postern-pods-")
	if err != nil {
		return 1, err
	}
	shared.dir = dir
	if err := shared.start(ctx); err != nil {
		return 1, errors.Join(err, shared.stop()) // dir stays: the error may tell of logs there
	}
	defer func() { err = errors.Join(err, shared.stop(), os.RemoveAll(dir)) }()
	// A test run that is told to end ends here, and takes the cluster down.
	done := make(chan int, 1)
	go func() { done <- m.Run() }()
	select {
	case code := <-done:
		return code, nil
	case <-ctx.Done():
		return 1, errors.New("interrupted")
	}
}

func (e *environment) start(ctx context.Context) error {
	var err error
	if e.builder, err = build.Here(os.Getenv, os.Stderr); err != nil {
		return err
	}
	e.root = e.builder.Root()
	tarballs := make(chan built, 1)
	go func() { tarballs <- e.images(ctx) }()
	err = e.timed("cluster up", func() error {
		e.cluster, err = cluster.Up(ctx, cluster.Config{
			Builder: e.builder, Dir: filepath.Join(e.dir, "cluster"), Progress: os.Stderr, ExitWithParent: true,
		})
		return err
	})
	images := <-tarballs
	if err := errors.Join(err, images.err); err != nil {
		return err
	}
	if err := e.timed("images imported", func() error { return e.cluster.ImportImages(ctx, images.tarballs...) }); err != nil {
		return err
	}
	for _, tarball := range images.tarballs { // a run that is killed leaves little
		if err := os.Remove(tarball); err != nil {
			return fmt.Errorf("remove an image that is imported: %w", err)
		}
	}
	if err := e.connect(); err != nil {
		return err
	}
	if err := e.timed("OpenBao deployed", func() error {
		e.bao, err = incluster.Deploy(ctx, e.cluster)
		return err
	}); err != nil {
		return err
	}
	if err := e.listenForTraces(ctx); err != nil {
		return err
	}
	return e.install(ctx)
}

// built is what images returns.
type built struct {
	tarballs []string
	err      error
}

// images makes the tarballs of all images that the cluster does not have.
func (e *environment) images(ctx context.Context) built {
	tarballs, err := installation.BuildImages(ctx, e.root, e.dir, os.Stderr)
	if err != nil {
		return built{err: err}
	}
	bao, err := e.builder.Server(ctx, build.Bao())
	if err != nil {
		return built{err: err}
	}
	baoImage := filepath.Join(e.dir, "openbao.tar")
	if err := incluster.Image(bao, baoImage); err != nil {
		return built{err: err}
	}
	awsImage, err := e.awsImage(ctx)
	if err != nil {
		return built{err: err}
	}
	azureImage, err := e.azureImage(ctx)
	if err != nil {
		return built{err: err}
	}
	gcpImage, err := e.gcpImage(ctx)
	if err != nil {
		return built{err: err}
	}
	upstream, err := e.upstreamImages(ctx)
	return built{tarballs: append(append(tarballs, baoImage, awsImage, azureImage, gcpImage), upstream...), err: err}
}

func (e *environment) connect() error {
	config, err := e.cluster.RESTConfig()
	if err != nil {
		return err
	}
	if e.client, err = kubernetes.NewForConfig(config); err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	if e.dynamic, err = dynamic.NewForConfig(config); err != nil {
		return fmt.Errorf("make a dynamic client: %w", err)
	}
	return nil
}

// listenForTraces receives what Postern's pods send.
func (e *environment) listenForTraces(ctx context.Context) error {
	listener, err := e.cluster.Listen(ctx, "tcp", e.cluster.HostIP()+":0")
	if err != nil {
		return err
	}
	e.traces = otlp.New(listener)
	e.values = strings.NewReplacer(
		"${OTLP}", "http://"+listener.Addr().String(), "${TAG}", installation.Version,
		"${AWS_ACCESS_KEY_ID}", adminKeyID, "${AWS_SECRET_ACCESS_KEY}", adminKey,
		"${HOST_IP}", e.cluster.HostIP(), "${AZURE_PROXY}", azurecluster.Proxy,
		"${AZURE_TENANT_ID}", azureTenantID, "${AZURE_CLIENT_ID}", adminClientID, "${AZURE_CLIENT_SECRET}", adminSecret,
		"${GCP_PROXY}", gcpcluster.Proxy, "${GCP_METADATA}", gcpcluster.Metadata, "${GCP_PROJECT}", gcpProject,
	).Replace(valuesTemplate)
	return nil
}

func (e *environment) install(ctx context.Context) error {
	var err error
	e.postern, err = installation.New(ctx, installation.Config{
		Builder: e.builder, Cluster: e.cluster, Root: e.root, Dir: e.dir, Progress: os.Stderr,
	})
	if err != nil {
		return err
	}
	for _, part := range []string{"driver", "gateway", "provider-vault"} {
		if err := e.postern.Tag(ctx, part, nextTag); err != nil {
			return err
		}
	}
	return e.timed("helm install", func() error { return e.postern.Install(ctx, e.values) })
}

func (e *environment) timed(what string, f func() error) error {
	start := time.Now()
	err := f()
	e.took = append(e.took, fmt.Sprintf("%s %.1fs", what, time.Since(start).Seconds()))
	return err
}

func (e *environment) stop() error {
	if e.traces != nil {
		e.traces.Close()
	}
	if e.cluster == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return e.cluster.Down(ctx)
}

// mountsBelow returns the node's mounts at a path and below it.
func (e *environment) mountsBelow(path string) ([]string, error) {
	all, err := e.cluster.Mounts()
	if err != nil {
		return nil, err
	}
	var below []string
	for _, mount := range all {
		if mount.Path == path || strings.HasPrefix(mount.Path, path+"/") {
			below = append(below, mount.String())
		}
	}
	return below, nil
}
