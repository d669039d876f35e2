// Postern-driver is the node driver: a CSI driver that mounts secrets.
package main

import (
	"os"

	"github.com/postern-dev/postern/driver/internal/app"
	"github.com/postern-dev/postern/internal/daemon"
)

func main() {
	os.Exit(daemon.Main("postern-driver", app.Run))
}
