// Command postern-gateway brings the fetches of a node's driver to the
// providers of that node.
package main

import (
	"os"

	"github.com/postern-dev/postern/gateway/internal/app"
	"github.com/postern-dev/postern/internal/daemon"
)

func main() {
	os.Exit(daemon.Main("postern-gateway", app.Run))
}
