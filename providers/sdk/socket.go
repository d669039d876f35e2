package sdk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/postern-dev/postern/internal/logkey"
	"github.com/postern-dev/postern/internal/unixsocket"
)

// socketMode lets the directory's group connect, which is the gateway's.
const socketMode fs.FileMode = 0o660

// socketSuffix is what the gateway and the upstream driver look for.
const socketSuffix = ".sock"

// probeTimeout bounds what a probe waits for a socket.
const probeTimeout = 2 * time.Second

func (i *instance) socket() string {
	return filepath.Join(i.options.listenDir, i.options.instance+socketSuffix)
}

// listen opens the socket, as soon as the node driver has given its directory
// to the provider: kubelet may have made it before, as root. Then it removes
// the sockets of dead instances.
//
// An instance that is named like the provider is there for the upstream
// driver, in a directory that it shares with other providers: there, only a
// dead socket of the same name is removed.
func (i *instance) listen(ctx context.Context) (net.Listener, error) {
	logger := i.telemetry.Logger
	listener, err := unixsocket.Await(ctx, unixsocket.ListenConfig{
		Path: i.socket(), Mode: socketMode, UID: unixsocket.Unowned, GID: unixsocket.Unowned,
	}, func(why error) {
		logger.WarnContext(ctx, "the socket's directory cannot be used yet; waiting for the node driver, which makes it: is it mounted?",
			logkey.Error, why)
	})
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	if !slices.Contains(i.def.Names, i.options.instance) {
		if err := removeStale(ctx, i.options.listenDir, logger); err != nil {
			return nil, errors.Join(err, listener.Close())
		}
	}
	i.listening.Store(true)
	logger.InfoContext(ctx, "provider is listening", logkey.Provider, i.def.Name,
		logkey.Version, i.def.Version, logkey.Socket, i.socket())
	return listener, nil
}

// removeStale removes the sockets in dir that nobody listens on.
func removeStale(ctx context.Context, dir string, logger *slog.Logger) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("look for old sockets: %w", err)
	}
	for _, entry := range entries {
		if entry.Type() != fs.ModeSocket || !strings.HasSuffix(entry.Name(), socketSuffix) {
			continue
		}
		path := filepath.Join(dir, entry.Name())
		if !stale(ctx, path) {
			continue
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove the socket of a dead instance: %w", err)
		}
		logger.InfoContext(ctx, "removed the socket of a dead instance", logkey.Socket, path)
	}
	return nil
}

// stale reports whether nobody listens on a socket. One that is too busy to
// answer in time is not stale.
func stale(ctx context.Context, path string) bool {
	dialer := net.Dialer{Timeout: probeTimeout}
	conn, err := dialer.DialContext(ctx, "unix", path)
	if err == nil {
		_ = conn.Close()
		return false
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

// live asks the own socket whether anyone is there, which tells a process that
// serves from one that only runs. It does so on a connection of its own: one
// that was open already would not notice that the socket is gone.
func (i *instance) live(ctx context.Context) error {
	if !i.listening.Load() {
		return nil // a restart would not make the directory come
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	conn, err := unixsocket.Dial(i.socket(), unixsocket.DialConfig{})
	if err != nil {
		return fmt.Errorf("check own socket: %w", err)
	}
	defer func() { _ = conn.Close() }() // nothing is in flight
	resp, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		return fmt.Errorf("check own socket: %w", err)
	}
	if resp.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		return fmt.Errorf("check own socket: provider is %s", resp.GetStatus())
	}
	return nil
}

// ready asks whether the provider can be called and could serve.
func (i *instance) ready(ctx context.Context) error {
	if !i.listening.Load() {
		return fmt.Errorf("directory %s cannot be used yet: the node driver makes it", i.options.listenDir)
	}
	if err := i.live(ctx); err != nil {
		return err
	}
	return i.health(ctx)
}
