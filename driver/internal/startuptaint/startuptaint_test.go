package startuptaint_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/postern-dev/postern/driver/internal/startuptaint"
	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const key = "secrets-store.csi.k8s.io/agent-not-ready"

// node is a cluster of one node, with its gateway.
type node struct {
	mu      sync.Mutex
	tainted bool
	// failures are the answers to the next calls of the API server.
	failures []error
	calls    int
	// status is nil while there is no gateway.
	status *gatewayv1.StatusResponse
}

func (n *node) call() error {
	n.calls++
	if len(n.failures) == 0 {
		return nil
	}
	err := n.failures[0]
	n.failures = n.failures[1:]
	return err
}

func (n *node) HasNodeTaint(_ context.Context, name, asked string) (bool, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if name != "n1" || asked != key {
		return false, errors.New("another node or taint")
	}
	err := n.call()
	return n.tainted && err == nil, err
}

func (n *node) RemoveNodeTaint(_ context.Context, name, asked string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if name != "n1" || asked != key {
		return errors.New("another node or taint")
	}
	if err := n.call(); err != nil {
		return err
	}
	n.tainted = false
	return nil
}

// Status waits for the gateway as the real client does.
func (n *node) Status(ctx context.Context) (*gatewayv1.StatusResponse, error) {
	for {
		n.mu.Lock()
		status := n.status
		n.mu.Unlock()
		if status != nil {
			return status, nil
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (n *node) set(change func(*node)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change(n)
}

func (n *node) isTainted() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.tainted
}

func statusOf(state gatewayv1.Instance_State, names ...string) *gatewayv1.StatusResponse {
	status := &gatewayv1.StatusResponse{}
	for _, name := range names {
		status.Providers = append(status.Providers, &gatewayv1.ProviderStatus{
			Name: name, Instances: []*gatewayv1.Instance{{State: gatewayv1.Instance_STATE_REFUSED}, {State: state}},
		})
	}
	return status
}

const serving = gatewayv1.Instance_STATE_SERVING

// run starts a Remover in a synctest bubble.
func run(t *testing.T, n *node, providers ...string) (log *bytes.Buffer, done <-chan error) {
	t.Helper()
	log = &bytes.Buffer{}
	remover, err := startuptaint.New(startuptaint.Config{
		Node: "n1", Key: key, Providers: providers, Nodes: n, Gateway: n, Logger: slog.New(slog.NewTextHandler(log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- remover.Run(t.Context()) }()
	return log, ended
}

func TestRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := &node{tainted: true}
		log, done := run(t, n, "vault", "file")
		stays := func(why string, change func(*node)) {
			t.Helper()
			n.set(change)
			<-time.After(time.Minute)
			synctest.Wait()
			if !n.isTainted() {
				t.Fatalf("the taint is gone although %s", why)
			}
			if strings.Count(log.String(), why) != 1 {
				t.Errorf("the log does not say %q once:\n%s", why, log)
			}
		}
		stays("the gateway does not answer", func(*node) {})
		stays("no instance serves of provider vault, file", func(n *node) { n.status = statusOf(serving, "aws") })
		stays("no instance serves of provider file", func(n *node) { n.status = statusOf(serving, "vault") })
		starting := statusOf(gatewayv1.Instance_STATE_CONNECTING, "vault", "file")
		n.set(func(n *node) { n.status = starting })
		<-time.After(time.Minute)
		if !n.isTainted() {
			t.Fatal("the taint is gone although the providers only start")
		}
		n.set(func(n *node) { n.status = statusOf(serving, "vault", "file") })
		if err := <-done; err != nil || n.isTainted() {
			t.Errorf("Run = %v, still tainted: %t", err, n.isTainted())
		}
		if n.calls != 2 {
			t.Errorf("the API server was called %d times, want twice", n.calls)
		}
	})
}

func TestRun_GatewayIsEnough(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := &node{tainted: true, status: statusOf(serving)}
		_, done := run(t, n)
		if err := <-done; err != nil || n.isTainted() {
			t.Errorf("Run = %v, still tainted: %t", err, n.isTainted())
		}
	})
}

func TestRun_NoTaint(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := &node{}
		_, done := run(t, n, "vault")
		if err := <-done; err != nil || n.calls != 1 {
			t.Errorf("Run = %v after %d calls, want one", err, n.calls)
		}
	})
}

// A conflict is tried again at once; what the API server refuses, ever later.
func TestRun_Retries(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		nodes := schema.GroupResource{Resource: "nodes"}
		conflict := apierrors.NewConflict(nodes, "n1", errors.New("changed"))
		forbidden := apierrors.NewForbidden(nodes, "n1", errors.New("no"))
		n := &node{tainted: true, status: statusOf(serving), failures: []error{errors.New("unreachable"), nil, conflict, conflict}}
		started := time.Now()
		log, done := run(t, n)
		if err := <-done; err != nil || n.isTainted() {
			t.Errorf("Run = %v, still tainted: %t", err, n.isTainted())
		}
		if took := time.Since(started); took > time.Second {
			t.Errorf("it took %v", took)
		}
		if !strings.Contains(log.String(), "unreachable") || strings.Contains(log.String(), "changed") {
			t.Errorf("the log has conflicts, or not the failure:\n%s", log)
		}

		n = &node{tainted: true, status: statusOf(serving)}
		for range 1000 {
			n.failures = append(n.failures, forbidden)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		remover, err := startuptaint.New(startuptaint.Config{Node: "n1", Key: key, Nodes: n, Gateway: n, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		if err := remover.Run(ctx); err != nil || n.calls > 130 || n.calls < 100 {
			t.Errorf("Run = %v after %d calls in an hour, want about 120", err, n.calls)
		}
	})
}

func TestNew_Refuses(t *testing.T) {
	t.Parallel()
	n := &node{}
	for name, cfg := range map[string]startuptaint.Config{
		"no node":    {Key: key, Nodes: n, Gateway: n, Logger: slog.New(slog.DiscardHandler)},
		"no key":     {Node: "n1", Nodes: n, Gateway: n, Logger: slog.New(slog.DiscardHandler)},
		"no gateway": {Node: "n1", Key: key, Nodes: n, Logger: slog.New(slog.DiscardHandler)},
	} {
		if _, err := startuptaint.New(cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
