//go:build faultinjection && linux

package app

import (
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/postern-dev/postern/internal/logkey"
)

// faultFileEnv names a file with a number: before the step of that number,
// counted from 1 over all publishes, the process removes the file and kills
// itself. Without the file nothing happens.
const faultFileEnv = "POSTERN_FAULT_FILE"

// newObserver kills the process at the step that a test asks for. It is in
// drivers only that are built with the tag "faultinjection".
func newObserver(logger *slog.Logger) func(step string) {
	file := os.Getenv(faultFileEnv)
	if file == "" {
		return nil
	}
	var mu sync.Mutex
	steps := 0
	return func(step string) {
		mu.Lock()
		defer mu.Unlock()
		content, err := os.ReadFile(file)
		if err != nil {
			steps = 0
			return
		}
		steps++
		if strconv.Itoa(steps) != strings.TrimSpace(string(content)) {
			return
		}
		logger.Warn("killed by fault injection", logkey.Name, step)
		if err := os.Remove(file); err != nil {
			logger.Warn("fault file stays", logkey.Error, err)
		}
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // the signal is on its way
	}
}
