package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/postern-dev/postern/test/build"
	"github.com/postern-dev/postern/test/cluster"
	"github.com/postern-dev/postern/test/cluster/node"
)

// reboot ends all processes and empties memory, and pods run again.
func reboot(t *testing.T, c *cluster.Cluster) {
	const marker = "/run/gone-after-a-reboot"
	run(t, c, "touch", marker, "/var/lib/kubelet/still-there")
	bootID := func() string {
		contents, err := os.ReadFile(c.NodePath("/proc/sys/kernel/random/boot_id"))
		if err != nil {
			t.Fatal(err)
		}
		return string(contents)
	}
	was := bootID()
	if err := c.Reboot(t.Context()); err != nil {
		t.Fatalf("Reboot() = %v", err)
	}
	if bootID() == was {
		t.Error("the boot id is the same")
	}
	if _, err := os.Stat(c.NodePath(marker)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file in memory after the reboot: %v", err)
	}
	if _, err := os.Stat(c.NodePath("/var/lib/kubelet/still-there")); err != nil {
		t.Errorf("a file on the disk after the reboot: %v", err)
	}
	pods := client(t, c).CoreV1().Pods("default")
	eventually(t, "every pod runs again", func() error {
		list, err := pods.List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, pod := range list.Items {
			if s := pod.Status.ContainerStatuses; len(s) != 1 || s[0].RestartCount != 1 || !s[0].Ready {
				return fmt.Errorf("%s: %+v", pod.Name, s)
			}
		}
		if len(list.Items) != 2 {
			return fmt.Errorf("%d pods, want 2", len(list.Items))
		}
		return nil
	})
	eventually(t, "a pod reads from a Service again", func() error {
		output, err := c.Command(t.Context(), "kubectl", "exec", "client", "--", "wget", "-q", "-O", "-", "http://web").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, output)
		}
		return equal(string(output), "hello\n")
	})
	mountedTokens(t, c)
}

// mountedTokens sees the pods' volumes in the node's mount table, and not in the
// host's.
func mountedTokens(t *testing.T, c *cluster.Cluster) {
	mounts, err := c.Mounts()
	if err != nil {
		t.Fatal(err)
	}
	tokens := 0
	for _, m := range mounts {
		if strings.HasPrefix(m.Path, "/var/lib/kubelet/pods/") && strings.Contains(m.Path, "kube-api-access") {
			tokens++
		}
	}
	if tokens < 3 { // two pods' and CoreDNS's
		t.Errorf("%d tokens of pods are mounted, want 3:\n%v", tokens, mounts)
	}
}

// cannotStart says what the matter is, and leaves nothing but the logs.
func cannotStart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cluster")
	broken := filepath.Join(t.TempDir(), "broken.tar")
	if err := os.WriteFile(broken, []byte("this is no image"), 0o600); err != nil {
		t.Fatal(err)
	}
	builder, err := build.Here(os.Getenv, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	_, err = cluster.Up(t.Context(), cluster.Config{
		Builder: builder, Dir: dir, Progress: t.Output(), ExitWithParent: true, Images: []string{broken},
	})
	for _, want := range []string{"broken.tar", dir + "-failed-logs", "containerd.log"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Up() = %v\nwant it to name %s", err, want)
		}
	}
	if logs, err := filepath.Glob(dir + "-failed-logs/*.log"); err != nil || len(logs) < 3 {
		t.Errorf("the logs that are kept: %v, %v", logs, err)
	}
	nothingLeft(t, dir, nil)
}

// parentDies kills a process that is starting a cluster.
func parentDies(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cluster")
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), parentEnv+"="+dir)
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // in case the test fails
		if err := cluster.Remove(context.Background(), dir); err != nil {
			t.Errorf("Remove() = %v", err)
		}
	})
	eventually(t, "the cluster's components run", func() error {
		_, err := node.ReadStatus(dir)
		return err
	})
	inside := lookInside(t, dir)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	eventually(t, "the cluster has gone", func() error {
		if _, err := os.Stat(dir); err == nil {
			return errors.New("its directory is there")
		}
		return nil
	})
	nothingLeft(t, dir, inside)
}
