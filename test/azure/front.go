package azure

import (
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

	"github.com/postern-dev/postern/test/azure/api"
	"github.com/postern-dev/postern/test/azure/control"
	"github.com/postern-dev/postern/test/azure/entra"
	"github.com/postern-dev/postern/test/azure/keyvault"
	"github.com/postern-dev/postern/test/azure/node"
	"github.com/postern-dev/postern/test/double"
	"github.com/postern-dev/postern/test/double/tunnel"
)

// maxRequest is more than any request may have.
const maxRequest = 1 << 20

// service is one that the double plays.
type service struct {
	// identify notes in a call what it asks for.
	identify func(*api.Call)
	// serve answers it.
	serve func(context.Context, *api.Call) api.Answer
	// complete says what the service would, where a fault does not.
	complete func(control.Fault) control.Fault
	// told is how it tells an error.
	told func(api.Refusal) api.Answer
}

func (s *Server) entra(host string) service {
	return service{
		identify: s.directory.Identify,
		serve:    func(ctx context.Context, c *api.Call) api.Answer { return s.directory.Serve(ctx, c, host) },
		complete: entra.Defaults,
		told:     func(r api.Refusal) api.Answer { return s.directory.Injected(host, r) },
	}
}

func (s *Server) vault(host string) service {
	return service{
		identify: s.vaults.Identify,
		serve:    func(ctx context.Context, c *api.Call) api.Answer { return s.vaults.Serve(ctx, c, host) },
		complete: keyvault.Defaults, told: keyvault.Told,
	}
}

func (s *Server) imds() service {
	return service{
		identify: func(c *api.Call) { c.Operation = control.Token },
		serve:    func(_ context.Context, c *api.Call) api.Answer { return s.nodes.ServeIMDS(c) },
		complete: node.Defaults,
		told:     func(r api.Refusal) api.Answer { return node.Told(r.Status, r.Code, r.Message) },
	}
}

func (s *Server) nmi() service {
	return service{
		identify: func(c *api.Call) { c.Operation = control.Token },
		serve:    func(_ context.Context, c *api.Call) api.Answer { return s.nodes.ServeNMI(c) },
		complete: node.Defaults,
		told:     func(r api.Refusal) api.Answer { return node.ToldText(r.Status, r.Message) },
	}
}

// at answers at an address of its own.
func (s *Server) at(name string, of func() service) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.answer(w, r, control.Request{Service: name, Host: r.Host}, of())
	})
}

// serveProxied answers behind the proxy.
func (s *Server) serveProxied(w http.ResponseWriter, r *http.Request) {
	host := ""
	if t, ok := tunnel.Of(r.Context()); ok {
		host = t.Host
	}
	q := control.Request{Host: host}
	if said, _, err := net.SplitHostPort(r.Host); err == nil {
		r.Host = said
	}
	// Clients of AKS' token proxy may name the authority that they want.
	if (host != tokenProxyHost && !strings.EqualFold(r.Host, host)) || r.TLS.ServerName != s.serverName(host) {
		s.record.Violation(control.Violation{Side: "request", Path: host, Problem: "asked for " + r.Host + " of server name " + r.TLS.ServerName})
		http.Error(w, "misdirected", http.StatusMisdirectedRequest)
		return
	}
	switch {
	case s.vaults.Has(host):
		q.Vault = host
		s.answer(w, r, q, s.vault(host))
	case host == tokenProxyHost:
		s.answerTokenProxy(w, r)
	case s.directory.Plays(host):
		q.Service = control.Entra
		s.answer(w, r, q, s.entra(host))
	default: // a vault that is deleted since the connection was made
		q.Service, q.Operation, q.Status, q.Code = control.Proxy, control.Connect, http.StatusBadGateway, control.NameDoesNotResolve
		s.note(q)
		w.Header().Set("Connection", "close")
		http.Error(w, "cannot resolve "+host, q.Status)
	}
}

// answer has a service answer, unless a fault does.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, q control.Request, from service) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if err != nil {
		http.Error(w, "read the request: "+err.Error(), http.StatusBadRequest)
		return
	}
	c := &api.Call{Request: q, HTTP: r, Body: body}
	from.identify(c)
	answer, done := s.inject(w, c, from)
	if done {
		return
	}
	if answer == nil {
		served := from.serve(r.Context(), c)
		answer = &served
	}
	c.Status, c.Code, c.InnerCode = answer.Status, answer.Code, answer.InnerCode
	s.record.Violation(c.Violations...)
	s.note(c.Request)
	maps.Copy(w.Header(), answer.Header)
	w.Header().Set("Content-Type", answer.ContentType)
	w.Header().Set("X-Ms-Request-Id", strconv.FormatInt(time.Now().UnixNano(), 36))
	w.WriteHeader(answer.Status)
	_, _ = w.Write(answer.Body) // a client that is gone needs no answer
}

// inject does what a fault wants with a call. Neither an answer nor done: there is
// none, or it has only waited.
func (s *Server) inject(w http.ResponseWriter, c *api.Call, from service) (answer *api.Answer, done bool) {
	fault, ended, ok := s.faults.Take(func(f *control.Fault) bool { return matches(f, c) })
	if !ok {
		return nil, false
	}
	note := func(status int, kind string) {
		c.Status, c.Code = status, kind
		s.note(c.Request)
	}
	if (double.Injection{Kind: fault.Kind, Latency: timeOf(fault), Ended: ended, Note: note}).Do(w, c.HTTP) {
		return nil, true
	}
	if fault.Kind == control.Latency {
		return nil, false
	}
	fault = from.complete(fault)
	told := from.told(api.Refusal{Status: fault.Status, Code: fault.Code, InnerCode: fault.InnerCode, Message: fault.Message})
	if fault.RetryAfter > 0 {
		told.Header = http.Header{"Retry-After": {strconv.Itoa(fault.RetryAfter)}}
	}
	return &told, false
}

func timeOf(f control.Fault) time.Duration { return time.Duration(f.Latency) }

// matches tells whether a fault is for a call.
func matches(f *control.Fault, c *api.Call) bool {
	is := func(want, got string) bool { return want == "" || strings.EqualFold(want, got) }
	return is(f.Service, c.Service) && is(f.Operation, c.Operation) && is(f.Object, c.Object) && is(f.ClientID, c.ClientID) &&
		(f.Vault == "" || c.Vault != "" && keyvault.Is(f.Vault, c.Vault)) &&
		(!f.Bearer || c.HTTP.Header.Get("Authorization") != "")
}

// note records a request that is answered, or is not going to be.
func (s *Server) note(q control.Request) {
	s.record.Request(q)
	s.cfg.Logger.Debug("request", slog.String("service", q.Service), slog.String("operation", q.Operation), slog.String("host", q.Host),
		slog.String("object", q.Object), slog.String("client", q.ClientID), slog.Int("status", q.Status), slog.String("code", q.Code))
}

// kindOf is what a request is counted as.
func kindOf(q control.Request) (control.Call, int) {
	items := 0
	if q.Object != "" {
		items = 1
	}
	return control.Call{Service: q.Service, Operation: q.Operation, Vault: q.Vault, ClientID: q.ClientID, Code: q.Code}, items
}

// calls are the counts, in order.
func (s *Server) calls() []control.Call {
	all := []control.Call{}
	for _, counted := range s.record.Counts() {
		call := counted.Kind
		call.Count, call.Items = counted.Count, counted.Items
		all = append(all, call)
	}
	slices.SortFunc(all, func(a, b control.Call) int {
		return slices.Compare(
			[]string{a.Service, a.Operation, a.Vault, a.ClientID, a.Code},
			[]string{b.Service, b.Operation, b.Vault, b.ClientID, b.Code})
	})
	return all
}
