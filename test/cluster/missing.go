package cluster

import (
	"bufio"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Missing says what this machine lacks to run a cluster, a sentence for each
// thing, with what to do about it; nil if it lacks nothing.
func Missing() []string {
	var missing []string
	if runtime.GOOS != "linux" {
		return []string{"a Linux kernel: run this on Linux, or in a virtual machine"}
	}
	if os.Geteuid() != 0 {
		missing = append(missing, "root: run this as root (sudo)")
	} else if !capable(unix.CAP_SYS_ADMIN) || !capable(unix.CAP_NET_ADMIN) {
		missing = append(missing, "CAP_SYS_ADMIN and CAP_NET_ADMIN: this root is confined; run this on a machine or in a privileged container")
	}
	if packages := MissingPackages(); len(packages) > 0 {
		missing = append(missing, fmt.Sprintf("%s: apt-get install -y --no-install-recommends %s",
			strings.Join(packages, ", "), strings.Join(packages, " ")))
	}
	return missing
}

// MissingPackages are the Debian packages that this machine lacks to run a
// cluster.
func MissingPackages() []string {
	var packages []string
	for program, name := range map[string]string{
		"containerd": "containerd", "ctr": "containerd", "runc": "runc", "ip": "iproute2", "nft": "nftables", "nsenter": "util-linux",
	} {
		if _, err := lookPath(program); err != nil {
			packages = append(packages, name)
		}
	}
	if _, err := findCNIPlugins(); err != nil {
		packages = append(packages, "containernetworking-plugins")
	}
	if _, err := findBusybox(); err != nil {
		packages = append(packages, "busybox-static")
	}
	slices.Sort(packages)
	return slices.Compact(packages)
}

// systemPath is where the programs of a machine are. An administrator's programs
// are not on everybody's PATH.
const systemPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func lookPath(program string) (string, error) {
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), filepath.SplitList(systemPath)...) {
		path := filepath.Join(dir, program)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("find %s: %w", program, exec.ErrNotFound)
}

// findCNIPlugins returns the directory of the CNI plugins: Debian's, or that of
// everybody else.
func findCNIPlugins() (string, error) {
	for _, dir := range []string{"/usr/lib/cni", "/opt/cni/bin"} {
		lacks := func(plugin string) bool {
			_, err := os.Stat(filepath.Join(dir, plugin))
			return err != nil
		}
		if !slices.ContainsFunc([]string{"ptp", "host-local", "loopback"}, lacks) {
			return dir, nil
		}
	}
	return "", fmt.Errorf("find the CNI plugins ptp, host-local and loopback in /usr/lib/cni or /opt/cni/bin: %w", os.ErrNotExist)
}

// findBusybox returns the path of a busybox that runs in an empty image.
func findBusybox() (string, error) {
	path, err := lookPath("busybox")
	if err != nil {
		return "", err
	}
	file, err := elf.Open(path)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	defer func() { _ = file.Close() }()
	if slices.ContainsFunc(file.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		return "", fmt.Errorf("%s needs shared libraries: install busybox-static", path)
	}
	return path, nil
}

// capable tells whether this process has a capability.
func capable(capability uint) bool {
	file, err := os.Open("/proc/self/status")
	if err != nil {
		return false
	}
	defer func() { _ = file.Close() }()
	for scanner := bufio.NewScanner(file); scanner.Scan(); {
		if hex, ok := strings.CutPrefix(scanner.Text(), "CapEff:"); ok {
			effective, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
			return err == nil && effective&(1<<capability) != 0
		}
	}
	return false
}
