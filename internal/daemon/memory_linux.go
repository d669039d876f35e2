package daemon

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// dropProgram takes the pages of the running program out of this process.
// It works for a process that is not dumpable too: the files of /proc/self that
// it reads may be read by everybody whom the kernel lets look at the process,
// and that is always the process itself.
func dropProgram() error {
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("find the own program: %w", err)
	}
	maps, err := os.Open("/proc/self/smaps")
	if err != nil {
		return fmt.Errorf("find the program in memory: %w", err)
	}
	defer func() { _ = maps.Close() }() // it was only read
	mappings, err := readMappings(maps)
	if err != nil {
		return fmt.Errorf("find the program in memory: %w", err)
	}
	var errs []error
	for _, m := range mappings {
		if m.path == program && m.droppable() {
			errs = append(errs, m.drop())
		}
	}
	return errors.Join(errs...)
}

// mapping is a range of the process' memory.
type mapping struct {
	start, end uintptr
	// access is such as r-xp.
	access string
	// path is the file's.
	path string
	// own is how much is in memory or swap and not in the file, in KiB, which
	// says nothing unless counted is set.
	own     uint64
	counted bool
}

// droppable tells whether all of m is in its file. A linker may have filled in
// addresses before the pages became read-only (a position-independent program
// has such), and a debugger its breakpoints: without those pages the process
// would not survive.
func (m mapping) droppable() bool {
	return (m.access == "r-xp" || m.access == "r--p") && m.counted && m.own == 0
}

// drop takes the mapping's pages out of the process. Memory that is locked
// refuses the first advice (EINVAL) and, before Linux 5.18, the second one too:
// there the program stays.
func (m mapping) drop() error {
	for _, advice := range []uintptr{unix.MADV_DONTNEED, unix.MADV_DONTNEED_LOCKED} {
		_, _, errno := unix.Syscall(unix.SYS_MADVISE, m.start, m.end-m.start, advice)
		switch errno {
		case 0:
			return nil
		case unix.EINVAL:
		default:
			return fmt.Errorf("drop %s at %x: %w", m.path, m.start, errno)
		}
	}
	return nil
}

// readMappings reads what /proc/<pid>/smaps says.
func readMappings(smaps io.Reader) ([]mapping, error) {
	var mappings []mapping
	lines := bufio.NewScanner(smaps)
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), " ")
		switch {
		case !strings.HasSuffix(key, ":"):
			m, err := parseMapping(lines.Text())
			if err != nil {
				return nil, err
			}
			mappings = append(mappings, m)
		case key == "Anonymous:", key == "Swap:":
			kib, err := strconv.ParseUint(strings.TrimSpace(strings.TrimSuffix(value, " kB")), 10, 64)
			if err != nil || len(mappings) == 0 {
				return nil, fmt.Errorf("%q is not the size of a mapping", lines.Text())
			}
			last := &mappings[len(mappings)-1]
			last.own += kib
			last.counted = last.counted || key == "Anonymous:"
		}
	}
	return mappings, lines.Err()
}

// parseMapping reads the line that begins a mapping: range, access, offset,
// device, inode, and the path where it is a file's, which may hold spaces.
func parseMapping(line string) (mapping, error) {
	fields := strings.SplitN(line, " ", 6)
	from, to, _ := strings.Cut(fields[0], "-")
	start, errStart := strconv.ParseUint(from, 16, strconv.IntSize)
	end, errEnd := strconv.ParseUint(to, 16, strconv.IntSize)
	if errStart != nil || errEnd != nil || end < start || len(fields) < 5 {
		return mapping{}, fmt.Errorf("%q is not a mapping", line)
	}
	m := mapping{start: uintptr(start), end: uintptr(end), access: fields[1]}
	if len(fields) == 6 {
		m.path = strings.TrimLeft(fields[5], " ")
	}
	return m, nil
}
