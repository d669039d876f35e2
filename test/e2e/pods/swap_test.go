package pods_test

import (
	"context"
	_ "embed" // a manifest
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/postern-dev/postern/release/images"
	"github.com/postern-dev/postern/test/build"
	"github.com/postern-dev/postern/test/installation"
	"github.com/postern-dev/postern/test/upstream"
)

// upstreamProvider is an image of a provider made for the upstream driver.
const upstreamProvider = "local/upstream-provider:1"

// upstreamProviderManifest runs Postern's Vault provider for upstream's driver.
//
//go:embed testdata/upstream-provider.yaml
var upstreamProviderManifest string

// upstreamImages makes the images of what comes from the upstream project.
func (e *environment) upstreamImages(ctx context.Context) ([]string, error) {
	provider, err := e.builder.Server(ctx, build.UpstreamProvider())
	if err != nil {
		return nil, err
	}
	driver, err := e.builder.Server(ctx, build.UpstreamDriver())
	if err != nil {
		return nil, err
	}
	shell, err := exec.LookPath("busybox")
	if err != nil {
		return nil, fmt.Errorf("find mount for the image of the upstream driver: %w", err)
	}
	var tarballs []string
	for name, layer := range map[string]images.Layer{
		upstreamProvider: {Files: []images.File{{Path: "/program", Source: provider}}, Fast: true},
		upstream.Image: {
			Files: []images.File{{Path: "/program", Source: driver}, {Path: "/bin/busybox", Source: shell}},
			Links: map[string]string{"/bin/mount": "busybox", "/bin/umount": "busybox"}, Fast: true,
		},
	} {
		tarball := filepath.Join(e.dir, fmt.Sprintf("upstream-%d.tar", len(tarballs)))
		_, err := images.Archive{Names: []string{name}, Images: []images.Image{{
			Platform: "linux/" + runtime.GOARCH, Layers: []images.Layer{layer}, Entrypoint: []string{"/program"},
			Env: []string{"PATH=/bin"},
		}}}.Write(tarball)
		if err != nil {
			return nil, fmt.Errorf("make the image %s: %w", name, err)
		}
		tarballs = append(tarballs, tarball)
	}
	return tarballs, nil
}

// Postern takes the upstream driver's place, and gives it back, while pods run:
// each keeps its files, gets changed ones from the new driver, and ends cleanly.
func testHotSwap(t *testing.T) {
	dumpIfFailed(t, system)
	dumpIfFailed(t, upstream.Namespace)
	n := newTenant(t, map[string]any{"password": "first"})
	n.class("app", "password")

	posterns := n.start(n.pod("mounted-by-postern", "app"))
	before := n.identity(posterns, "app")
	must(t, shared.postern.Uninstall(t.Context()))
	podsGone(t, system, "")
	manifests := upstreamManifests(t)
	for _, manifest := range manifests {
		apply(t, "apply", manifest)
	}
	kubectl(t, "-n", upstream.Namespace, "rollout", "status", "daemonset", "--timeout=120s")
	n.keeps(posterns, before, "first")
	n.refreshes(posterns, before, "second")

	upstreams := n.start(n.pod("mounted-by-upstream", "app"))
	n.wantFiles(upstreams, "app", map[string]string{"password": "second"})
	n.delete(posterns, metav1.DeleteOptions{})
	n.left(posterns)

	before = n.identity(upstreams, "app")
	for _, manifest := range slices.Backward(manifests) {
		apply(t, "delete", manifest)
	}
	podsGone(t, upstream.Namespace, "app in (csi-secrets-store,upstream-provider-vault)")
	n.keeps(upstreams, before, "second")
	started := time.Now()
	must(t, shared.postern.Install(t.Context(), shared.values))
	t.Logf("measured: helm install in place of the upstream driver: %s", time.Since(started).Round(10*time.Millisecond))
	n.keeps(upstreams, before, "second")
	n.refreshes(upstreams, before, "third")
	n.delete(upstreams, metav1.DeleteOptions{})
	n.left(upstreams)
}

// keeps fails the test unless a volume is the mount that it was, with the
// content that it had, as the node and as the pod see it.
func (n *tenant) keeps(pod *corev1.Pod, identity, password string) {
	n.t.Helper()
	if now := n.identity(pod, "app"); now != identity {
		n.t.Errorf("the volume of %s was %s and is %s", pod.Name, identity, now)
	}
	n.wantFiles(pod, "app", map[string]string{"password": password})
	if got := n.exec(pod.Name, "cat", "/secrets/app/password"); got != password {
		n.t.Errorf("%s reads %q, want %q", pod.Name, got, password)
	}
}

// refreshes changes the secret and waits until a pod's volume, which is to stay
// the same mount, has it.
func (n *tenant) refreshes(pod *corev1.Pod, identity, password string) {
	n.t.Helper()
	n.putSecret(map[string]any{"password": password})
	n.eventuallyFiles(pod, "app", map[string]string{"password": password})
	n.keeps(pod, identity, password)
}

// upstreamManifests returns the upstream project's own manifests of its driver.
// What is changed in them is what its users can set: tokens of the audience that
// the Vault provider wants, and rotation, which is to come soon.
func upstreamManifests(t *testing.T) []string {
	t.Helper()
	manifests := []string{strings.ReplaceAll(upstreamProviderManifest, "${TAG}", installation.Version)}
	paths, err := upstream.Manifests(t.Context(), shared.root)
	must(t, err)
	for _, path := range paths {
		manifest, err := os.ReadFile(path)
		must(t, err)
		if strings.Contains(string(manifest), "kind: CustomResourceDefinition") {
			continue // they stay, whoever is installed
		}
		manifests = append(manifests, strings.NewReplacer(
			"requiresRepublish: true", "requiresRepublish: true\n  tokenRequests: [{audience: vault}]",
			"--enable-secret-rotation=false", "--enable-secret-rotation=true",
			"--rotation-poll-interval=2m", "--rotation-poll-interval=5s",
		).Replace(string(manifest)))
	}
	return manifests
}

// apply does what "kubectl apply" and the like do with a manifest.
func apply(t *testing.T, verb, manifest string) {
	t.Helper()
	cmd := shared.cluster.Command(t.Context(), "kubectl", verb, "-f", "-")
	cmd.Stdin = strings.NewReader(manifest)
	if out, err := output(cmd); err != nil {
		t.Fatalf("kubectl %s: %v\n%s", verb, err, out)
	}
}

// podsGone waits until a namespace has no pod of this selector.
func podsGone(t *testing.T, namespace, selector string) {
	t.Helper()
	eventually(t, 2*time.Minute, "the pods of "+namespace+" to be gone", func(ctx context.Context) error {
		list, err := shared.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
		if err != nil {
			return err
		}
		if len(list.Items) > 0 {
			return fmt.Errorf("%d are there, such as %s", len(list.Items), list.Items[0].Name)
		}
		return nil
	})
}
