// Upstreamprovider is a provider for the upstream Secrets Store CSI driver, made
// with the upstream project's own protocol package: the tests show that the
// gateway calls it as the upstream driver does.
//
// It writes what it was sent into the volume: each parameter as a file, each
// secret of the pod's nodePublishSecretRef as secret_<key>, and the fields of the
// request below request/. For each call of Mount it prints "mount <pod>". It
// runs as root and serves on a socket that only root can connect to, as the
// providers of the clouds do.
//
// These parameters make it do something else:
//
//	delay    a duration that it takes
//	answer   "no files": it answers as one that wrote into the target path;
//	         "no objects": it answers nothing; "error": with the error code of
//	         parameter code; "status": it fails with the gRPC code of parameter
//	         code and with message; "exit": it ends without an answer
//	file     the path of one more file
package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/signal"
	"syscall"

	"google.golang.org/grpc"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "upstreamprovider:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("usage: upstreamprovider SOCKET")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	socket := args[0]
	// One that was killed leaves its socket behind.
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", socket)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	v1alpha1.RegisterCSIDriverProviderServer(server, &provider{socket: socket})
	context.AfterFunc(ctx, server.GracefulStop)
	return server.Serve(listener)
}
