// Livenessprobe answers /healthz with what a CSI driver's Probe says. It stands
// in for the sidecar of that name in the test cluster and takes the arguments
// that the project's charts give it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "livenessprobe:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("livenessprobe", flag.ContinueOnError)
	driver := flags.String("csi-address", "/run/csi/socket", "the driver's `socket`")
	timeout := flags.Duration("probe-timeout", time.Second, "how long a Probe may take")
	port := flags.Int("health-port", 9808, "`port` of /healthz, on all addresses")
	address := flags.String("http-endpoint", "", "`address` of /healthz, instead of a port")
	flags.Int("v", 0, "ignored")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *address == "" {
		*address = ":" + strconv.Itoa(*port)
	}
	conn, err := grpc.NewClient("unix:"+*driver, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("connect to the driver: %w", err)
	}
	defer func() { _ = conn.Close() }()
	mux := http.NewServeMux()
	mux.Handle("/healthz", health{driver: csi.NewIdentityClient(conn), timeout: *timeout})
	server := &http.Server{Addr: *address, Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve /healthz: %w", err)
	}
	return nil
}

// health answers 200 if the driver is ready, else 500 with the reason.
type health struct {
	driver  csi.IdentityClient
	timeout time.Duration
}

func (h health) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), h.timeout)
	defer cancel()
	response, err := h.driver.Probe(ctx, &csi.ProbeRequest{})
	switch {
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	case response.GetReady() != nil && !response.GetReady().GetValue():
		http.Error(w, "the driver is not ready", http.StatusInternalServerError)
	default:
		fmt.Fprintln(w, "ok")
	}
}
