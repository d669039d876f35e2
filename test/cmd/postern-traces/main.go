// Postern-traces is a collector to look at: it takes traces over OTLP/gRPC and
// prints those of kubelet's calls as trees, a moment after their last span.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/postern-dev/postern/test/otlp"
)

// settle is how long a trace has to get no more spans before it is printed: the
// processes send theirs one after the other.
const settle = 2 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "postern-traces:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("postern-traces", flag.ContinueOnError)
	address := flags.String("listen", ":4317", "`address` to receive OTLP/gRPC at")
	if err := flags.Parse(args); err != nil {
		return err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", *address)
	if err != nil {
		return fmt.Errorf("listen for traces: %w", err)
	}
	receiver := otlp.New(listener)
	defer receiver.Close()
	ticker := time.NewTicker(settle / 4)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		for _, trace := range receiver.TakeSettled(settle) {
			if isCall(trace) {
				_, _ = fmt.Fprintln(out, strings.TrimRight(trace.Tree(), "\n")+"\n")
			}
		}
	}
}

// isCall tells whether a trace begins with a call of kubelet.
func isCall(trace otlp.Trace) bool {
	return strings.HasPrefix(trace.Spans[0].Name, "csi.Node")
}
