package azure

import (
	"log/slog"
	"net"
	"net/http"
	"strings"

	"github.com/postern-dev/postern/test/azure/control"
	"github.com/postern-dev/postern/test/double"
)

// tokenProxyHost is AKS' token proxy, behind the proxy.
const tokenProxyHost = "kubernetes.default.svc.cluster.local"

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
	if err := s.proxied.Connect(w, host); err != nil {
		s.cfg.Logger.Warn("connect", slog.String("host", host), slog.Any("error", err))
	}
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
