// Csi-node-driver-registrar announces a CSI driver to the kubelet. It stands in
// for the sidecar of that name in the test cluster and takes the arguments that
// the project's charts give it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "csi-node-driver-registrar:", err)
		os.Exit(1)
	}
}

// config is what the flags say.
type config struct {
	// driver is the driver's socket here, endpoint the same as the kubelet sees it.
	driver, endpoint string
	// dir is where the kubelet looks for plugins.
	dir string
	// timeout of the question who the driver is.
	timeout time.Duration
	// health is the address of /healthz; "" for none.
	health string
}

func parse(args []string) (config, error) {
	var cfg config
	flags := flag.NewFlagSet("csi-node-driver-registrar", flag.ContinueOnError)
	flags.StringVar(&cfg.driver, "csi-address", "/run/csi/socket", "the driver's `socket`")
	flags.StringVar(&cfg.endpoint, "kubelet-registration-path", "", "the driver's `socket` as the kubelet sees it (required)")
	flags.StringVar(&cfg.dir, "plugin-registration-path", "/registration", "the kubelet's `directory` for plugins")
	flags.DurationVar(&cfg.timeout, "timeout", time.Minute, "how long to wait for the driver")
	flags.StringVar(&cfg.health, "http-endpoint", "", "`address` of /healthz")
	flags.Int("v", 0, "ignored")
	if err := flags.Parse(args); err != nil {
		return config{}, err
	}
	if cfg.endpoint == "" {
		return config{}, errors.New("--kubelet-registration-path is not set")
	}
	return cfg, nil
}

func run(ctx context.Context, args []string) error {
	cfg, err := parse(args)
	if err != nil {
		return err
	}
	driver, err := driverName(ctx, cfg)
	if err != nil {
		return err
	}
	socket := filepath.Join(cfg.dir, driver+"-reg.sock")
	listener, err := listen(ctx, socket)
	if err != nil {
		return err
	}
	r := &registrar{
		info: &registration.PluginInfo{
			Type: registration.CSIPlugin, Name: driver, Endpoint: cfg.endpoint, SupportedVersions: []string{"1.0.0"},
		},
		refused: make(chan error, 1),
	}
	server := grpc.NewServer()
	registration.RegisterRegistrationServer(server, r)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		if err := server.Serve(listener); !errors.Is(err, grpc.ErrServerStopped) { // by an early signal
			return err
		}
		return nil
	})
	group.Go(func() error { return serveHealth(ctx, cfg.health) })
	group.Go(func() error {
		defer server.Stop()
		select {
		case err := <-r.refused:
			return err
		case <-ctx.Done():
			return nil
		}
	})
	return group.Wait()
}

// driverName asks the driver who it is, and waits for it as long as may be.
func driverName(ctx context.Context, cfg config) (string, error) {
	conn, err := grpc.NewClient("unix:"+cfg.driver, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return "", fmt.Errorf("connect to the driver: %w", err)
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(ctx, cfg.timeout)
	defer cancel()
	info, err := csi.NewIdentityClient(conn).GetPluginInfo(ctx, &csi.GetPluginInfoRequest{}, grpc.WaitForReady(true))
	if err != nil {
		return "", fmt.Errorf("ask the driver at %s who it is: %w", cfg.driver, err)
	}
	return info.GetName(), nil
}

// listen makes the socket that the kubelet finds, for root alone. It goes with
// the listener, by which the kubelet sees that the driver has gone.
func listen(ctx context.Context, socket string) (net.Listener, error) {
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove the socket of an earlier run: %w", err)
	}
	defer unix.Umask(unix.Umask(0o077))
	listener, err := new(net.ListenConfig).Listen(ctx, "unix", socket)
	if err != nil {
		return nil, fmt.Errorf("listen for the kubelet: %w", err)
	}
	return listener, nil
}

func serveHealth(ctx context.Context, address string) error {
	if address == "" {
		return nil
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	server := &http.Server{Addr: address, Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve /healthz: %w", err)
	}
	return nil
}

// registrar answers the kubelet.
type registrar struct {
	registration.UnimplementedRegistrationServer

	info    *registration.PluginInfo
	refused chan error
}

// GetInfo says which driver this is and where.
func (r *registrar) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return r.info, nil
}

// NotifyRegistrationStatus hears whether the kubelet took the driver. If not, the
// registrar ends, to be started again and to try again.
func (r *registrar) NotifyRegistrationStatus(_ context.Context, status *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	if !status.GetPluginRegistered() {
		select {
		case r.refused <- fmt.Errorf("the kubelet refused driver %s: %s", r.info.GetName(), status.GetError()):
		default: // it is ending already
		}
	}
	return &registration.RegistrationStatusResponse{}, nil
}
