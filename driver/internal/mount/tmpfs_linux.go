package mount

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/postern-dev/postern/internal/logkey"
)

const (
	fsType         = "tmpfs"
	selinuxContext = "context"
)

// option is a mount option of tmpfs.
type option struct{ key, value string }

// options returns all mount options but noswap.
func (v *Volume) options() []option {
	options := []option{
		{"size", strconv.FormatInt(v.Size, 10)},
		{"nr_inodes", strconv.FormatInt(v.Inodes, 10)},
		{"mode", fmt.Sprintf("%#o", uint32(v.Mode))},
		{"uid", "0"},
		{"gid", strconv.Itoa(v.GID)},
	}
	if v.SELinuxContext != "" {
		options = append(options, option{selinuxContext, v.SELinuxContext})
	}
	return options
}

// noMountAPIError tells that detached mounts cannot be had at all.
type noMountAPIError struct{ err error }

func (e *noMountAPIError) Error() string { return e.err.Error() }
func (e *noMountAPIError) Unwrap() error { return e.err }

// mountAPIError wraps an error of one of the system calls that came with Linux
// 5.2. A kernel without them says ENOSYS, a seccomp filter EPERM.
func mountAPIError(doing string, err error) error {
	wrapped := fmt.Errorf("%s: %w", doing, err)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		return &noMountAPIError{wrapped}
	}
	return wrapped
}

// detachedTmpfs makes an empty tmpfs that is attached nowhere.
func (m *Mounter) detachedTmpfs(ctx context.Context, step Step, v Volume) (built *Place, err error) {
	if err := step(stepOpenFS); err != nil {
		return nil, mountAPIError("open file system", err)
	}
	fd, err := unix.Fsopen(fsType, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, mountAPIError("open file system", err)
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	if err := step(stepCreateFS); err != nil {
		return nil, err
	}
	if err := m.createTmpfs(ctx, fd, v); err != nil {
		return nil, err
	}
	if err := step(stepMount); err != nil {
		return nil, err
	}
	const attributes = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
	mount, err := unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC, attributes)
	if err != nil {
		return nil, mountAPIError("mount file system", explainFS(fd, err))
	}
	return &Place{fd: mount}, nil
}

func (m *Mounter) createTmpfs(ctx context.Context, fd int, v Volume) error {
	if err := unix.FsconfigSetString(fd, "source", fsType); err != nil {
		return mountAPIError("set source of file system", explainFS(fd, err))
	}
	for _, o := range v.options() {
		err := unix.FsconfigSetString(fd, o.key, o.value)
		if err != nil && o.key == selinuxContext {
			return selinuxError(o.value, explainFS(fd, err))
		}
		if err != nil {
			return mountAPIError("set "+o.key+" of file system", explainFS(fd, err))
		}
	}
	if !m.withoutNoswap.Load() {
		// An option that the kernel does not know is refused alone; the
		// context stays usable.
		err := unix.FsconfigSetFlag(fd, m.cfg.noswap)
		if errors.Is(err, unix.EINVAL) {
			m.rememberNoNoswap(ctx, explainFS(fd, err))
		} else if err != nil {
			return mountAPIError("set noswap of file system", explainFS(fd, err))
		}
	}
	if err := unix.FsconfigCreate(fd); err != nil {
		if v.SELinuxContext != "" && errors.Is(err, unix.EINVAL) {
			return selinuxError(v.SELinuxContext, explainFS(fd, err))
		}
		return mountAPIError("create file system", explainFS(fd, err))
	}
	return nil
}

func (m *Mounter) rememberNoNoswap(ctx context.Context, err error) {
	if !m.withoutNoswap.Swap(true) {
		m.cfg.Logger.WarnContext(ctx, "this kernel's tmpfs has no noswap option (Linux 6.4): secrets can reach the node's swap, if it has any",
			slog.String(logkey.Error, err.Error()))
	}
}

func selinuxError(label string, err error) error {
	return fmt.Errorf("%w: the kernel refuses the label %q; is SELinux enabled on the node?: %w", ErrSELinux, label, err)
}

// explainFS adds what the kernel logged about a file system under construction.
func explainFS(fd int, err error) error {
	buf := make([]byte, 1024)
	n, readErr := unix.Read(fd, buf)
	if readErr != nil || n <= 0 {
		return err
	}
	// A message begins with its level: "e tmpfs: Unknown parameter 'x'".
	message := strings.TrimSpace(string(buf[:n]))
	if _, text, ok := strings.Cut(message, " "); ok {
		message = text
	}
	return fmt.Errorf("%w (%s)", err, message)
}

// mountTmpfs mounts an empty tmpfs at path with mount(2).
func (m *Mounter) mountTmpfs(ctx context.Context, path string, v Volume) error {
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	list := make([]string, 0, 8)
	for _, o := range v.options() {
		if o.key == selinuxContext {
			o.value = `"` + o.value + `"` // a label can hold commas
		}
		list = append(list, o.key+"="+o.value)
	}
	data := strings.Join(list, ",")
	var err error
	if !m.withoutNoswap.Load() {
		if err = unix.Mount(fsType, path, fsType, flags, data+","+m.cfg.noswap); err == nil {
			return nil
		}
		if !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("mount tmpfs: %w", err)
		}
	}
	if err := unix.Mount(fsType, path, fsType, flags, data); err != nil {
		if v.SELinuxContext != "" && errors.Is(err, unix.EINVAL) {
			return selinuxError(v.SELinuxContext, err)
		}
		return fmt.Errorf("mount tmpfs: %w", err)
	}
	if err != nil {
		m.rememberNoNoswap(ctx, err)
	}
	return nil
}
