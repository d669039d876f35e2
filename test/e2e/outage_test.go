package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/postern-dev/postern/test/harness"
	"github.com/postern-dev/postern/test/kubelet"
)

// line is the network between a node and OpenBao, which can be cut.
type line struct {
	// address is OpenBao's URL by way of the line.
	address string

	mu    sync.Mutex
	cut   bool
	conns map[net.Conn]bool
}

func newLine(t *testing.T) *line {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(t, err)
	l := &line{address: "http://" + listener.Addr().String(), conns: map[net.Conn]bool{}}
	var carried sync.WaitGroup
	carried.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			carried.Go(func() { l.carry(conn) })
		}
	})
	t.Cleanup(func() {
		must(t, listener.Close())
		l.set(true)
		carried.Wait()
	})
	return l
}

// carry takes one connection to OpenBao, and what it says back.
func (l *line) carry(conn net.Conn) {
	if !l.add(conn) {
		return
	}
	defer l.remove(conn)
	far, err := new(net.Dialer).DialContext(context.Background(), "tcp", strings.TrimPrefix(servers.Bao.Address, "http://"))
	if err != nil || !l.add(far) {
		return
	}
	defer l.remove(far)
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(conn, far)
		_ = conn.Close()
	})
	_, _ = io.Copy(far, conn)
	_ = far.Close()
	back.Wait()
}

func (l *line) add(conn net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut {
		_ = conn.Close()
		return false
	}
	l.conns[conn] = true
	return true
}

func (l *line) remove(conn net.Conn) {
	_ = conn.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, conn)
}

// set cuts the line, or mends it.
func (l *line) set(cut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = cut
	for conn := range l.conns {
		if cut {
			_ = conn.Close()
		}
	}
}

func (l *line) class(t *testing.T, namespace, name string, parameters map[string]any) {
	t.Helper()
	parameters["vaultAddress"] = l.address
	class(t, namespace, name, vaultSpec(namespace, parameters))
}

// While the store is down what is mounted stays, and new pods get the last
// answer, which is said loudly, for as long as the class allows.
func TestOutage(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	namespace := tenant(t, map[string]any{"username": "bob", "password": "p4ssw0rd"})
	store := newLine(t)
	store.class(t, namespace, "lasting", map[string]any{"maxAge": "0", "maxStale": "1h"})
	store.class(t, namespace, "short", map[string]any{"maxAge": "0", "maxStale": "5s"})
	store.class(t, namespace, "never", map[string]any{"maxStale": "0s", "maxAge": "0"})
	want := map[string]string{"username": "bob", "password": "p4ssw0rd"}
	for _, class := range []string{"lasting", "short", "never"} {
		v := pod(t, namespace, "before-"+class, class)
		n.publish(t, v)
		defer n.wantFiles(t, v, want)
	}
	store.set(true)

	late := pod(t, namespace, "late", "lasting")
	n.publish(t, late)
	n.wantFiles(t, late, want)
	n.wantStaleEvent(t, late)
	n.wantStaleSpan(t, late)
	metrics, err := n.Gateway.Get(t.Context(), "/metrics")
	must(t, err)
	if !strings.Contains(metrics, `result="stale"`) {
		t.Error("no metric says that a stale answer was served")
	}

	wantUnavailable := func(class string) bool {
		v := pod(t, namespace, fmt.Sprintf("%s-%d", class, time.Now().UnixNano()), class)
		err := n.Kubelet.Publish(t.Context(), v)
		defer n.unpublish(t, v)
		if err != nil && (status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "couldn't") && !strings.Contains(err.Error(), "failed")) {
			t.Errorf("%s: got %v, want Unavailable and why", class, err)
		}
		return err != nil
	}
	if !wantUnavailable("never") {
		t.Error("a class that wants no stale answer got one")
	}
	eventually(t, "a stale answer is too old", func() bool { return wantUnavailable("short") })

	store.set(false)
	eventually(t, "the store is asked again", func() bool {
		v := pod(t, namespace, fmt.Sprintf("after-%d", time.Now().UnixNano()), "never")
		defer n.unpublish(t, v)
		return n.Kubelet.Publish(t.Context(), v) == nil
	})
}

func (n *node) wantStaleEvent(t *testing.T, v kubelet.Volume) {
	t.Helper()
	eventually(t, "the pod has the event SecretsStale", func() bool {
		events, err := servers.API.Client.CoreV1().Events(v.Namespace).List(t.Context(), metav1.ListOptions{
			FieldSelector: "involvedObject.name=" + v.Pod + ",reason=SecretsStale",
		})
		must(t, err)
		return len(events.Items) == 1 && strings.Contains(events.Items[0].Message, "unreachable")
	})
}

func (n *node) wantStaleSpan(t *testing.T, v kubelet.Volume) {
	t.Helper()
	trace := n.trace(t, v, "postern-driver", "postern-gateway")
	for _, span := range trace.Spans {
		if span.Name == "gateway.Fetch" && span.Attributes["postern.source"] == "stale" {
			return
		}
	}
	t.Errorf("no span says that the answer is stale: %v", trace.Spans)
}

// What the store refuses is refused, whatever is in memory, and drops that.
func TestOutage_RefusalIsNotCoveredUp(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	namespace := tenant(t, map[string]any{"username": "bob", "password": "p4ssw0rd"})
	store := newLine(t)
	store.class(t, namespace, "app", map[string]any{"maxAge": "0", "maxStale": "1h"})
	publish := func(name string) error {
		v := pod(t, namespace, name, "app")
		defer n.unpublish(t, v)
		return n.Kubelet.Publish(t.Context(), v)
	}
	must(t, publish("before"))
	must(t, servers.Bao.PutPolicy(t.Context(), namespace, `path "secret/data/other" { capabilities = ["read"] }`))
	if err := publish("denied"); status.Code(err) != codes.PermissionDenied {
		t.Errorf("got %v, want PermissionDenied", err)
	}
	store.set(true)
	if err := publish("down"); status.Code(err) != codes.Unavailable {
		t.Errorf("got %v, want Unavailable: what the store refused was kept", err)
	}
}

// A provider that hangs, is flooded and crashes costs another one nothing.
func TestOutage_OneProviderHangs(t *testing.T) {
	t.Parallel()
	n := startNode(t, func(c *harness.Config) {
		c.GatewayArgs = append(c.GatewayArgs, "--max-calls=4", "--max-queued=8", "--call-timeout=5s")
	})
	namespace := tenant(t, map[string]any{"username": "bob", "password": "p4ssw0rd"})
	n.storeFile(t, namespace, "app/key", "value")
	class(t, namespace, "file", map[string]any{"provider": "file", "parameters": map[string]any{"objects": "- {objectName: app/key}\n"}})
	must(t, n.Providers["vault"].Signal(syscall.SIGSTOP))
	ctx, cancel := context.WithCancel(t.Context())
	var flood sync.WaitGroup
	defer flood.Wait()
	defer cancel()
	for i := range 40 {
		name := fmt.Sprintf("flood-%d", i)
		class(t, namespace, name, vaultSpec(namespace, nil))
		v := podOf(t, namespace, "web", name, name)
		flood.Go(func() {
			err := n.Kubelet.Publish(ctx, v)
			if err == nil {
				t.Errorf("%s: a provider that is stopped answered", v.Pod)
			}
			if err := n.Kubelet.Unpublish(context.WithoutCancel(ctx), v); err != nil {
				t.Error(err)
			}
		})
	}
	eventually(t, "the budget is used up", func() bool {
		report, err := n.Gateway.Get(t.Context(), "/metrics")
		must(t, err)
		return strings.Contains(report, `postern_gateway_budget_refused_total{`)
	})
	for i := range 20 {
		v := pod(t, namespace, fmt.Sprintf("file-%d", i), "file")
		short, stop := context.WithTimeout(ctx, 4*time.Second) // less than a call of the other takes
		err := n.Kubelet.Publish(short, v)
		stop()
		if err != nil {
			t.Errorf("while another provider hangs: %v", err)
		}
		n.unpublish(t, v)
	}
	must(t, n.Providers["vault"].Signal(syscall.SIGCONT))
	cancel()
	flood.Wait()
	v := pod(t, namespace, "after", "flood-0")
	eventually(t, "the provider is itself again", func() bool {
		err := n.Kubelet.Publish(t.Context(), v)
		return err == nil || errors.Is(err, context.Canceled)
	})
	n.unpublish(t, v)
}
