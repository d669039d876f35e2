package gcp

import (
	"cmp"
	"context"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postern-dev/postern/test/double"
	"github.com/postern-dev/postern/test/double/tunnel"
	"github.com/postern-dev/postern/test/gcp/api"
	"github.com/postern-dev/postern/test/gcp/control"
	"github.com/postern-dev/postern/test/gcp/metadata"
)

// maxRequest is more than any request may have.
const maxRequest = 1 << 20

// service is one that the double plays over HTTP.
type service struct {
	// identify notes in a call what it asks for.
	identify func(*api.Call)
	// serve answers it.
	serve func(context.Context, *api.Call) api.Answer
	// injected is the answer that a fault brings about.
	injected func(control.Fault) api.Answer
}

func (s *Server) serviceOf(name string) service {
	switch name {
	case control.IAMCredentials:
		return service{s.accounts.IdentifyCredentials, s.accounts.ServeCredentials, func(f control.Fault) api.Answer { return api.Injected(f).Answer() }}
	case control.OAuth2:
		return service{s.accounts.IdentifyToken, s.accounts.ServeToken, injectedOAuth}
	case control.MetadataServer:
		return service{s.metadata.Identify, func(_ context.Context, c *api.Call) api.Answer { return s.metadata.Serve(c) }, metadata.Injected}
	default:
		return service{s.exchange.Identify, s.exchange.Serve, injectedOAuth}
	}
}

// injectedOAuth is how the token services tell an error that a fault brings about.
func injectedOAuth(f control.Fault) api.Answer {
	switch f.Kind {
	case control.Throttle:
		return api.OAuthError(http.StatusTooManyRequests, cmp.Or(f.Code, "rate_limit_exceeded"), cmp.Or(f.Message, "Too many requests."))
	case control.Unavailable:
		return api.OAuthError(http.StatusServiceUnavailable, cmp.Or(f.Code, "internal_failure"), cmp.Or(f.Message, "The service is currently unavailable."))
	default:
		return api.OAuthError(cmp.Or(f.Status, http.StatusBadRequest), f.Code, f.Message)
	}
}

func (s *Server) serveMetadata(w http.ResponseWriter, r *http.Request) {
	s.serve(w, &api.Call{Request: control.Request{Service: control.MetadataServer, Host: r.Host}, HTTP: r})
}

// serveProxied answers behind the proxy.
func (s *Server) serveProxied(w http.ResponseWriter, r *http.Request) {
	through, ok := tunnel.Of(r.Context())
	if !ok {
		http.Error(w, "not through the proxy", http.StatusInternalServerError)
		return
	}
	if said, _, err := net.SplitHostPort(r.Host); err == nil {
		r.Host = said
	}
	if !strings.EqualFold(r.Host, through.Host) || r.TLS.ServerName != through.Host {
		s.record.Violation(control.Violation{Path: through.Host, Problem: "asked for " + r.Host + " of server name " + r.TLS.ServerName})
		http.Error(w, "misdirected", http.StatusMisdirectedRequest)
		return
	}
	c := &api.Call{Request: control.Request{Service: api.ServiceOf(through.Host), Host: through.Host, Connection: through.Number}, HTTP: r}
	if c.Service == control.SecretManager || c.Service == control.ParameterManager {
		s.serveGRPC(w, c)
		return
	}
	s.serve(w, c)
}

// serve has a service answer over HTTP, unless a fault does.
func (s *Server) serve(w http.ResponseWriter, c *api.Call) {
	var err error
	if c.Body, err = io.ReadAll(http.MaxBytesReader(w, c.HTTP.Body, maxRequest)); err != nil {
		http.Error(w, "read the request: "+err.Error(), http.StatusBadRequest)
		return
	}
	by := s.serviceOf(c.Service)
	by.identify(c)
	fault, done := s.inject(w, c)
	if done {
		return
	}
	var answer api.Answer
	if fault == nil {
		answer = by.serve(c.HTTP.Context(), c)
	} else {
		answer = by.injected(*fault)
		if fault.RetryAfter > 0 {
			answer.Header = http.Header{"Retry-After": {strconv.Itoa(fault.RetryAfter)}}
		}
	}
	c.Status, c.Code, c.Reason = answer.Status, answer.Code, answer.Reason
	s.record.Violation(c.Violations...)
	s.note(c.Request)
	maps.Copy(w.Header(), answer.Header)
	w.Header().Set("Content-Type", answer.ContentType)
	w.WriteHeader(answer.Status)
	_, _ = w.Write(answer.Body) // a client that is gone needs no answer
}

// inject does what a fault wants with a call. It returns the fault if it is one
// that the service has to tell.
func (s *Server) inject(w http.ResponseWriter, c *api.Call) (told *control.Fault, done bool) {
	fault, ended, ok := s.faults.Take(func(f *control.Fault) bool { return matches(f, c) })
	if !ok {
		return nil, false
	}
	note := func(status int, kind string) {
		c.Status, c.Code = status, kind
		s.note(c.Request)
	}
	if (double.Injection{Kind: fault.Kind, Latency: timeOf(fault), Ended: ended, Note: note}).Do(w, c.HTTP) {
		hangUp(c, fault)
		return nil, true
	}
	switch fault.Kind {
	case control.Latency:
		return nil, false
	case control.Corrupt, control.NoChecksum:
		c.Damage = fault.Kind
		return nil, false
	default:
		return &fault, false
	}
}

// hangUp closes a connection of HTTP/2 without an answer, with all that is on it. A
// client that has left a request may still need it.
func hangUp(c *api.Call, fault control.Fault) {
	through, ok := tunnel.Of(c.HTTP.Context())
	if ok && fault.Kind != control.Garbage && (fault.Kind == control.Close || c.HTTP.Context().Err() == nil) {
		_ = through.Close() // nobody hears of it any more
	}
}

func timeOf(f control.Fault) time.Duration { return time.Duration(f.Latency) }

// matches tells whether a fault is for a call.
func matches(f *control.Fault, c *api.Call) bool {
	is := func(want, got string) bool { return want == "" || want == got }
	return is(f.Service, c.Service) && is(f.Operation, c.Operation) && is(f.Host, c.Host) && is(f.Principal, c.Principal) &&
		(is(f.Resource, c.Resource) || f.Resource == lastPart(c.Resource))
}

// lastPart is the last part of a resource's name but for its version.
func lastPart(name string) string {
	name, _, _ = strings.Cut(name, "/versions/")
	return name[strings.LastIndexByte(name, '/')+1:]
}

// note records a request that is answered, or is not going to be.
func (s *Server) note(q control.Request) {
	s.record.Request(q)
	s.cfg.Logger.Debug("request", slog.String("service", q.Service), slog.String("operation", q.Operation), slog.String("host", q.Host),
		slog.String("resource", q.Resource), slog.String("principal", q.Principal), slog.Int("status", q.Status), slog.String("code", q.Code))
}

// kindOf is what a request is counted as.
func kindOf(q control.Request) (control.Call, int) {
	return control.Call{Service: q.Service, Operation: q.Operation, Host: q.Host, Principal: q.Principal, Code: q.Code}, 1
}

// calls are the counts, in order.
func (s *Server) calls() []control.Call {
	all := []control.Call{}
	for _, counted := range s.record.Counts() {
		call := counted.Kind
		call.Count = counted.Count
		all = append(all, call)
	}
	slices.SortFunc(all, func(a, b control.Call) int {
		return slices.Compare(
			[]string{a.Service, a.Operation, a.Host, a.Principal, a.Code},
			[]string{b.Service, b.Operation, b.Host, b.Principal, b.Code})
	})
	return all
}
