package status_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/postern-dev/postern/gateway/internal/status"
	"github.com/postern-dev/postern/internal/daemon"
	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
)

// -update writes what is printed; commit it only if you understand the diff.
var update = flag.Bool("update", false, "write the golden files")

// run runs the command against a server.
func run(t *testing.T, server *httptest.Server, format string) (string, error) {
	t.Helper()
	var stdout bytes.Buffer
	err := status.Command(t.Context(), daemon.Env{
		Args: []string{"--addr", server.Listener.Addr().String(), "-o", format}, Stdout: &stdout,
	})
	return stdout.String(), err
}

func endsWith(err error, text string) bool { return strings.HasSuffix(err.Error(), text) }

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got), -update writes it:\n%s", path, diff)
	}
}

func ago(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(now().Add(-d)) }

// busy is a gateway on which everything happens at once.
func busy() *gatewayv1.StatusResponse {
	vault := &gatewayv1.ProviderStatus{
		Name: "vault", InFlight: 3, Volumes: 110,
		Instances: []*gatewayv1.Instance{
			{
				Socket: "/run/postern/providers/vault/b.sock", Version: "v0.2.0", State: gatewayv1.Instance_STATE_SERVING,
				Protocol: gatewayv1.Instance_PROTOCOL_PROVIDER_V1, ConnectedAt: ago(42 * time.Second),
			},
			{
				Socket: "/run/postern/providers/vault/a.sock", Version: "v0.1.0", State: gatewayv1.Instance_STATE_DRAINING,
				Protocol: gatewayv1.Instance_PROTOCOL_PROVIDER_V1, ConnectedAt: ago(75 * time.Hour),
				Message: "another instance is preferred: /run/postern/providers/vault/b.sock",
			},
		},
		Budget: &gatewayv1.BudgetStatus{Calls: 2, MaxCalls: 64, Queued: 7, MaxQueued: 1024, MaxRate: 20.5, Refused: 1},
		Stores: []*gatewayv1.StoreStatus{
			{Store: "https://vault-a:8200", State: gatewayv1.StoreStatus_STATE_CLOSED, Calls: 1, MaxCalls: 16},
			{
				Store: "https://vault-b:8200", State: gatewayv1.StoreStatus_STATE_OPEN, MaxCalls: 1, Failures: 5,
				Reason: "STORE_UNAVAILABLE", RetryAt: timestamppb.New(now().Add(12 * time.Second)),
			},
			{
				Store: "https://" + strings.Repeat("long.", 30) + "example", State: gatewayv1.StoreStatus_STATE_HALF_OPEN,
				Calls: 1, MaxCalls: 1, Failures: 12, Reason: "DEADLINE_EXCEEDED",
			},
			{Store: "", State: gatewayv1.StoreStatus_STATE_THROTTLED, MaxCalls: 4, RetryAt: ago(time.Second)},
		},
	}
	return &gatewayv1.StatusResponse{
		Version: "v0.2.0",
		Providers: []*gatewayv1.ProviderStatus{
			{Name: "aws", Budget: &gatewayv1.BudgetStatus{MaxCalls: 64, MaxQueued: 1024}},
			{
				Name: "legacy", Budget: &gatewayv1.BudgetStatus{MaxCalls: 64, MaxQueued: 1024},
				Instances: []*gatewayv1.Instance{{
					Socket: "/var/run/secrets-store-csi-providers/legacy.sock", State: gatewayv1.Instance_STATE_NOT_SERVING,
					Protocol: gatewayv1.Instance_PROTOCOL_CSI_V1ALPHA1,
					Message:  "the first line\nthe second\x1b[31m in red",
				}},
			},
			vault,
		},
		Cache: &gatewayv1.CacheStatus{
			Entries: 12, Bytes: 35_328, MaxBytes: 32 << 20, Hits: 1100, Joins: 50, Misses: 54, Stale: 2, Evictions: 3,
		},
		Flights: []*gatewayv1.FlightStatus{
			{
				Provider: "vault", Namespace: "shop", ServiceAccount: "web", SecretProviderClass: "app",
				Waiters: 110, StartedAt: ago(1500 * time.Millisecond),
			},
			{
				Provider: "vault", Namespace: "bank", ServiceAccount: "ledger", SecretProviderClass: "db",
				PodUid: "5c3cbd4e-4a39-4d0e-9f5c-1f5fb1b0a1a1", Waiters: 1, StartedAt: ago(200 * time.Second),
			},
		},
		Policy: &gatewayv1.PolicyStatus{
			Rules: []string{"vault-role-of-own-namespace", "no-node-identity"}, LoadedAt: ago(5*time.Hour + 3*time.Minute),
			Error: "rule no-node-identity: require: 1:12: undefined field 'nmae'",
		},
	}
}

func TestTable(t *testing.T) {
	t.Parallel()
	for name, report := range map[string]*gatewayv1.StatusResponse{
		"busy.golden":  busy(),
		"empty.golden": {Version: "v0.2.0"},
		"idle.golden": {
			Version: "v0.2.0",
			Providers: []*gatewayv1.ProviderStatus{{
				Name: "vault", Volumes: 1, Budget: &gatewayv1.BudgetStatus{MaxCalls: 64, MaxQueued: 1024},
				Instances: busy().GetProviders()[2].GetInstances()[:1], Stores: busy().GetProviders()[2].GetStores()[:1],
			}},
			Cache:  &gatewayv1.CacheStatus{Entries: 1, Bytes: 3 << 20, MaxBytes: 32 << 20, Misses: 1},
			Policy: &gatewayv1.PolicyStatus{},
		},
	} {
		var out bytes.Buffer
		if err := status.Table(&out, report, now()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		golden(t, name, out.String())
	}
}

// Names and messages are made by others, and a terminal obeys what it is sent.
func TestTable_PrintsOnlyText(t *testing.T) {
	t.Parallel()
	report := busy()
	filled := 0
	fill(report.ProtoReflect(), "\x1b[2J\a\u202E\u200B\x00\r\ttext\n", &filled)
	var out bytes.Buffer
	if err := status.Table(&out, report, now()); err != nil {
		t.Fatal(err)
	}
	if filled < 20 || strings.Count(out.String(), "text") < 20 {
		t.Errorf("%d texts filled in:\n%s", filled, out.String())
	}
	for i, r := range out.String() {
		if r != '\n' && !unicode.IsPrint(r) {
			t.Errorf("%U at %d: …%q", r, i, out.String()[max(0, i-40):i])
		}
	}
}

// fill sets all texts of a message, and of those in it.
func fill(m protoreflect.Message, text string, filled *int) {
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case field.IsList():
			for i := range value.List().Len() {
				if field.Message() != nil {
					fill(value.List().Get(i).Message(), text, filled)
				} else if field.Kind() == protoreflect.StringKind {
					value.List().Set(i, protoreflect.ValueOfString(text))
					*filled++
				}
			}
		case field.Message() != nil:
			fill(value.Message(), text, filled)
		case field.Kind() == protoreflect.StringKind:
			m.Set(field, protoreflect.ValueOfString(text))
			*filled++
		}
		return true
	})
}

func TestTable_ClosedPipe(t *testing.T) {
	t.Parallel()
	r, w := io.Pipe()
	_ = r.Close()
	if err := status.Table(w, busy(), now()); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("error = %v", err)
	}
}

func TestCommand(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(status.Handler(reports(busy())))
	t.Cleanup(server.Close)
	printed, err := run(t, server, "json")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "busy.json", printed)
	if printed, err = run(t, server, "table"); err != nil || !strings.HasPrefix(printed, "postern-gateway v0.2.0\n") {
		t.Errorf("printed %q (%v)", printed, err)
	}
	// As the gateway's own flag has it.
	var stdout bytes.Buffer
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	env := daemon.Env{Args: []string{"--addr", ":" + port}, Stdout: &stdout}
	if err := status.Command(t.Context(), env); err != nil || stdout.String() != printed {
		t.Errorf("printed %q (%v)", stdout.String(), err)
	}
}

func TestCommand_NewerGateway(t *testing.T) {
	t.Parallel()
	server := answering(t, http.StatusOK, `{"version":"v9","orbit":{"height":"400km"}}`)
	if printed, err := run(t, server, "table"); err != nil || !strings.HasPrefix(printed, "postern-gateway v9\n") {
		t.Errorf("printed %q (%v)", printed, err)
	}
	if printed, err := run(t, server, "json"); err != nil || !strings.Contains(printed, "400km") {
		t.Errorf("printed %q (%v)", printed, err)
	}
}

// answering is a server that always gives one answer.
func answering(t *testing.T, code int, body string) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != status.Path {
			t.Errorf("asked for %s", r.URL.Path)
		}
		w.WriteHeader(code)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(server.Close)
	return server
}

func TestCommand_Errors(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		code       int
		body, want string
	}{
		"refused":      {http.StatusForbidden, "go away\x1b[2J\n", "403 Forbidden: go away\uFFFD[2J"},
		"no such page": {http.StatusNotFound, "404 page not found\n", "404 Not Found: 404 page not found"},
		"no JSON":      {http.StatusOK, "hello", "hello"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := answering(t, tt.code, tt.body)
			addr := server.Listener.Addr().String()
			for _, format := range []string{"table", "json"} {
				printed, err := run(t, server, format)
				if err == nil || printed != "" || !strings.Contains(err.Error(), addr) {
					t.Fatalf("printed %q, error %v, want one that names %s", printed, err, addr)
				}
				if tt.code != http.StatusOK && !endsWith(err, tt.want) {
					t.Errorf("error %q, want …%s", err, tt.want)
				}
			}
		})
	}
	t.Run("nobody there", func(t *testing.T) {
		t.Parallel()
		server := httptest.NewServer(http.NotFoundHandler())
		server.Close()
		if _, err := run(t, server, "table"); err == nil || !endsWith(err, "connection refused (does it run here, and is this its --metrics-addr?)") {
			t.Errorf("error = %v", err)
		}
	})
}

func TestCommand_Usage(t *testing.T) {
	t.Parallel()
	for want, args := range map[string][]string{
		`--addr: "8096" is not host:port`:                      {"--addr", "8096"},
		`-o: "yaml" is neither table nor json`:                 {"-o", "yaml"},
		`unexpected argument "vault": only flags are accepted`: {"vault"},
		`flag provided but not defined: -watch`:                {"--watch"},
	} {
		var usage *daemon.UsageError
		err := status.Command(t.Context(), daemon.Env{Args: args})
		if !errors.As(err, &usage) || fmt.Sprint(err) != want || usage.Program != "postern-gateway status" {
			t.Errorf("%q: error %T %v, want %s", args, err, err, want)
		}
	}
}
