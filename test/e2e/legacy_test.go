package e2e_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/postern-dev/postern/test/build"
	"github.com/postern-dev/postern/test/process"
)

// A provider made for the upstream driver, of upstream's own protocol package
// and on a socket that only root can connect to, serves through a gateway
// without privileges what it would serve under the upstream driver.
func TestProviderOfTheUpstreamDriver(t *testing.T) {
	t.Parallel()
	program, err := servers.builder.Server(t.Context(), build.UpstreamProvider())
	must(t, err)
	n := startNode(t)
	namespace := tenant(t, nil)
	class(t, namespace, "app", map[string]any{"provider": "upstream", "parameters": map[string]any{"greeting": "hello"}})
	v := pod(t, namespace, "web", "app")

	// The mount waits for the provider, which comes later.
	answer := make(chan error, 1)
	go func() { answer <- n.Kubelet.Publish(t.Context(), v) }()
	socket := n.Path("legacy/upstream.sock")
	must(t, os.Chmod(filepath.Dir(socket), 0o700))
	started, err := process.Start(process.Config{
		Name: "upstreamprovider", Path: program, Args: []string{socket}, LogFile: n.Path("log/upstreamprovider.log"),
	})
	must(t, err)
	t.Cleanup(func() { must(t, started.Stop(10*time.Second)) })
	must(t, <-answer)

	files, err := n.Kubelet.Files(v)
	must(t, err)
	for name, want := range map[string]string{
		"greeting":                               "hello",
		"csi.storage.k8s.io_pod.name":            "web",
		"csi.storage.k8s.io_pod.namespace":       namespace,
		"csi.storage.k8s.io_pod.uid":             v.UID,
		"csi.storage.k8s.io_serviceAccount.name": "web",
		"csi.storage.k8s.io_ephemeral":           "true",
		"secretProviderClass":                    "app",
	} {
		if got := files[name].Contents; got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
		if got := files[name].Mode.Perm(); got != 0o644 {
			t.Errorf("%s: mode %v, want 0644", name, got)
		}
	}
	if len(files["csi.storage.k8s.io_serviceAccount.tokens"].Contents) == 0 {
		t.Error("the provider got no tokens")
	}
	n.unpublish(t, v)
}
