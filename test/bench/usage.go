package bench

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-dev/postern/test/process"
)

// userHZ is the unit of times in /proc/<pid>/stat on every Linux.
const userHZ = 100

// cpuTime is what processes have used, user and system, with those of their
// children that have ended: upstream's driver runs mount(8).
func cpuTime(processes ...*process.Process) (time.Duration, error) {
	var sum time.Duration
	for _, p := range processes {
		own, err := ownTime(p.PID())
		if err != nil {
			return 0, fmt.Errorf("read the processor time of %s: %w", p.Name(), err)
		}
		children, err := childrenTime(p.PID())
		if err != nil {
			return 0, fmt.Errorf("read the processor time of %s: %w", p.Name(), err)
		}
		sum += own + children
	}
	return sum, nil
}

// ownTime reads the process's clock, which counts nanoseconds; /proc has ticks
// of 10 ms.
func ownTime(pid int) (time.Duration, error) {
	// As clock_getcpuclockid(3) makes the clock's number of a process's.
	const scheduled = 2
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|scheduled), &t); err != nil {
		return 0, err
	}
	return time.Duration(t.Nano()), nil
}

// childrenTime is that of the children that were waited for.
func childrenTime(pid int) (time.Duration, error) {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	return parseChildrenTime(string(stat))
}

// parseChildrenTime reads cutime and cstime, the 16th and 17th field of
// proc_pid_stat(5). The second is the program's name, in which anything may be.
func parseChildrenTime(stat string) (time.Duration, error) {
	_, after, ok := strings.Cut(stat[strings.LastIndexByte(stat, ')')+1:], " ")
	fields := strings.Fields(after)
	const cutime, cstime = 13, 14
	if !ok || len(fields) <= cstime {
		return 0, fmt.Errorf("%d fields after the program's name in stat", len(fields))
	}
	var ticks int64
	for _, field := range []string{fields[cutime], fields[cstime]} {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("time in stat: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / userHZ, nil
}

// memory is what processes have resident, in bytes.
type memory struct{ all, anonymous int64 }

func memoryOf(processes ...*process.Process) (memory, error) {
	var m memory
	for _, p := range processes {
		status, err := p.Status()
		if err != nil {
			return m, err
		}
		for key, sum := range map[string]*int64{"VmRSS": &m.all, "RssAnon": &m.anonymous} {
			number, ok := strings.CutSuffix(status[key], " kB")
			kib, err := strconv.ParseInt(number, 10, 64)
			if !ok || err != nil {
				return m, fmt.Errorf("%s of %s is %q, not a number of kB", key, p.Name(), status[key])
			}
			*sum += kib * 1024
		}
	}
	return m, nil
}
