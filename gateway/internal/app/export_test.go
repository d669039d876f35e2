package app

import "github.com/postern-dev/postern/internal/daemon"

// Flags returns the gateway's flags.
func Flags() *daemon.Flags { return new(arguments).flags() }
