package gcp

import (
	"log/slog"
	"net"
	"net/http"
	"strings"

	"github.com/postern-dev/postern/test/double"
	"github.com/postern-dev/postern/test/gcp/api"
	"github.com/postern-dev/postern/test/gcp/control"
)

// serveConnect answers as an HTTP proxy, of CONNECT alone.
func (s *Server) serveConnect(w http.ResponseWriter, r *http.Request) {
	host, port, err := net.SplitHostPort(r.Host)
	host = strings.ToLower(host)
	if r.Method != http.MethodConnect || err != nil || port != "443" {
		s.record.Violation(control.Violation{Service: control.Proxy, Path: r.Host, Problem: "not CONNECT to port 443: " + r.Method})
		http.Error(w, "this proxy knows CONNECT to port 443 alone", http.StatusMethodNotAllowed)
		return
	}
	q := control.Request{Service: control.Proxy, Operation: control.Connect, Host: host, Status: http.StatusBadGateway, Code: control.NameDoesNotResolve}
	if s.refuses(w, r, q) {
		return
	}
	if err := s.tunnels.Connect(w, host); err != nil {
		s.cfg.Logger.Warn("connect", slog.String("host", host), slog.Any("error", err))
	}
}

// refuses answers a CONNECT that is not to be: to a host that is not there, or by a
// fault.
func (s *Server) refuses(w http.ResponseWriter, r *http.Request, q control.Request) bool {
	fault, ended, ok := s.faults.Take(func(f *control.Fault) bool {
		return f.Service == control.Proxy && (f.Host == "" || f.Host == q.Host)
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
	if ok && fault.Kind == control.Unresolved || api.ServiceOf(q.Host) == "" {
		s.note(q)
		http.Error(w, "cannot resolve "+q.Host, http.StatusBadGateway)
		return true
	}
	return false
}
