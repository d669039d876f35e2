package sdk_test

import (
	"bytes"
	"context"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"testing"

	"google.golang.org/grpc"

	"github.com/postern-dev/postern/internal/unixsocket"
	v1alpha1 "github.com/postern-dev/postern/proto/gen/go/compat/v1alpha1"
	providerv1 "github.com/postern-dev/postern/proto/gen/go/postern/provider/v1"
	secretv1 "github.com/postern-dev/postern/proto/gen/go/postern/secret/v1"
	"github.com/postern-dev/postern/providers/sdk"
)

// scripted is a provider that does what a test says. What happens is noted in
// order.
type scripted struct {
	fetch    func(ctx context.Context, req *sdk.Request) (*sdk.Response, error)
	run      func(ctx context.Context) error
	shutdown error
	released chan string

	mu     sync.Mutex
	events []string
}

func (s *scripted) note(event string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, event)
}

func (s *scripted) Fetch(ctx context.Context, req *sdk.Request) (*sdk.Response, error) {
	defer s.note("fetched")
	return s.fetch(ctx, req)
}

func (s *scripted) Release(_ context.Context, volumeID string) error {
	s.released <- volumeID
	return nil
}

func (s *scripted) Run(ctx context.Context) error {
	if s.run != nil {
		return s.run(ctx)
	}
	<-ctx.Done()
	s.note("background ended")
	return ctx.Err()
}

func (s *scripted) Shutdown(context.Context) error {
	s.note("shut down")
	return s.shutdown
}

func definition(p sdk.Provider) sdk.Definition {
	return sdk.Definition{
		Name: "scripted", Version: "1.2.3", NotModified: true, Leases: true,
		New: func(context.Context, sdk.Environment) (sdk.Provider, error) { return p, nil },
	}
}

// shortDir makes a directory whose name is short enough for sockets.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sdk")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// running is a provider's process.
type running struct {
	dir      string
	provider providerv1.ProviderServiceClient
	upstream v1alpha1.CSIDriverProviderClient
	stop     context.CancelFunc
	done     chan error
	logs     *syncBuffer
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// start runs a provider in dir as instance "test", and waits until it answers.
func start(t *testing.T, dir string, def sdk.Definition, args ...string) *running {
	t.Helper()
	r := startWaiting(t, dir, def, append([]string{"--health-addr="}, args...)...)
	if _, err := r.provider.Describe(t.Context(), &providerv1.DescribeRequest{}, grpc.WaitForReady(true)); err != nil {
		t.Fatal(err)
	}
	return r
}

// startWaiting starts a provider whose directory need not be there yet.
func startWaiting(t *testing.T, dir string, def sdk.Definition, args ...string) *running {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	conn, err := unixsocket.Dial(filepath.Join(dir, "test.sock"), unixsocket.DialConfig{})
	if err != nil {
		t.Fatal(err)
	}
	r := &running{
		dir: dir, stop: stop, done: make(chan error, 1), logs: &syncBuffer{},
		provider: providerv1.NewProviderServiceClient(conn), upstream: v1alpha1.NewCSIDriverProviderClient(conn),
	}
	env := sdk.Env{
		Args:   append([]string{"--listen-dir=" + dir, "--instance=test", "--health-addr=127.0.0.1:0"}, args...),
		Getenv: func(string) string { return "" }, Stdout: r.logs, Stderr: r.logs,
	}
	go func() { r.done <- sdk.Run(ctx, def, env) }()
	t.Cleanup(func() {
		stop()
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// health returns the status of a probe, 0 while nobody listens.
func (r *running) health(t *testing.T, path string) int {
	t.Helper()
	match := regexp.MustCompile(`"admin server listens","address":"([^"]+)"`).FindStringSubmatch(r.logs.String())
	if match == nil {
		return 0
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+match[1]+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

func fetchRequest() *providerv1.FetchRequest {
	return &providerv1.FetchRequest{
		VolumeId: "volume", SecretProviderClass: "class", DefaultFileMode: 0o640,
		Pod: &secretv1.Pod{Namespace: "ns", Name: "pod", Uid: "uid", ServiceAccount: &secretv1.ServiceAccount{Name: "sa"}},
	}
}

func oneFile() *sdk.Response {
	return &sdk.Response{
		Files:   []sdk.File{{Path: "f", Contents: sdk.NewSecret([]byte("content"))}},
		Objects: []sdk.ObjectVersion{{ID: "o", Version: "1"}},
	}
}

func answering(resp *sdk.Response) *scripted {
	return &scripted{fetch: func(context.Context, *sdk.Request) (*sdk.Response, error) { return resp, nil }}
}
