package cluster

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

func TestRemoveKeepsItsHandsOffOtherFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	precious := filepath.Join(dir, "precious")
	if err := os.WriteFile(precious, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Remove(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "not removed") {
		t.Errorf("Remove() = %v, want it refused", err)
	}
	if _, err := os.Stat(precious); err != nil {
		t.Errorf("the file has gone: %v", err)
	}
	if err := Remove(t.Context(), filepath.Join(dir, "nothing-there")); err != nil {
		t.Errorf("Remove() of nothing = %v", err)
	}
}

func TestUpNamesTheFieldThatIsMissing(t *testing.T) {
	t.Parallel()
	if _, err := Up(t.Context(), Config{}); err == nil || !strings.Contains(err.Error(), "Builder") {
		t.Errorf("Up() = %v", err)
	}
}

func TestPollSaysWhatTheMatterWas(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err := poll(ctx, "the cat sleeps", func(ctx context.Context) error {
			if ctx.Err() != nil {
				return ctx.Err() // as a call does whose time is over
			}
			return errors.New("it plays")
		})
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "the cat sleeps") || !strings.Contains(err.Error(), "it plays") {
			t.Errorf("poll() = %v", err)
		}
	})
}

func TestTailsShowsTheEndOfEachLog(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log := "first\n" + strings.Repeat("line\n", tailLines-1) + strings.Repeat("long", 100) + "\n"
	if err := os.WriteFile(filepath.Join(dir, "etcd.log"), []byte(log), 0o600); err != nil {
		t.Fatal(err)
	}
	got := tails(dir, []string{"etcd", "kubelet"})
	for _, want := range []string{filepath.Join(dir, "etcd.log"), "  line\n", "long…", "kubelet has no log"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
	if strings.Contains(got, "first") {
		t.Errorf("more than the end:\n%s", got)
	}
}

func TestImportedNames(t *testing.T) {
	t.Parallel()
	got := importedNames("unpacking docker.io/local/busybox:1 (sha256:49)...done\nunpacking example.com/a@b (sha256:50)...\n\n")
	if diff := cmp.Diff([]string{"docker.io/local/busybox:1", "example.com/a@b"}, got); diff != "" {
		t.Errorf("importedNames() (-want +got):\n%s", diff)
	}
	if got := importedNames("ctr: nothing to do\n"); got != nil {
		t.Errorf("importedNames() = %v, want none", got)
	}
}

// Every value is filled in, and what is YAML is.
func TestConfigurationFiles(t *testing.T) {
	t.Parallel()
	l := layout(filepath.Join(t.TempDir(), "cluster"))
	if err := l.make(); err != nil {
		t.Fatal(err)
	}
	if err := l.writeConfig("worker", "/plugins"); err != nil {
		t.Fatal(err)
	}
	for name, wants := range map[string][]string{
		"containerd.toml":   {pauseImage, containerdSock, `bin_dir = "/plugins"`},
		"cni/pods.conflist": {podCIDR},
		"kubelet.yaml":      {dnsAddress, l.cgroup(), l.pki()},
		"kube-proxy.yaml":   {"hostnameOverride: worker", podCIDR},
		"coredns.yaml":      {coreDNSImage, dnsAddress, "kubernetes " + domain},
	} {
		contents, err := os.ReadFile(filepath.Join(l.config(), name))
		if err != nil {
			t.Error(err)
			continue
		}
		for _, want := range wants {
			if !strings.Contains(string(contents), want) {
				t.Errorf("%s does not contain %q", name, want)
			}
		}
		for i, document := range strings.Split(string(contents), "\n---\n") {
			if filepath.Ext(name) != ".yaml" && filepath.Ext(name) != ".conflist" {
				break
			}
			if err := yaml.UnmarshalStrict([]byte(document), &map[string]any{}); err != nil {
				t.Errorf("%s, document %d: %v", name, i, err)
			}
		}
	}
}

func TestClustersInSeveralDirectoriesHaveSeveralCgroups(t *testing.T) {
	t.Parallel()
	a, b := layout("/a"), layout("/b")
	if a.cgroup() == b.cgroup() || a.cgroup() != layout("/a").cgroup() {
		t.Errorf("cgroups %s and %s", a.cgroup(), b.cgroup())
	}
}
