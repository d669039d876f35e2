package kubelet

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strings"
)

// Mount is a line of /proc/self/mountinfo.
type Mount struct {
	// Path is where it is mounted.
	Path string
	// Type of the filesystem.
	Type string
	// Options of this mount and of its filesystem, in that order.
	Options, FilesystemOptions string
}

// String returns the mount as mount(8) would print it.
func (m Mount) String() string {
	return fmt.Sprintf("%s on %s type %s (%s) (%s)", m.Type, m.Path, m.Type, m.Options, m.FilesystemOptions)
}

// Has tells whether the mount has all of these options.
func (m Mount) Has(options ...string) bool {
	all := strings.Split(m.Options+","+m.FilesystemOptions, ",")
	return !slices.ContainsFunc(options, func(option string) bool { return !slices.Contains(all, option) })
}

// Mounts returns the mounts at path and below it.
func Mounts(path string) ([]Mount, error) {
	return ReadMounts("/proc/self/mountinfo", path)
}

// ReadMounts returns the mounts at path and below it that are in the mountinfo
// file of some process.
func ReadMounts(mountinfo, path string) ([]Mount, error) {
	below := strings.TrimSuffix(path, "/") + "/"
	file, err := os.Open(mountinfo)
	if err != nil {
		return nil, fmt.Errorf("read the mount table: %w", err)
	}
	defer func() { _ = file.Close() }()
	var mounts []Mount
	scanner := bufio.NewScanner(file)
	for scanner.Scan() {
		mount, ok := parse(scanner.Text())
		if ok && (mount.Path == path || strings.HasPrefix(mount.Path, below)) {
			mounts = append(mounts, mount)
		}
	}
	if err := scanner.Err(); err != nil {
		return nil, fmt.Errorf("read the mount table: %w", err)
	}
	return mounts, nil
}

// parse reads a line as proc_pid_mountinfo(5) describes it.
func parse(line string) (Mount, bool) {
	mount, filesystem, ok := strings.Cut(line, " - ")
	left, right := strings.Fields(mount), strings.Fields(filesystem)
	if !ok || len(left) < 6 || len(right) < 3 {
		return Mount{}, false
	}
	// The kernel writes space, tab, newline and backslash in octal.
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	return Mount{
		Path: unescape.Replace(left[4]), Options: left[5], Type: right[0], FilesystemOptions: right[2],
	}, true
}
