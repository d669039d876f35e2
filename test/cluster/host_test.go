package cluster_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-dev/postern/test/cluster"
	"github.com/postern-dev/postern/test/cluster/node"
	"github.com/postern-dev/postern/test/kubelet"
)

// host is what a cluster could change on the host.
type host struct {
	Hostname           string
	Interfaces, Mounts []string
	Directories        []string
	Settings           map[string]string
}

func lookAtHost(t *testing.T) host {
	t.Helper()
	h := host{Settings: map[string]string{}}
	var err error
	if h.Hostname, err = os.Hostname(); err != nil {
		t.Fatal(err)
	}
	interfaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range interfaces {
		h.Interfaces = append(h.Interfaces, i.Name)
	}
	mounts, err := kubelet.Mounts("/")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mounts {
		if !strings.HasPrefix(m.Path, os.TempDir()) { //nolint:usetesting // other tests mount below it, this one does not
			h.Mounts = append(h.Mounts, m.String())
		}
	}
	for _, dir := range []string{ // where its components write
		"/etc/cni", "/etc/containerd", "/etc/kubernetes", "/opt/cni", "/opt/containerd", "/run/cni", "/run/containerd",
		"/run/flannel", "/run/netns", "/run/shadow", "/usr/libexec/kubernetes", "/var/lib/cni", "/var/lib/containerd",
		"/var/lib/etcd", "/var/lib/kubelet", "/var/lib/kube-proxy", "/var/log/containers", "/var/log/pods",
	} {
		if _, err := os.Stat(dir); err == nil {
			h.Directories = append(h.Directories, dir)
		}
	}
	for _, name := range []string{
		"vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops", "kernel/random/boot_id",
		"kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes", "net/ipv4/ip_forward",
	} {
		contents, err := os.ReadFile(filepath.Join("/proc/sys", name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		h.Settings[name] = string(contents)
	}
	return h
}

func (h host) compare(t *testing.T, now host) {
	t.Helper()
	if diff := cmp.Diff(h, now); diff != "" {
		t.Errorf("the host has changed (-before +after):\n%s", diff)
	}
}

// lookInside returns the namespaces of the cluster's process 1.
func lookInside(t *testing.T, dir string) []string {
	t.Helper()
	for _, pid := range processes(t) {
		cmdline, err := os.ReadFile(filepath.Join("/proc", pid, "cmdline"))
		if err == nil && strings.HasSuffix(string(cmdline), "\x00"+node.SpecFile(dir)+"\x00") {
			return namespaces(pid)
		}
	}
	t.Fatalf("no process 1 of the cluster in %s", dir)
	return nil
}

// nothingLeft fails if a process is in one of the namespaces, or if there is a
// cgroup or a file of the cluster that was in dir.
func nothingLeft(t *testing.T, dir string, inside []string) {
	t.Helper()
	eventually(t, "no process is in the cluster's namespaces", func() error {
		for _, pid := range processes(t) {
			for _, namespace := range namespaces(pid) {
				if slices.Contains(inside, namespace) {
					name, _ := os.ReadFile(filepath.Join("/proc", pid, "cmdline"))
					return fmt.Errorf("process %s (%q) is in %s", pid, name, namespace)
				}
			}
		}
		return nil
	})
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is there: %v", dir, err)
	}
	found, err := filepath.Glob("/sys/fs/cgroup/*/" + cluster.CgroupOf(dir))
	if err != nil {
		t.Fatal(err)
	}
	unified, err := filepath.Glob("/sys/fs/cgroup/" + cluster.CgroupOf(dir))
	if err != nil {
		t.Fatal(err)
	}
	if found = append(found, unified...); len(found) > 0 {
		t.Errorf("cgroups are left: %v", found)
	}
}

func processes(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	var pids []string
	for _, entry := range entries {
		if _, err := strconv.Atoi(entry.Name()); err == nil {
			pids = append(pids, entry.Name())
		}
	}
	return pids
}

// namespaces returns those of a process; none if it has just ended.
func namespaces(pid string) []string {
	var all []string
	for _, kind := range []string{"mnt", "pid", "net", "uts"} {
		if namespace, err := os.Readlink(filepath.Join("/proc", pid, "ns", kind)); err == nil {
			all = append(all, namespace)
		}
	}
	return all
}
