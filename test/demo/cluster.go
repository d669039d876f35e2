package demo

import (
	"context"
	_ "embed" // manifests
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/postern-dev/postern/release/images"
	"github.com/postern-dev/postern/test/build"
	"github.com/postern-dev/postern/test/cluster"
	"github.com/postern-dev/postern/test/installation"
	"github.com/postern-dev/postern/test/openbao"
	"github.com/postern-dev/postern/test/openbao/incluster"
)

// stepTimeout is how long a pod may take to print something new.
const stepTimeout = 2 * time.Minute

// What the demo puts into its cluster.
var (
	//go:embed cluster/values.yaml
	clusterValues string
	//go:embed cluster/class.yaml
	clusterClass string
	//go:embed cluster/app.yaml
	clusterApp string
	//go:embed cluster/traces.yaml
	clusterTraces string
)

// clusterDemo is the demo in a real cluster.
type clusterDemo struct {
	*tools

	dir     string
	cluster *cluster.Cluster
	bao     *incluster.Server
	postern *installation.Installation
}

// Cluster is the demo with real pods: a Kubernetes cluster of one node, OpenBao in
// it, and Postern installed by its charts.
func Cluster(ctx context.Context, cfg Config) error {
	if missing := cluster.Missing(); len(missing) > 0 {
		return fmt.Errorf("this machine cannot run a cluster; it lacks\n  %s", strings.Join(missing, "\n  "))
	}
	t, err := prepare(cfg, "This runs a whole Kubernetes cluster of one node on this machine, in namespaces of its own.")
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "postern-demo-")
	if err != nil {
		return fmt.Errorf("make the demo's directory: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	d := &clusterDemo{tools: t, dir: dir}
	return d.run(ctx)
}

func (d *clusterDemo) run(ctx context.Context) (err error) {
	tarballs, err := d.buildImages(ctx)
	if err != nil {
		return err
	}
	if err := d.start(ctx, tarballs); err != nil {
		return err
	}
	defer func() { err = d.finish(ctx, err) }()
	for _, step := range []func(context.Context) error{
		d.deployServers, d.install, d.fillStore, d.deployApp, d.showApp, d.showTrace, d.rotate, d.showPods,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (d *clusterDemo) buildImages(ctx context.Context) ([]string, error) {
	d.tell.title("Build the images from this tree, and of OpenBao and of a collector for traces")
	d.tell.say("the first time this takes some ten minutes, then seconds")
	bao, err := d.builder.Server(ctx, build.Bao())
	if err != nil {
		return nil, err
	}
	programs, err := d.builder.Programs(ctx, "traces", "./test/cmd/postern-traces")
	if err != nil {
		return nil, err
	}
	tarballs, err := installation.BuildImages(ctx, d.root, d.dir, d.cfg.Progress)
	if err != nil {
		return nil, err
	}
	for _, tarball := range tarballs {
		info, err := os.Stat(tarball)
		if err != nil {
			return nil, err
		}
		d.tell.say("%-45s %5.1f MB", filepath.Base(tarball), float64(info.Size())/1e6)
	}
	store, traces := filepath.Join(d.dir, "openbao.tar"), filepath.Join(d.dir, "traces.tar")
	err = errors.Join(incluster.Image(bao, store), tracesImage(filepath.Join(programs, "postern-traces"), traces))
	return append(tarballs, store, traces), err
}

func tracesImage(program, tarball string) error {
	_, err := images.Archive{
		Names: []string{"local/traces:1"},
		Images: []images.Image{{
			Platform:   "linux/" + runtime.GOARCH,
			Layers:     []images.Layer{{Files: []images.File{{Path: "/postern-traces", Source: program}}, Fast: true}},
			Entrypoint: []string{"/postern-traces"},
			User:       "65532:65532",
		}},
	}.Write(tarball)
	if err != nil {
		return fmt.Errorf("make the image of the collector: %w", err)
	}
	return nil
}

// start starts the cluster where "make cluster-shell" and "make cluster-down" look
// for it. A demo that is killed takes it down unless it is to be kept.
func (d *clusterDemo) start(ctx context.Context, tarballs []string) error {
	d.tell.title("Start Kubernetes")
	var err error
	d.cluster, err = cluster.Up(ctx, cluster.Config{
		Builder: d.builder, Dir: filepath.Join(d.builder.Cache(), "cluster"), Images: tarballs,
		Progress: d.cfg.Progress, ExitWithParent: !d.cfg.Keep,
	})
	if errors.Is(err, cluster.ErrRunning) {
		return fmt.Errorf("%w: end it with make cluster-down", err)
	}
	return err
}

func (d *clusterDemo) deployServers(ctx context.Context) (err error) {
	d.tell.title("Deploy OpenBao, which serves Vault's API, and a collector for traces")
	if d.bao, err = incluster.Deploy(ctx, d.cluster); err != nil {
		return err
	}
	d.tell.say("OpenBao is at %s for pods", incluster.Address)
	if err := d.apply(ctx, clusterTraces); err != nil {
		return err
	}
	_, err = d.kubectl(ctx, "-n", "observability", "rollout", "status", "deployment/traces", "--timeout=90s")
	return err
}

func (d *clusterDemo) install(ctx context.Context) (err error) {
	d.tell.title("helm install postern charts/postern, with these values")
	values := strings.ReplaceAll(clusterValues, "${TAG}", installation.Version)
	d.tell.quote(values)
	d.postern, err = installation.New(ctx, installation.Config{
		Builder: d.builder, Cluster: d.cluster, Root: d.root, Dir: d.dir, Progress: d.cfg.Progress,
	})
	if err != nil {
		return err
	}
	started := time.Now()
	if err := d.postern.Install(ctx, values); err != nil {
		return err
	}
	d.tell.say("driver, gateway and the Vault provider are ready after %.1f s", time.Since(started).Seconds())
	return nil
}

func (d *clusterDemo) fillStore(ctx context.Context) error {
	d.tell.title("In Vault: a secret, a policy, a role for the pod's service account")
	d.tell.say("vault kv put secret/app username=bob password=p4ssw0rd")
	d.tell.say("policy app: read secret/data/app")
	d.tell.say("role app: service account shop/web, tokens for audience vault")
	return errors.Join(
		d.bao.PutSecret(ctx, "app", map[string]any{"username": "bob", "password": "p4ssw0rd"}),
		d.bao.PutPolicy(ctx, "app", `path "secret/data/app" { capabilities = ["read"] }`),
		d.bao.PutRole(ctx, openbao.Role{
			Name: "app", Namespace: "shop", ServiceAccount: "web", Audience: "vault", Policies: []string{"app"},
		}),
	)
}

func (d *clusterDemo) deployApp(ctx context.Context) error {
	d.tell.title("In Kubernetes: a SecretProviderClass, and a Deployment that mounts it and prints its password")
	d.tell.quote(clusterClass)
	_, deployment, _ := strings.Cut(clusterApp, "---\n")
	d.tell.quote(deployment)
	started := time.Now()
	if err := d.apply(ctx, clusterClass+"---\n"+clusterApp); err != nil {
		return err
	}
	if _, err := d.kubectl(ctx, "-n", "shop", "rollout", "status", "deployment/web", "--timeout=90s"); err != nil {
		return err
	}
	d.tell.say("the pod runs after %.1f s", time.Since(started).Seconds())
	return nil
}

func (d *clusterDemo) showApp(ctx context.Context) error {
	d.tell.title("What the pod finds (the contents are the demo's own: nothing of this is secret)")
	listing, err := d.kubectl(ctx, "-n", "shop", "exec", "deploy/web", "--", "ls", "-l", "/mnt/secrets")
	if err != nil {
		return err
	}
	d.tell.quote("$ kubectl -n shop exec deploy/web -- ls -l /mnt/secrets\n" + listing)
	printed, err := d.waitForLog(ctx, "web", "p4ssw0rd")
	if err != nil {
		return err
	}
	d.tell.quote("$ kubectl -n shop logs deploy/web\n" + printed)
	return nil
}

func (d *clusterDemo) showTrace(ctx context.Context) error {
	d.tell.title("The mount's trace: who did what, and how long it took")
	var tree string
	err := d.poll(ctx, "the mount's trace", func() (bool, error) {
		logs, err := d.kubectl(ctx, "-n", "observability", "logs", "deploy/traces")
		for trace := range strings.SplitSeq(logs, "\n\n") {
			if strings.Contains(trace, "csi.NodePublishVolume") && strings.Contains(trace, "provider.Fetch") {
				tree = trace
				return true, nil
			}
		}
		return false, err
	})
	for line := range strings.Lines(tree) {
		d.tell.say("%s", strings.TrimRight(line, "\n"))
	}
	return err
}

func (d *clusterDemo) rotate(ctx context.Context) error {
	d.tell.title("The secret changes in Vault; the pod goes on and finds the new one")
	d.tell.say("vault kv put secret/app username=bob password=n3w-p4ssw0rd")
	started := time.Now()
	if err := d.bao.PutSecret(ctx, "app", map[string]any{"username": "bob", "password": "n3w-p4ssw0rd"}); err != nil {
		return err
	}
	printed, err := d.waitForLog(ctx, "web", "n3w-p4ssw0rd")
	if err != nil {
		return err
	}
	d.tell.say("after %.0f s (the values above say 5 s, and kubelet calls every few seconds here; elsewhere about once a minute)",
		time.Since(started).Seconds())
	d.tell.quote("$ kubectl -n shop logs deploy/web\n" + printed)
	return nil
}

func (d *clusterDemo) showPods(ctx context.Context) error {
	d.tell.title("What runs in the cluster")
	pods, err := d.kubectl(ctx, "get", "pods", "--all-namespaces")
	d.tell.quote(pods)
	return err
}

// finish takes everything away again, or says how to look around.
func (d *clusterDemo) finish(ctx context.Context, err error) error {
	if d.cfg.Keep && err == nil {
		d.lookAround()
		return nil
	}
	if err == nil {
		d.tell.title("Take everything away")
	}
	err = errors.Join(err, d.cluster.Down(context.WithoutCancel(ctx)))
	return d.end(err)
}

func (d *clusterDemo) lookAround() {
	d.tell.title("The cluster stays. Look around:")
	d.tell.say("make cluster-shell            a shell on the node, where kubectl works and these can be run:")
	d.tell.say("  kubectl get pods -A")
	d.tell.say("  kubectl -n postern-system logs daemonset/postern-gateway")
	d.tell.say("  kubectl -n shop describe secretproviderclasspodstatus")
	d.tell.say("  kubectl -n observability logs deploy/traces           every mount and refresh as a tree")
	d.tell.say("  kubectl get --raw /api/v1/namespaces/postern-system/pods/$(kubectl -n postern-system get pods " +
		"-l app=secrets-store-csi-driver -o jsonpath={.items[0].metadata.name}):8095/proxy/metrics")
	d.tell.say("make cluster-down             ends it, and nothing of it is left")
}

// waitForLog waits until the log of a deployment holds text, and returns its end.
func (d *clusterDemo) waitForLog(ctx context.Context, deployment, text string) (string, error) {
	var log string
	err := d.poll(ctx, fmt.Sprintf("%q in the log of %s", text, deployment), func() (bool, error) {
		var err error
		log, err = d.kubectl(ctx, "-n", "shop", "logs", "deploy/"+deployment, "--tail=3")
		return strings.Contains(log, text), err
	})
	return log, err
}

// poll asks until done says yes.
func (d *clusterDemo) poll(ctx context.Context, what string, done func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	ticker := time.NewTicker(500 * time.Millisecond)
	defer ticker.Stop()
	for {
		ok, err := done()
		if ok {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("wait for %s: %w", what, ctx.Err()), err)
		}
	}
}

func (d *clusterDemo) apply(ctx context.Context, manifests string) error {
	cmd := d.cluster.Command(ctx, "kubectl", "apply", "-f", "-")
	cmd.Stdin = strings.NewReader(manifests)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("kubectl apply: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

func (d *clusterDemo) kubectl(ctx context.Context, args ...string) (string, error) {
	out, err := d.cluster.Command(ctx, "kubectl", args...).Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("%w: %s", err, strings.TrimSpace(string(exit.Stderr)))
	}
	if err != nil {
		return "", fmt.Errorf("kubectl %s: %w", strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}
