// Postern-node is process 1 of a test cluster's node. Package cluster starts it
// in new namespaces, with the path of the node's description.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/postern-dev/postern/test/cluster/node"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "postern-node:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return errors.New("usage: postern-node SPEC; it is started by postern-cluster up")
	}
	spec, err := node.ReadSpec(filepath.Dir(args[0]))
	if err != nil {
		return err
	}
	return node.Run(ctx, spec, os.Stdin, os.Stderr)
}
