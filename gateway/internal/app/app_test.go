package app_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/postern-dev/postern/gateway/internal/app"
	"github.com/postern-dev/postern/gateway/internal/providertest"
	"github.com/postern-dev/postern/internal/daemon"
	"github.com/postern-dev/postern/internal/rpc"
	"github.com/postern-dev/postern/internal/unixsocket"
	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
	providerv1 "github.com/postern-dev/postern/proto/gen/go/postern/provider/v1"
)

// asGateway makes the test binary be the gateway.
const asGateway = "POSTERN_TEST_AS_GATEWAY"

func TestMain(m *testing.M) {
	if os.Getenv(asGateway) != "" {
		os.Exit(daemon.Main("postern-gateway", app.Run))
	}
	goleak.VerifyTestMain(m)
}

// gateway is the real thing, in a process of its own.
type gateway struct {
	t                 *testing.T
	cmd               *exec.Cmd
	dir, addr, socket string
	client            gatewayv1.GatewayServiceClient
	exit              chan error

	mu  sync.Mutex
	log bytes.Buffer
}

// Write takes the process' log.
func (g *gateway) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.log.Write(p)
}

func (g *gateway) logged() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.log.String()
}

// start runs a gateway that these uids may call; without any, this process may.
func start(t *testing.T, uids ...string) *gateway {
	t.Helper()
	dir, err := os.MkdirTemp("", "gw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return startIn(t, dir, uids...)
}

func startIn(t *testing.T, dir string, uids ...string) *gateway {
	t.Helper()
	if len(uids) == 0 {
		uids = []string{fmt.Sprint(os.Getuid())}
	}
	g := &gateway{t: t, dir: dir, addr: freeAddr(t), socket: filepath.Join(dir, "gateway.sock"), exit: make(chan error, 1)}
	g.cmd = exec.CommandContext(t.Context(), os.Args[0],
		"--listen-dir", dir, "--providers-dir", filepath.Join(dir, "p"), "--legacy-providers-dirs", filepath.Join(dir, "l"),
		"--metrics-addr", g.addr, "--allowed-uids", strings.Join(uids, ","), "--log-level", "debug")
	g.cmd.Env = append(os.Environ(), asGateway+"=1")
	g.cmd.Stderr = g
	if err := g.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { g.exit <- g.cmd.Wait() }()
	conn, err := unixsocket.Dial(g.socket, unixsocket.DialConfig{Options: []grpc.DialOption{
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)),
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		if t.Failed() {
			t.Log(g.logged())
		}
	})
	g.client = gatewayv1.NewGatewayServiceClient(conn)
	return g
}

// terminate tells the process to end as kubelet does.
func (g *gateway) terminate() {
	g.t.Helper()
	if err := g.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		g.t.Fatal(err)
	}
}

// stop ends the process and checks that it ends well.
func (g *gateway) stop() {
	g.t.Helper()
	g.terminate()
	if err := <-g.exit; err != nil {
		g.t.Errorf("the gateway ended with %v", err)
	}
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// get returns the status and body of an admin path; 0 while nobody listens.
func (g *gateway) get(path string) (int, string) {
	g.t.Helper()
	req, err := http.NewRequestWithContext(g.t.Context(), http.MethodGet, "http://"+g.addr+path, nil)
	if err != nil {
		g.t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return 0, ""
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// proc returns the value of a line in a file of /proc/<pid>.
func (g *gateway) proc(file, key string) string {
	g.t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/%s", g.cmd.Process.Pid, file))
	if err != nil {
		g.t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), key); ok {
			return strings.Join(strings.Fields(value), " ")
		}
	}
	g.t.Fatalf("%s has no %q", file, key)
	return ""
}

func TestGateway(t *testing.T) {
	t.Parallel()
	g := start(t)
	g.awaitReady()

	// The call is made before there is a provider.
	type answer struct {
		resp *gatewayv1.FetchResponse
		err  error
	}
	answered := make(chan answer, 1)
	req := providertest.Request("vault")
	req.Secrets = map[string]string{"password": "hunter2"}
	go func() {
		resp, err := g.client.Fetch(t.Context(), req)
		answered <- answer{resp, err}
	}()
	provider := &providertest.Native{Description: &providerv1.DescribeResponse{
		Version: "s3cret", Capabilities: []providerv1.Capability{providerv1.Capability_CAPABILITY_RELEASE},
	}}
	provider.Start(t, filepath.Join(g.dir, "p", "vault", "a.sock"))
	a := <-answered
	if a.err != nil {
		t.Fatal(a.err)
	}
	if got := string(a.resp.GetFiles()[0].GetContents()); got != "s3cret" {
		t.Errorf("got %q", got)
	}
	_, metrics := g.get("/metrics")
	for _, want := range []string{
		`postern_gateway_provider_instances{provider="vault",state="serving"} 1`,
		`postern_gateway_provider_instances{provider="vault",state="refused"} 0`,
		`postern_gateway_fetch_in_flight{provider="vault"} 0`,
		`postern_gateway_volumes{provider="vault"} 1`,
		`postern_gateway_fetch_duration_seconds_count{provider="vault",reason="OK"} 1`,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("the metrics do not have %s", want)
		}
	}
	if _, err := g.client.Release(t.Context(), &gatewayv1.ReleaseRequest{VolumeId: req.GetVolumeId()}); err != nil {
		t.Error(err)
	}
	if got := provider.Released(); len(got) != 1 {
		t.Errorf("released: %v", got)
	}
	if got := g.proc("limits", "Max core file size"); got != "0 0 bytes" {
		t.Errorf("the limit of core files is %q, want 0", got)
	}
	g.stop()
	if _, err := os.Lstat(g.socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
	for _, secret := range []string{"s3cret", "hunter2"} {
		if strings.Contains(strings.ReplaceAll(g.logged(), `"version":"s3cret"`, ""), secret) {
			t.Errorf("%q is in the log", secret)
		}
	}
}

// A call under way when the gateway is told to end is finished.
func TestGateway_Drains(t *testing.T) {
	t.Parallel()
	g := start(t)
	entered, finish := make(chan struct{}), make(chan struct{})
	provider := &providertest.Native{OnFetch: func(context.Context, *providerv1.FetchRequest) (*providerv1.FetchResponse, error) {
		close(entered)
		<-finish
		return providertest.Answer("1"), nil
	}}
	provider.Start(t, filepath.Join(g.dir, "p", "vault", "a.sock"))
	done := make(chan error, 1)
	go func() {
		_, err := g.client.Fetch(t.Context(), providertest.Request("vault"))
		done <- err
	}()
	<-entered
	g.terminate()
	providertest.Eventually(t, "the socket is gone", func() bool {
		_, err := os.Lstat(g.socket)
		return errors.Is(err, os.ErrNotExist)
	})
	close(finish)
	if err := <-done; err != nil {
		t.Errorf("the call under way failed: %v", err)
	}
	if err := <-g.exit; err != nil {
		t.Errorf("the gateway ended with %v", err)
	}
}

func (g *gateway) awaitReady() {
	g.t.Helper()
	providertest.Eventually(g.t, "it is ready", func() bool { code, _ := g.get("/readyz"); return code == http.StatusOK })
}

// A newer gateway takes the socket over. The older one finishes what it does;
// what only waits there is refused, for the driver to ask the newer one.
func TestGateway_IsReplaced(t *testing.T) {
	t.Parallel()
	older := start(t)
	entered, finish := make(chan struct{}), make(chan struct{})
	provider := &providertest.Native{OnFetch: func(context.Context, *providerv1.FetchRequest) (*providerv1.FetchResponse, error) {
		close(entered)
		<-finish
		return providertest.Answer("1"), nil
	}}
	provider.Start(t, filepath.Join(older.dir, "p", "vault", "a.sock"))
	if err := os.Mkdir(filepath.Join(older.dir, "p", "absent"), 0o700); err != nil { // which makes it known
		t.Fatal(err)
	}
	fetch := func(provider string) <-chan error {
		done := make(chan error, 1)
		go func() {
			_, err := older.client.Fetch(t.Context(), providertest.Request(provider))
			done <- err
		}()
		return done
	}
	underWay, waiting := fetch("vault"), fetch("absent")
	<-entered
	providertest.Eventually(t, "the second call waits", func() bool {
		_, metrics := older.get("/metrics")
		return strings.Contains(metrics, `postern_gateway_fetch_in_flight{provider="absent"} 1`)
	})
	newer := startIn(t, older.dir)
	newer.awaitReady()
	older.terminate()
	if err := <-waiting; status.Code(err) != codes.Unavailable || rpc.FromError(err).Reason != "" {
		t.Errorf("the call that waits: %v, want Unavailable without a reason", err)
	}
	if _, err := newer.client.Status(t.Context(), &gatewayv1.StatusRequest{}); err != nil {
		t.Errorf("the newer one: %v", err)
	}
	close(finish)
	if err := <-underWay; err != nil {
		t.Errorf("the call under way: %v", err)
	}
	if err := <-older.exit; err != nil {
		t.Errorf("the older one ended with %v", err)
	}
	if code, body := newer.get("/healthz"); code != http.StatusOK {
		t.Errorf("the newer one is not live: %s", body)
	}
	newer.stop()
	if left, err := filepath.Glob(filepath.Join(newer.dir, ".*")); err != nil || len(left) != 0 {
		t.Errorf("left in the directory: %v, %v", left, err)
	}
}

// A provider that does not answer keeps a new gateway from taking over, but not
// for long.
func TestGateway_StartsWithoutASilentProvider(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "gw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.MkdirAll(filepath.Join(dir, "p", "silent"), 0o700); err != nil {
		t.Fatal(err)
	}
	silent, err := new(net.ListenConfig).Listen(t.Context(), "unix", filepath.Join(dir, "p", "silent", "a.sock"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	g := startIn(t, dir)
	g.awaitReady()
	if !strings.Contains(g.logged(), "a provider does not answer yet") {
		t.Error("it did not wait for the provider")
	}
	g.stop()
}

// A gateway that starts before the driver waits for its directory, and one
// whose directory was made anew is not live: its container has to start again.
func TestGateway_DirectoryIsTheDrivers(t *testing.T) {
	t.Parallel()
	base, err := os.MkdirTemp("", "gw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(base) })
	dir := filepath.Join(base, "gateway")
	g := startIn(t, dir)
	providertest.Eventually(t, "it says what it waits for", func() bool {
		return strings.Contains(g.logged(), "waiting for the driver")
	})
	providertest.Eventually(t, "it says that it is not ready", func() bool {
		code, _ := g.get("/readyz")
		return code == http.StatusServiceUnavailable
	})
	if code, body := g.get("/healthz"); code != http.StatusOK {
		t.Errorf("not live while it waits: %d %s", code, body)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	g.awaitReady()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if code, body := g.get("/healthz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "look for the own socket") {
		t.Errorf("live although nobody can call: %d %s", code, body)
	}
	if code, _ := g.get("/readyz"); code != http.StatusServiceUnavailable {
		t.Errorf("ready although nobody can call: %d", code)
	}
	g.stop()
}

func TestGateway_RefusesStrangers(t *testing.T) {
	t.Parallel()
	g := start(t, "4242")
	_, err := g.client.Status(t.Context(), &gatewayv1.StatusRequest{})
	if e := rpc.FromError(err); e == nil || e.Reason != rpc.ReasonCallerRefused {
		t.Errorf("got %v, want that the caller is refused", err)
	}
	g.stop()
}

// Idle memory is a promise. The product's binary has less than this test's.
func TestGateway_IdleMemory(t *testing.T) {
	t.Parallel()
	g := start(t)
	new(providertest.Native).Start(t, filepath.Join(g.dir, "p", "vault", "a.sock"))
	if _, err := g.client.Fetch(t.Context(), providertest.Request("vault")); err != nil {
		t.Fatal(err)
	}
	t.Logf("RSS %s, of it anonymous %s", g.proc("status", "VmRSS:"), g.proc("status", "RssAnon:"))
	g.stop()
}

func TestRun_Arguments(t *testing.T) {
	t.Parallel()
	valid := []string{"--listen-dir", "/l", "--providers-dir", "/p"}
	tests := []struct {
		args []string
		want string
	}{
		{[]string{"--listen-dir", ""}, "--listen-dir is required"},
		{[]string{"--providers-dir", ""}, "--providers-dir is required"},
		{append(valid, "--max-response-bytes", "0"), "--max-response-bytes: 0 is not more than 0"},
		{append(valid, "--drain-timeout", "-1s"), "--drain-timeout: -1s is not more than 0"},
		{append(valid, "--allowed-uids", "root"), `--allowed-uids: "root" is not a uid`},
		{append(valid, "--allowed-uids", "4294967296"), `--allowed-uids: "4294967296" is not a uid`},
		{append(valid, "--max-age", "-1s"), "--max-age: -1s is negative"},
		{append(valid, "--max-stale", "-1s"), "--max-stale: -1s is negative"},
		{append(valid, "--call-timeout", "0"), "--call-timeout: 0s is not more than 0"},
		{append(valid, "--cache-bytes", "0"), "--cache-bytes: 0 is not more than 0"},
		{append(valid, "--max-calls", "0"), "--max-calls: 0 is not more than 0"},
		{append(valid, "--max-store-calls", "-1"), "--max-store-calls: -1 is not more than 0"},
		{append(valid, "--max-queued", "0"), "--max-queued: 0 is not more than 0"},
		{append(valid, "--legacy-sharing", "azure,a/b"), `--legacy-sharing: "a/b" is not a provider's name`},
		{append(valid, "--max-rate", "vault"), `--max-rate: "vault" is not a provider's name and a number above 0, such as vault=20`},
		{append(valid, "--max-rate", "vault=0"), `--max-rate: "vault=0" is not a provider's name and a number above 0, such as vault=20`},
		{append(valid, "--max-rate", "vault=1,=2"), `--max-rate: "=2" is not a provider's name and a number above 0, such as vault=20`},
		{append(valid, "--allowed-uids", ""), "--allowed-uids: with no uid nobody could call the gateway"},
	}
	for _, tt := range tests {
		t.Run(tt.want, func(t *testing.T) {
			t.Parallel()
			err := app.Run(t.Context(), daemon.Env{
				Args: tt.args, Getenv: func(string) string { return "" }, Stdout: io.Discard, Stderr: io.Discard,
			})
			if _, ok := errors.AsType[*daemon.UsageError](err); !ok || err.Error() != tt.want {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

func TestFlags_Defaults(t *testing.T) {
	t.Parallel()
	want := map[string]string{
		"legacy-providers-dirs": "/etc/kubernetes/secrets-store-csi-providers,/var/run/secrets-store-csi-providers",
		"listen-dir":            "/run/postern/gateway",
		"providers-dir":         "/run/postern/providers",
		"metrics-addr":          ":8096",
		"allowed-uids":          "0",
		"max-response-bytes":    "4194304",
		"drain-timeout":         "25s",
		"max-age":               "10s",
		"max-stale":             "10m0s",
		"policy-file":           "",
	}
	for _, doc := range app.Flags().Docs() {
		if value, ok := want[doc.Name]; ok && value != doc.Default {
			t.Errorf("--%s is %q by default, want %q", doc.Name, doc.Default, value)
		}
		delete(want, doc.Name)
	}
	if len(want) > 0 {
		t.Errorf("there are no flags %v", want)
	}
}
