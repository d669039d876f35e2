package bench

import (
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Machine is where it was measured.
type Machine struct {
	Processor, Kernel string
	Cores             int
	Memory            uint64
	// Load is the average of the minute before.
	Load string
}

func thisMachine() (Machine, error) {
	m := Machine{Cores: runtime.NumCPU(), Processor: runtime.GOARCH}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return m, fmt.Errorf("ask what the machine has: %w", err)
	}
	m.Memory = info.Totalram * uint64(info.Unit)
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return m, fmt.Errorf("ask what the kernel is: %w", err)
	}
	m.Kernel = unix.ByteSliceToString(name.Release[:])
	cpus, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return m, fmt.Errorf("ask what the processor is: %w", err)
	}
	for line := range strings.Lines(string(cpus)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			m.Processor = strings.TrimSpace(value)
			break
		}
	}
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return m, fmt.Errorf("ask how busy the machine is: %w", err)
	}
	m.Load, _, _ = strings.Cut(string(load), " ")
	return m, nil
}

// String describes the machine in one line.
func (m Machine) String() string {
	const gibibyte = 1 << 30
	return fmt.Sprintf("%d cores (%s), %d GiB, Linux %s, load before the run %s", m.Cores, m.Processor, (m.Memory+gibibyte/2)/gibibyte, m.Kernel, m.Load)
}
