package azure

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"

	"github.com/postern-dev/postern/test/azure/api"
	"github.com/postern-dev/postern/test/azure/control"
	"github.com/postern-dev/postern/test/azure/entra"
	"github.com/postern-dev/postern/test/double/authority"
)

// listenTokenProxy has AKS' token proxy answer at an address of its own.
func (s *Server) listenTokenProxy(ctx context.Context) error {
	address := cmp.Or(s.cfg.TokenProxy, defaultListen)
	if address == Off {
		return nil
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("listen at %s: %w", address, err)
	}
	// Without a name that it is told it takes any.
	accepts := func(name string) bool { return s.sniName() == "" || name == s.sniName() }
	s.servers.Serve(listener, &http.Server{
		Handler: http.HandlerFunc(s.answerTokenProxy), TLSConfig: s.authority.TLS(accepts), Protocols: authority.Protocols(),
	})
	s.Addresses.TokenProxy = "https://" + listener.Addr().String()
	return nil
}

func (s *Server) answerTokenProxy(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	proxy := s.tokenProxy
	s.mu.Unlock()
	from := s.entra(cmp.Or(proxy.Authority, entra.Public))
	from.serve = func(ctx context.Context, c *api.Call) api.Answer { return s.directory.ServeProxied(ctx, c, proxy) }
	s.answer(w, r, control.Request{Service: control.TokenProxied, Host: r.Host}, from)
}

// sniName is the only server name that the token proxy takes.
func (s *Server) sniName() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tokenProxy.SNIName
}

func (s *Server) putTokenProxy(p *control.TokenProxy) {
	if p == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokenProxy = *p
}
