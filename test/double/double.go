// Package double is what the test doubles of clouds have in common: faults, the
// record of what was asked, the control API with its client, and listeners.
package double

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// Off is the address of a listener that is not wanted.
const Off = "off"

// Duration is a time.Duration that is written as Go writes it.
type Duration time.Duration

// MarshalText writes it.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads it.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	*d = Duration(parsed)
	return err
}

// Servers are a double's listeners.
type Servers struct {
	logger  *slog.Logger
	servers []*http.Server
	serving sync.WaitGroup
}

// NewServers returns none yet. What goes wrong with a connection is logged.
func NewServers(logger *slog.Logger) *Servers { return &Servers{logger: logger} }

// Listen has a handler answer at address, and returns where that is.
func (s *Servers) Listen(ctx context.Context, address string, handler http.Handler) (string, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return "", fmt.Errorf("listen at %s: %w", address, err)
	}
	s.Serve(listener, &http.Server{Handler: handler})
	return listener.Addr().String(), nil
}

// Serve has a server answer at a listener, with TLS if the server has a
// configuration of it.
func (s *Servers) Serve(listener net.Listener, server *http.Server) {
	server.ReadHeaderTimeout = time.Minute
	server.ErrorLog = slog.NewLogLogger(s.logger.Handler(), slog.LevelWarn)
	s.servers = append(s.servers, server)
	s.serving.Go(func() {
		if server.TLSConfig != nil {
			_ = server.ServeTLS(listener, "", "") // ErrServerClosed
			return
		}
		_ = server.Serve(listener) // ErrServerClosed
	})
}

// Close ends them at once, with their connections.
func (s *Servers) Close() {
	for _, server := range s.servers {
		_ = server.Close()
	}
	s.serving.Wait()
}
