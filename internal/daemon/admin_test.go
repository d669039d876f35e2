package daemon_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/postern-dev/postern/internal/daemon"
	"github.com/postern-dev/postern/internal/telemetry"
)

// startAdmin runs an admin server on a free port until its context is
// cancelled, and checks that it ends well.
func startAdmin(t *testing.T, cfg daemon.AdminConfig) (url string, cancel context.CancelFunc) {
	t.Helper()
	logs, w := io.Pipe()
	cfg.Addr = "127.0.0.1:0"
	cfg.Telemetry = telemetry.Discard()
	cfg.Logger = slog.New(slog.NewTextHandler(w, nil))
	admin, err := daemon.NewAdmin(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background()) // outlives t.Context, for the cleanup
	done := make(chan error, 1)
	go func() { done <- admin.Run(ctx) }()
	line, err := bufio.NewReader(logs).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	address := regexp.MustCompile(`address=(\S+)`).FindStringSubmatch(line)
	if address == nil || !strings.Contains(line, "admin server listens") {
		t.Fatalf("log line = %s", line)
	}
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return "http://" + address[1], cancel
}

// get asks once, on a connection of its own.
func get(t *testing.T, method, url string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// said answers with a text.
func said(text string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) })
}

func TestAdmin(t *testing.T) {
	t.Parallel()
	fails := func(text string) func(context.Context) error {
		return func(ctx context.Context) error {
			if _, bounded := ctx.Deadline(); !bounded {
				return errors.New("the check has no deadline")
			}
			return errors.New(text)
		}
	}
	for name, tt := range map[string]struct {
		cfg          daemon.AdminConfig
		method, path string
		code         int
		body         string // begins so
	}{
		"live":             {path: "/healthz", code: 200, body: "ok\n"},
		"ready":            {path: "/readyz", code: 200, body: "ok\n"},
		"not live":         {cfg: daemon.AdminConfig{Live: fails("stuck")}, path: "/healthz", code: 503, body: "stuck\n"},
		"live, not ready":  {cfg: daemon.AdminConfig{Ready: fails("starting")}, path: "/healthz", code: 200, body: "ok\n"},
		"not ready":        {cfg: daemon.AdminConfig{Ready: fails("starting")}, path: "/readyz", code: 503, body: "starting\n"},
		"ready by HEAD":    {method: http.MethodHead, path: "/readyz", code: 200},
		"metrics":          {path: "/metrics", code: 200, body: "# HELP"},
		"nothing else":     {path: "/", code: 404},
		"no other methods": {method: http.MethodPost, path: "/healthz", code: 405},
		"no profiles":      {path: "/debug/pprof/", code: 404},
		"profiles":         {cfg: daemon.AdminConfig{Pprof: true}, path: "/debug/pprof/", code: 200},
		"what is added":    {cfg: daemon.AdminConfig{Debug: map[string]http.Handler{"/debug/x": said("x")}}, path: "/debug/x", code: 200, body: "x"},
		"beside profiles":  {cfg: daemon.AdminConfig{Pprof: true, Debug: map[string]http.Handler{"/debug/x": said("x")}}, path: "/debug/x", code: 200, body: "x"},
		"goroutines":       {cfg: daemon.AdminConfig{Pprof: true}, path: "/debug/pprof/goroutine?debug=1", code: 200, body: "goroutine profile"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, _ := startAdmin(t, tt.cfg)
			method := tt.method
			if method == "" {
				method = http.MethodGet
			}
			code, body := get(t, method, url+tt.path)
			if code != tt.code || !strings.HasPrefix(body, tt.body) {
				t.Errorf("%s %s = %d %q, want %d %q", method, tt.path, code, body, tt.code, tt.body)
			}
		})
	}
}

// TestAdmin_EndsBesideHangingClient: a client that says nothing does not keep
// the process.
func TestAdmin_EndsBesideHangingClient(t *testing.T) {
	t.Parallel()
	var conn net.Conn
	t.Cleanup(func() { _ = conn.Close() }) // after the server has ended
	url, _ := startAdmin(t, daemon.AdminConfig{})
	var err error
	if conn, err = net.Dial("tcp", strings.TrimPrefix(url, "http://")); err != nil {
		t.Fatal(err)
	}
}

func TestAdmin_AnswersWhileItEnds(t *testing.T) {
	t.Parallel()
	entered, leave := make(chan struct{}), make(chan struct{})
	url, cancel := startAdmin(t, daemon.AdminConfig{Ready: func(ctx context.Context) error {
		close(entered)
		<-leave
		return ctx.Err()
	}})
	code := make(chan int, 1)
	go func() {
		c, _ := get(t, http.MethodGet, url+"/readyz")
		code <- c
	}()
	<-entered
	cancel()
	close(leave)
	if got := <-code; got != http.StatusOK {
		t.Errorf("status = %d", got)
	}
}

func TestAdmin_Errors(t *testing.T) {
	t.Parallel()
	if _, err := daemon.NewAdmin(daemon.AdminConfig{Addr: ":8080"}); err == nil || err.Error() != "admin server: there is no telemetry to serve" {
		t.Errorf("without telemetry: %v", err)
	}
	tel := telemetry.Discard()
	if _, err := daemon.NewAdmin(daemon.AdminConfig{Addr: "8080", Telemetry: tel}); err == nil ||
		err.Error() != "admin server: address is not host:port: address 8080: missing port in address" {
		t.Errorf("without a host: %v", err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	admin, err := daemon.NewAdmin(daemon.AdminConfig{Addr: taken.Addr().String(), Telemetry: tel})
	if err != nil {
		t.Fatal(err)
	}
	if err := admin.Run(t.Context()); err == nil || !strings.HasSuffix(err.Error(), "address already in use") {
		t.Errorf("a taken port: %v", err)
	}
}

func TestAdmin_WithoutAddress(t *testing.T) {
	t.Parallel()
	admin, err := daemon.NewAdmin(daemon.AdminConfig{Telemetry: telemetry.Discard()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- admin.Run(ctx) }()
	select {
	case err := <-done:
		t.Fatalf("Run ended before its context: %v", err)
	default:
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
}
