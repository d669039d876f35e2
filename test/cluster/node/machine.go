package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// overlays are the directories whose changes go to the disk.
func overlays() []string { return []string{"/etc", "/var/lib"} }

// binds are the directories that are the disk's own: a container's files cannot
// lie on an overlay, and sockets below them have short paths.
func binds() []string { return []string{"/var/lib/kubelet", "/var/lib/containerd", "/var/log"} }

// shadowed are the settings that the kubelet writes but that are the whole
// host's: it gets ordinary files in their place.
func shadowed() []string {
	return []string{
		"vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops",
		"kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes",
	}
}

// prepare makes a machine of the namespaces.
func prepare(ctx context.Context, spec Spec) error {
	if err := unix.Sethostname([]byte(spec.Hostname)); err != nil {
		return fmt.Errorf("set the hostname: %w", err)
	}
	for _, step := range []func(Spec) error{mountKernel, mountDisk, shadow} {
		if err := step(spec); err != nil {
			return err
		}
	}
	// The kubelet has to see what a CSI driver mounts in its pod.
	if err := mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return err
	}
	return network(ctx, spec)
}

// mountKernel mounts what shows this machine's processes, network and memory.
func mountKernel(Spec) error {
	if err := mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return err
	}
	// A new sysfs shows this network, but has no cgroups in it: they are moved over.
	cgroups, err := unix.OpenTree(unix.AT_FDCWD, "/sys/fs/cgroup", unix.OPEN_TREE_CLONE|unix.AT_RECURSIVE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return fmt.Errorf("copy the mounts of /sys/fs/cgroup: %w", err)
	}
	defer func() { _ = unix.Close(cgroups) }()
	if err := mount("sysfs", "/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return err
	}
	if err := unix.MoveMount(cgroups, "", unix.AT_FDCWD, "/sys/fs/cgroup", unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount the copy of /sys/fs/cgroup: %w", err)
	}
	return mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755")
}

// mountDisk mounts the directories of the disk.
func mountDisk(spec Spec) error {
	for _, target := range overlays() {
		upper := filepath.Join(DiskDir(spec.Dir), "upper", target)
		work := filepath.Join(DiskDir(spec.Dir), "work", target)
		if err := makeDirs(upper, work); err != nil {
			return err
		}
		options := "lowerdir=" + target + ",upperdir=" + upper + ",workdir=" + work
		if err := mount("overlay", target, "overlay", 0, options); err != nil {
			return fmt.Errorf("%w; the cluster's directory has to be on a disk's filesystem, such as ext4 or xfs, "+
				"not on an overlay as in a container: choose another", err)
		}
	}
	for _, target := range binds() {
		source := filepath.Join(DiskDir(spec.Dir), target)
		if err := makeDirs(source, target); err != nil {
			return err
		}
		if err := mount(source, target, "", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	return nil
}

// shadow puts ordinary files over what is the whole host's, and over the boot
// id, by which the kubelet sees that the machine has been booted.
func shadow(Spec) error {
	const dir = "/run/shadow"
	files := map[string]string{}
	for _, name := range shadowed() {
		contents, err := os.ReadFile(filepath.Join("/proc/sys", name))
		if errors.Is(err, os.ErrNotExist) {
			continue // a kernel without it
		}
		if err != nil {
			return fmt.Errorf("read a setting of the kernel: %w", err)
		}
		files[name] = string(contents)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/uuid") // another one at each reading
	if err != nil {
		return fmt.Errorf("make a boot id: %w", err)
	}
	files["kernel/random/boot_id"] = string(boot)
	if err := makeDirs(dir); err != nil {
		return err
	}
	for name, contents := range files {
		file := filepath.Join(dir, strings.ReplaceAll(name, "/", "."))
		if err := os.WriteFile(file, []byte(contents), 0o644); err != nil {
			return fmt.Errorf("shadow a setting of the kernel: %w", err)
		}
		if err := mount(file, filepath.Join("/proc/sys", name), "", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	return nil
}

// network brings up the loopback interface with the machine's addresses, adds
// its routes and lets packets pass between pods.
func network(ctx context.Context, spec Spec) error {
	commands := [][]string{{"link", "set", "lo", "up"}}
	for _, address := range spec.Addresses {
		commands = append(commands, []string{"address", "add", address, "dev", "lo"})
	}
	for _, route := range spec.Routes {
		commands = append(commands, append([]string{"route", "add"}, strings.Fields(route)...))
	}
	for _, args := range commands {
		if output, err := exec.CommandContext(ctx, "ip", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, output)
		}
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644); err != nil {
		return fmt.Errorf("let packets pass between pods: %w", err)
	}
	return nil
}

// detach lets go of the disk, so that its files can be removed. Nothing runs any more.
func detach() {
	for _, targets := range [][]string{binds(), overlays()} {
		for _, target := range targets {
			_ = unix.Unmount(target, unix.MNT_DETACH) // not mounted is as good
		}
	}
}

func mount(source, target, kind string, flags uintptr, options string) error {
	if err := unix.Mount(source, target, kind, flags, options); err != nil {
		return fmt.Errorf("mount %s at %s: %w", kind, target, err)
	}
	return nil
}

func makeDirs(dirs ...string) error {
	for _, dir := range dirs {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make a directory of the node: %w", err)
		}
	}
	return nil
}
