package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/postern-dev/postern/internal/logkey"
	"github.com/postern-dev/postern/internal/telemetry"
)

const (
	// checkTimeout bounds a readiness or liveness check; kubelet waits for 1 s
	// unless the probe says otherwise.
	checkTimeout = 3 * time.Second
	// closeTimeout bounds the wait for requests in progress at the end.
	closeTimeout = 2 * time.Second
	// maxHeaderBytes is plenty for probes and scrapes.
	maxHeaderBytes = 16 << 10
)

// AdminConfig says what the admin server tells.
type AdminConfig struct {
	// Addr is host:port. Empty: there is no server, and Run only waits.
	Addr string
	// Telemetry is whose metrics to serve. Required.
	Telemetry *telemetry.Telemetry
	// Ready returns why the process is not ready, nil if it is. Its text is
	// shown to everybody who asks. Default: always ready.
	Ready func(ctx context.Context) error
	// Live returns why the process should be restarted, nil if it should not.
	// Its text is shown to everybody who asks. Default: always live.
	Live func(ctx context.Context) error
	// Logger defaults to Telemetry's.
	Logger *slog.Logger
	// Debug is what else to serve, by patterns of http.ServeMux. Who may ask is
	// for each to decide. A pattern that is taken panics, as in http.ServeMux.
	Debug map[string]http.Handler
	// Pprof serves profiles below /debug/pprof/. A heap profile holds no
	// contents of memory, but who may ask for profiles may also slow the
	// process down.
	Pprof bool
}

// Admin is the HTTP server for people, probes and Prometheus: /metrics,
// /healthz (is it live), /readyz (is it ready), and what a process adds.
type Admin struct{ cfg AdminConfig }

// NewAdmin checks cfg. It does not listen yet.
func NewAdmin(cfg AdminConfig) (*Admin, error) {
	if cfg.Telemetry == nil {
		return nil, errors.New("admin server: there is no telemetry to serve")
	}
	if cfg.Addr != "" {
		if _, _, err := net.SplitHostPort(cfg.Addr); err != nil {
			return nil, fmt.Errorf("admin server: address is not host:port: %w", err)
		}
	}
	if cfg.Logger == nil {
		cfg.Logger = cfg.Telemetry.Logger
	}
	return &Admin{cfg: cfg}, nil
}

// Handler returns what the server serves.
func (a *Admin) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", a.cfg.Telemetry.MetricsHandler())
	mux.Handle("GET /healthz", check(a.cfg.Live))
	mux.Handle("GET /readyz", check(a.cfg.Ready))
	for pattern, handler := range a.cfg.Debug {
		mux.Handle(pattern, handler)
	}
	if a.cfg.Pprof {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	return mux
}

// check answers 200 "ok", or 503 and the reason.
func check(f func(context.Context) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		text := "ok\n"
		if f != nil {
			ctx, cancel := context.WithTimeout(r.Context(), checkTimeout)
			defer cancel()
			if err := f(ctx); err != nil {
				w.WriteHeader(http.StatusServiceUnavailable)
				text = err.Error() + "\n"
			}
		}
		_, _ = io.WriteString(w, text) // a client that is gone needs no answer
	})
}

// Run serves until ctx ends. It may be given a context that outlives the other
// servers', so that a drain can be watched.
func (a *Admin) Run(ctx context.Context) error {
	if a.cfg.Addr == "" {
		<-ctx.Done()
		return nil
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", a.cfg.Addr)
	if err != nil {
		return fmt.Errorf("admin server: %w", err)
	}
	return a.serve(ctx, listener)
}

func (a *Admin) serve(ctx context.Context, listener net.Listener) error {
	writeTimeout := 10 * time.Second
	if a.cfg.Pprof {
		writeTimeout = 2 * time.Minute // a CPU profile takes 30 s by default
	}
	// Requests must not end with ctx, or those in progress would not be
	// answered; closeTimeout bounds them.
	base := context.WithoutCancel(ctx)
	server := &http.Server{
		Handler:           a.Handler(),
		BaseContext:       func(net.Listener) context.Context { return base },
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       90 * time.Second, // longer than the usual scrape interval
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(a.cfg.Logger.Handler(), slog.LevelWarn),
	}
	a.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "admin server listens",
		slog.String(logkey.Address, listener.Addr().String()))
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err := <-served:
		return fmt.Errorf("admin server: %w", err)
	case <-ctx.Done():
	}
	closing, cancel := context.WithTimeout(base, closeTimeout)
	defer cancel()
	if err := server.Shutdown(closing); err != nil {
		_ = server.Close() // what is left is a profile or a client that hangs
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("admin server: %w", err)
	}
	return nil
}
