package providertest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// collector takes the spans of a provider as OTLP over HTTP. It keeps them as
// they come: texts in protobuf are readable as they are.
type collector struct {
	address string
	server  *http.Server
	done    chan error
	spans   buffer
}

func newCollector(ctx context.Context) (*collector, error) {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for spans: %w", err)
	}
	c := &collector{address: l.Addr().String(), done: make(chan error, 1)}
	c.server = &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(
		func(w http.ResponseWriter, r *http.Request) {
			if _, err := io.Copy(&c.spans, r.Body); err != nil {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			w.Header().Set("Content-Type", "application/x-protobuf") // an empty message is no bytes
		})}
	go func() { c.done <- c.server.Serve(l) }()
	return c, nil
}

func (c *collector) close() error {
	err := c.server.Close()
	if served := <-c.done; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}
