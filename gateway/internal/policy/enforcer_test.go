package policy_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/postern-dev/postern/gateway/internal/policy"
	"github.com/postern-dev/postern/gateway/internal/policy/rules"
	"github.com/postern-dev/postern/internal/rpc"
	"github.com/postern-dev/postern/internal/telemetry"
	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
	secretv1 "github.com/postern-dev/postern/proto/gen/go/postern/secret/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	allows = "rules: [{name: allows, require: 'true'}]"
	denies = "rules: [{name: denies, require: 'false'}]"
	broken = "rules: [{name: broken, require: pod.nmae == 'x'}]"
)

// request is a fetch with a role of its provider.
func request(role string) *gatewayv1.FetchRequest {
	return &gatewayv1.FetchRequest{
		Provider: "vault",
		Pod: &secretv1.Pod{
			Namespace: "shop", Name: "web-0", Uid: "0c8f", ServiceAccount: &secretv1.ServiceAccount{Name: "app"},
		},
		SecretProviderClass: "db",
		Parameters:          map[string]string{"roleName": role},
		Tokens:              []*secretv1.Token{{Audience: "vault", Token: "the-token"}},
		Secrets:             map[string]string{"key": "the-secret"},
	}
}

// log is a buffer that several goroutines may use.
type log struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *log) lines() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.FieldsFunc(l.buf.String(), func(r rune) bool { return r == '\n' })
}

// world is an enforcer with its surroundings.
type world struct {
	*policy.Enforcer
	path string
	log  *log
	tel  *telemetry.Telemetry
}

func config(path string, l *log, tel *telemetry.Telemetry) policy.Config {
	return policy.Config{Path: path, Logger: slog.New(slog.NewJSONHandler(l, nil)), Meter: tel.Meter("test")}
}

func newWorld(t *testing.T, source string) *world {
	t.Helper()
	w := &world{path: filepath.Join(t.TempDir(), "policy.yaml"), log: &log{}, tel: telemetry.Discard()}
	write(t, w.path, source)
	w.open(t)
	return w
}

func (w *world) open(t *testing.T) {
	t.Helper()
	var err error
	if w.Enforcer, err = policy.Open(config(w.path, w.log, w.tel)); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// run runs until the test ends.
func (w *world) run(t *testing.T, body func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- body(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// eventually waits for real files and their watch. The limit is less than the
// time after which the file would be read without one.
func (w *world) eventually(t *testing.T, what string, condition func(policy.Status) bool) {
	t.Helper()
	deadline := time.After(policy.LookInterval * 2 / 3)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !condition(w.Status()) {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s: not so in time: %+v\n%s", what, w.Status(), strings.Join(w.log.lines(), "\n"))
		}
	}
}

func inForce(rules ...string) func(policy.Status) bool {
	return func(s policy.Status) bool { return s.Error == "" && cmp.Equal(rules, s.Rules) }
}

func (w *world) metrics(t *testing.T) string {
	t.Helper()
	recorder := httptest.NewRecorder()
	w.tel.MetricsHandler().ServeHTTP(recorder, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", http.NoBody))
	var lines strings.Builder
	for line := range strings.Lines(recorder.Body.String()) {
		if strings.HasPrefix(line, "postern_gateway_policy") {
			lines.WriteString(line)
		}
	}
	return lines.String()
}

func TestOpen_Refuses(t *testing.T) {
	t.Parallel()
	tel, dir := telemetry.Discard(), t.TempDir()
	write(t, filepath.Join(dir, "broken.yaml"), broken)
	if _, err := policy.Open(config(filepath.Join(dir, "none.yaml"), &log{}, tel)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	if _, err := policy.Open(config(dir, &log{}, tel)); err == nil {
		t.Error("a directory is a file of rules")
	}
	path := filepath.Join(dir, "broken.yaml")
	_, err := policy.Open(config(path, &log{}, tel))
	if want := `policy file ` + path + `: line 1: rule "broken": require: 1:4: undefined field 'nmae'`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	for name, cfg := range map[string]policy.Config{
		"logger": {Meter: tel.Meter("t")}, "meter": {Logger: tel.Logger},
	} {
		if _, err := policy.Open(cfg); err == nil || err.Error() != "policy: logger and meter are required" {
			t.Errorf("without %s: %v", name, err)
		}
	}
}

func TestEnforcer_WithoutPath(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &world{log: &log{}, tel: telemetry.Discard()}
		w.open(t)
		w.run(t, w.Run)
		<-time.After(2 * policy.LookInterval)
		synctest.Wait()
		if err := w.Check(t.Context(), request("shop-app")); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(policy.Status{Rules: []string{}}, w.Status()); diff != "" {
			t.Errorf("status (-want +got):\n%s", diff)
		}
		if got := w.metrics(t); got != "postern_gateway_policy_rules 0\npostern_gateway_policy_stale 0\n" {
			t.Errorf("metrics:\n%s", got)
		}
		if lines := w.log.lines(); len(lines) > 0 {
			t.Errorf("logged: %q", lines)
		}
	})
}

func TestEnforcer_Check(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `rules:
- {name: watched, action: audit, require: "false", message: would be refused}
- {name: own-role, require: parameters.roleName.startsWith('shop-')}
- {name: never, require: "true"}
`)
	w.run(t, w.Run)
	w.eventually(t, "counters", func(policy.Status) bool { return strings.Contains(w.metrics(t), `rule="never"`) })
	if err := w.Check(t.Context(), request("shop-app")); err != nil {
		t.Fatal(err)
	}
	var denial *rpc.Error
	err := w.Check(t.Context(), request("bank-app"))
	if !errors.As(err, &denial) || denial.Metadata[rules.MetadataRule] != "own-role" {
		t.Errorf("got %v", err)
	}
	want := `postern_gateway_policy_audits_total{rule="watched"} 2
postern_gateway_policy_denials_total{rule="never"} 0
postern_gateway_policy_denials_total{rule="own-role"} 1
postern_gateway_policy_rules 3
postern_gateway_policy_stale 0
`
	if diff := cmp.Diff(want, w.metrics(t)); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
	lines := w.log.lines()
	if len(lines) != 2 {
		t.Fatalf("%d lines are logged, want one for each fetch that is audited: %v", len(lines), lines)
	}
	for _, part := range []string{
		`"rule":"watched"`, `"reason":"would be refused"`, `"namespace":"shop"`, `"service_account":"app"`, `"secret_provider_class":"db"`, `"pod":"web-0"`,
	} {
		if !strings.Contains(lines[0], part) {
			t.Errorf("the line has no %s: %s", part, lines[0])
		}
	}
	if text := strings.Join(lines, ""); strings.Contains(text, "the-token") || strings.Contains(text, "the-secret") || strings.Contains(text, "bank-app") {
		t.Errorf("a token, a secret or a parameter is logged: %s", text)
	}
}
