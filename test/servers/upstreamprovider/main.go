// Upstreamprovider is a provider for the upstream Secrets Store CSI driver, made
// with the upstream project's own protocol package: the tests show that the
// gateway calls it as the upstream driver does.
//
// It writes what it was sent into the volume: each parameter as a file, and each
// secret of the pod's nodePublishSecretRef as secret_<key>. It runs
// as root and serves on a socket that only root can connect to, as the providers
// of the clouds do.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
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
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", args[0])
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	v1alpha1.RegisterCSIDriverProviderServer(server, provider{})
	context.AfterFunc(ctx, server.GracefulStop)
	return server.Serve(listener)
}

type provider struct {
	v1alpha1.UnimplementedCSIDriverProviderServer
}

func (provider) Version(context.Context, *v1alpha1.VersionRequest) (*v1alpha1.VersionResponse, error) {
	return &v1alpha1.VersionResponse{Version: "v1alpha1", RuntimeName: "upstreamprovider", RuntimeVersion: "1.0.0"}, nil
}

// Mount checks its request as the providers of the clouds do.
func (provider) Mount(ctx context.Context, r *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	if authority := md.Get(":authority"); len(authority) != 1 || authority[0] != "localhost" {
		return nil, fmt.Errorf("authority is %q, want localhost", authority)
	}
	var attributes, secrets map[string]string
	if err := json.Unmarshal([]byte(r.GetAttributes()), &attributes); err != nil {
		return nil, fmt.Errorf("attributes: %w", err)
	}
	if err := json.Unmarshal([]byte(r.GetSecrets()), &secrets); err != nil {
		return nil, fmt.Errorf("secrets: %w", err)
	}
	var mode fs.FileMode
	if err := json.Unmarshal([]byte(r.GetPermission()), &mode); err != nil {
		return nil, fmt.Errorf("permission: %w", err)
	}
	if !strings.HasPrefix(r.GetTargetPath(), "/") {
		return nil, fmt.Errorf("target path is %q", r.GetTargetPath())
	}
	response := &v1alpha1.MountResponse{}
	for _, name := range slices.Sorted(maps.Keys(attributes)) {
		response.ObjectVersion = append(response.ObjectVersion, &v1alpha1.ObjectVersion{Id: name, Version: "1"})
		response.Files = append(response.Files, &v1alpha1.File{
			Path: strings.ReplaceAll(name, "/", "_"), Mode: int32(mode), Contents: []byte(attributes[name]),
		})
	}
	for _, name := range slices.Sorted(maps.Keys(secrets)) {
		response.Files = append(response.Files, &v1alpha1.File{
			Path: "secret_" + name, Mode: int32(mode), Contents: []byte(secrets[name]),
		})
	}
	return response, nil
}
