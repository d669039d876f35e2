package images_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Containerd is who reads the archives on nodes.
func TestArchive_ContainerdImports(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"containerd", "ctr"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("NOT TESTED that containerd takes our images: %v (apt-get install containerd)", err)
		}
	}
	if os.Getuid() != 0 {
		t.Skip("NOT TESTED that containerd takes our images: it needs root")
	}
	ctr := startContainerd(t)
	archive := example(t)
	file := filepath.Join(t.TempDir(), "image.tar")
	digest, err := archive.Write(file)
	if err != nil {
		t.Fatal(err)
	}
	// The snapshotter that copies works on every file system.
	ctr("images", "import", "--snapshotter=native", file)
	lines := strings.Split(ctr("images", "ls"), "\n")
	for _, name := range []string{"docker.io/local/busybox:1", "ghcr.io/a/b:v1"} {
		found := slices.ContainsFunc(lines, func(line string) bool {
			return strings.HasPrefix(line, name+" ") && strings.Contains(line, digest.String()) &&
				strings.Contains(line, "linux/"+runtime.GOARCH)
		})
		if !found {
			t.Errorf("containerd does not have %s with %s:\n%s", name, digest, strings.Join(lines, "\n"))
		}
	}
	root := t.TempDir()
	ctr("images", "mount", "--snapshotter=native", "docker.io/local/busybox:1", root)
	t.Cleanup(func() { ctr("images", "unmount", root) })
	contents, err := os.ReadFile(filepath.Join(root, "etc/data"))
	if err != nil || string(contents) != "for linux/"+runtime.GOARCH {
		t.Errorf("/etc/data = %q, %v", contents, err)
	}
}

// startContainerd runs a containerd of the test's own, and returns how to call
// its client.
func startContainerd(t *testing.T) (ctr func(args ...string) string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "ctr") // short, for the socket's path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket, config, log := filepath.Join(dir, "c.sock"), filepath.Join(dir, "config.toml"), filepath.Join(dir, "log")
	err = os.WriteFile(config, fmt.Appendf(nil, `version = 2
root = "%[1]s/root"
state = "%[1]s/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "%[1]s/c.sock"
[ttrpc]
address = "%[1]s/t.sock"
`, dir), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	output, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = output.Close() })
	daemon := exec.Command("containerd", "--config", config)
	daemon.Stdout, daemon.Stderr = output, output
	daemon.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM} // a test that panics cleans nothing up
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = daemon.Process.Signal(os.Interrupt)
		_ = daemon.Wait() // the signal is what it says
	})
	client := func(args ...string) ([]byte, error) {
		return exec.Command("ctr", append([]string{"--address", socket, "--namespace", "k8s.io"}, args...)...).CombinedOutput()
	}
	await(t, func() bool { _, err := client("version"); return err == nil }, log)
	return func(args ...string) string {
		t.Helper()
		out, err := client(args...)
		if err != nil {
			t.Fatalf("ctr %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
}

// await waits until containerd answers.
func await(t *testing.T, ready func() bool, log string) {
	t.Helper()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(time.Minute)
	for !ready() {
		select {
		case <-ticker.C:
		case <-deadline:
			contents, _ := os.ReadFile(log)
			t.Fatalf("containerd does not answer after a minute; its log:\n%s", contents)
		}
	}
}
