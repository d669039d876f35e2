package azure

import (
	"bufio"
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"strings"
	"sync"

	"github.com/postern-dev/postern/test/azure/control"
	"github.com/postern-dev/postern/test/double"
)

// tokenProxyHost is AKS' token proxy, behind the proxy.
const tokenProxyHost = "kubernetes.default.svc.cluster.local"

// tunnels is a listener of the connections that clients make through the proxy.
//
// Invariants:
//  1. Once done is closed nothing is put into accepted.
type tunnels struct {
	accepted chan net.Conn
	once     sync.Once
	done     chan struct{}
}

func newTunnels() *tunnels { return &tunnels{accepted: make(chan net.Conn), done: make(chan struct{})} }

// Accept implements net.Listener.
func (t *tunnels) Accept() (net.Conn, error) {
	select {
	case connection := <-t.accepted:
		return connection, nil
	case <-t.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (t *tunnels) Close() error {
	t.once.Do(func() { close(t.done) })
	return nil
}

// Addr implements net.Listener.
func (*tunnels) Addr() net.Addr { return &net.TCPAddr{} }

func (t *tunnels) put(connection net.Conn) {
	select {
	case t.accepted <- connection:
	case <-t.done:
		_ = connection.Close()
	}
}

// tunnel is a connection to a host, of which the client may have sent something
// already.
type tunnel struct {
	net.Conn

	sent *bufio.Reader
	host string
}

// Read implements net.Conn.
func (t *tunnel) Read(b []byte) (int, error) { return t.sent.Read(b) }

// hostKey is where a request's context has the host that its client connected to.
type hostKey struct{}

// withHost keeps the host of a tunnel, inside TLS.
func withHost(ctx context.Context, connection net.Conn) context.Context {
	if wrapped, ok := connection.(*tls.Conn); ok {
		connection = wrapped.NetConn()
	}
	if t, ok := connection.(*tunnel); ok {
		return context.WithValue(ctx, hostKey{}, t.host)
	}
	return ctx
}

// plays tells whether the double is a host.
func (s *Server) plays(host string) bool {
	return s.directory.Plays(host) || s.vaults.Has(host) || host == tokenProxyHost
}

// certifies tells whether a server name is one of a host's.
func (s *Server) certifies(name string) bool {
	return s.plays(name) || (name != "" && name == s.sniName())
}

// serverName is what a client of a host has to ask for.
func (s *Server) serverName(host string) string {
	if sni := s.sniName(); host == tokenProxyHost && sni != "" {
		return sni
	}
	return host
}

// serveConnect answers as an HTTP proxy, of CONNECT alone.
func (s *Server) serveConnect(w http.ResponseWriter, r *http.Request) {
	host, port, err := net.SplitHostPort(r.Host)
	host = strings.ToLower(host)
	if r.Method != http.MethodConnect || err != nil || port != "443" {
		s.record.Violation(control.Violation{Service: control.Proxy, Side: "request", Path: r.Host, Problem: "not CONNECT to port 443: " + r.Method})
		http.Error(w, "this proxy knows CONNECT to port 443 alone", http.StatusMethodNotAllowed)
		return
	}
	q := control.Request{Service: control.Proxy, Operation: control.Connect, Host: host, Status: http.StatusBadGateway, Code: control.NameDoesNotResolve}
	if s.refuses(w, r, q) {
		return
	}
	connection, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if _, err := connection.Write([]byte("HTTP/1.1 200 Connection established\r\n\r\n")); err != nil {
		_ = connection.Close()
		return
	}
	s.proxied.put(&tunnel{Conn: connection, sent: buffered.Reader, host: host})
}

// refuses answers a CONNECT that is not to be: to a host that is not there, or by a
// fault.
func (s *Server) refuses(w http.ResponseWriter, r *http.Request, q control.Request) bool {
	fault, ended, ok := s.faults.Take(func(f *control.Fault) bool {
		return f.Service == control.Proxy && (f.Vault == "" || f.Vault == q.Host)
	})
	if ok {
		note := func(status int, kind string) {
			q.Status, q.Code = status, kind
			s.note(q)
		}
		if (double.Injection{Kind: fault.Kind, Latency: timeOf(fault), Ended: ended, Note: note}).Do(w, r) {
			return true
		}
	}
	if ok && fault.Kind == control.Unresolved || !s.plays(q.Host) {
		s.note(q)
		http.Error(w, "cannot resolve "+q.Host, http.StatusBadGateway)
		return true
	}
	return false
}
