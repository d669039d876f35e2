package store

import (
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"cloud.google.com/go/parametermanager/apiv1/parametermanagerpb"
	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

func TestMain(m *testing.M) { os.Exit(runTests(m)) }

func runTests(m *testing.M) int {
	code, err := runWithProxy(m)
	if err == nil && code == 0 {
		err = goleak.Find()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return max(code, 1)
	}
	return code
}

// runWithProxy has the process reach Google as it would from a company's network: by
// a proxy, and with an authority of its own. Both are read from the environment once.
func runWithProxy(m *testing.M) (code int, err error) {
	dir, err := os.MkdirTemp("", "postern-gcp-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	file := filepath.Join(dir, "ca.pem")
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authority().cert.Raw})
	proxy, err := startProxy()
	if err != nil {
		return 0, err
	}
	defer proxy.stop()
	sharedProxy = proxy
	if binary := os.Getenv(doubleEnv); binary != "" {
		if testDouble, err = startDouble(binary, file); err != nil {
			return 0, err
		}
		defer func() { err = errors.Join(err, testDouble.stop()) }()
		theirs, err := os.ReadFile(file)
		if err != nil {
			return 0, err
		}
		ca = append(ca, theirs...)
		proxy.next = strings.TrimPrefix(testDouble.Proxy, "http://")
	}
	if err := os.WriteFile(file, ca, 0o600); err != nil {
		return 0, err
	}
	for name, value := range map[string]string{"HTTPS_PROXY": "http://" + proxy.address(), "SSL_CERT_FILE": file, "NO_PROXY": ""} {
		if err := os.Setenv(name, value); err != nil {
			return 0, err
		}
	}
	return m.Run(), nil
}

// sharedProxy is the process' own. Tests whose Store has a network in it do without.
var sharedProxy *proxy

// proxy connects by CONNECT to hosts that tests have put there, by their names.
type proxy struct {
	listener net.Listener
	server   *http.Server
	running  sync.WaitGroup
	// next, if any, is the address of a proxy that is asked for other hosts.
	next string

	mu    sync.Mutex
	hosts map[string]string // name and port, address
}

func startProxy() (*proxy, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{listener: listener, hosts: make(map[string]string)}
	p.server = &http.Server{Handler: p}
	p.running.Go(func() { _ = p.server.Serve(listener) })
	return p, nil
}

func (p *proxy) address() string { return p.listener.Addr().String() }

func (p *proxy) stop() {
	_ = p.server.Close()
	p.running.Wait()
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	address, ok := p.hosts[r.Host]
	p.mu.Unlock()
	if !ok {
		address = p.next
	}
	if address == "" || r.Method != http.MethodConnect {
		http.Error(w, "<p>canary of a proxy's page", http.StatusBadGateway)
		return
	}
	there, err := net.Dial("tcp", address)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	here, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		_ = there.Close()
		return
	}
	if ok {
		// A header that says how long the body is would make gRPC wait for it.
		_, _ = io.WriteString(here, "HTTP/1.1 200 OK\r\n\r\n")
	} else {
		_, _ = fmt.Fprintf(there, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", r.Host, r.Host)
	}
	p.running.Go(func() {
		_, _ = io.Copy(there, buffered)
		_ = there.Close()
	})
	_, _ = io.Copy(here, there)
	_ = here.Close()
}

// serve has a host of the proxy's network be Google, until the test ends.
func (p *proxy) serve(t *testing.T, host string, m *memoryGoogle) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := grpc.NewServer(grpc.Creds(credentials.NewTLS(authority().config(host))))
	one := &server{m: m, host: host}
	secretmanagerpb.RegisterSecretManagerServiceServer(served, one)
	parametermanagerpb.RegisterParameterManagerServer(served, one)
	go func() { _ = served.Serve(listener) }()
	t.Cleanup(served.Stop)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hosts[host+":443"] = listener.Addr().String()
}

// TestProxy: with nothing but the environment, hosts are reached through the proxy,
// which resolves their names, and by the certificates that the environment names.
func TestProxy(t *testing.T) {
	t.Parallel()
	m := some()
	m.secrets = append(m.secrets, secretIn("proxied1", "web", 1))
	m.parameters = append(m.parameters, &memoryParameter{location: "proxied1", name: "conf", version: "v1", rendered: contentsOf + "conf"})
	for _, host := range []string{"secretmanager.proxied1.rep.googleapis.com", "parametermanager.proxied1.rep.googleapis.com"} {
		sharedProxy.serve(t, host, m)
	}
	s := New(Config{})
	defer s.Close()
	answers, err := s.Read(t.Context(), as("web"), []Ref{
		refIn("proxied1", "web", "latest"), refToParameter("proxied1", "conf", "v1"), refIn("nowhere1", "web", "latest"),
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{contentsOf + "proxied1web1", contentsOf + "conf"} {
		if answers[i].Err != nil || string(answers[i].Contents.Reveal()) != want {
			t.Errorf("%v: %v", answers[i].Ref, answers[i].Err)
		}
	}
	e := asError(t, answers[2].Err)
	if e.Kind != Unavailable || e.Endpoint != "secretmanager.nowhere1.rep.googleapis.com" || !strings.HasPrefix(e.Message, "the proxy does not connect to it (502 Bad Gateway): ") {
		t.Errorf("error is %v", e)
	}
}
