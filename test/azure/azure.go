// Package azure is a test double of Azure: Entra, Key Vault, the instance metadata
// service, NMI and AKS' token proxy, behind an HTTP proxy that ends TLS for their
// names. It verifies assertions and access tokens, knows who may do what, and
// refuses what Microsoft's own fakes cannot route.
//
// README.md has its control API.
package azure

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/postern-dev/postern/test/azure/control"
	"github.com/postern-dev/postern/test/azure/entra"
	"github.com/postern-dev/postern/test/azure/keyvault"
	"github.com/postern-dev/postern/test/azure/node"
	"github.com/postern-dev/postern/test/double"
	"github.com/postern-dev/postern/test/double/authority"
	"github.com/postern-dev/postern/test/double/tunnel"
	"github.com/postern-dev/postern/test/token"
)

// Off is the address of what is not wanted.
const Off = double.Off

const defaultListen = "127.0.0.1:0"

// Config is what a Server may be told. The zero value is a server on free ports.
type Config struct {
	// Proxy, Control, IMDS, NMI and TokenProxy are addresses, such as 127.0.0.1:0.
	// The last three may be Off.
	Proxy, Control, IMDS, NMI, TokenProxy string
	// CAFile gets the certificate of its authority; "" for none.
	CAFile string
	// Issuers are those whose keys can be read from the start.
	Issuers []control.Issuer
	// Now is the clock; nil is the real one.
	Now func() time.Time
	// Logger gets a line for each request; nil for none.
	Logger *slog.Logger
}

// Server is a running double.
type Server struct {
	// Addresses are where it listens.
	Addresses control.Addresses

	cfg       Config
	authority *authority.Authority
	verifier  *token.Verifier
	directory *entra.Directory
	vaults    *keyvault.Store
	nodes     *node.Identities
	faults    *double.Faults[control.Fault]
	record    *double.Record[control.Call, control.Request, control.Violation]
	servers   *double.Servers
	proxied   *tunnel.Listener

	mu         sync.Mutex
	tokenProxy control.TokenProxy
}

// Start starts one. It listens when Start returns.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	s, err := assemble(cfg)
	if err != nil {
		return nil, err
	}
	if err := s.listen(ctx); err != nil {
		s.Close()
		return nil, err
	}
	if cfg.CAFile != "" {
		if err := double.WriteFile(cfg.CAFile, []byte(s.CA())); err != nil {
			s.Close()
			return nil, fmt.Errorf("write the certificate of the authority: %w", err)
		}
		s.Addresses.CAFile = cfg.CAFile
	}
	return s, nil
}

// assemble makes the parts of a server that does not listen yet.
func assemble(cfg Config) (*Server, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{
		cfg: cfg, verifier: token.NewVerifier(cfg.Now), servers: double.NewServers(cfg.Logger), proxied: tunnel.NewListener(),
		faults: double.NewFaults(func(f *control.Fault) double.Limits { return double.Limits{After: &f.After, Count: &f.Count} }),
		record: double.NewRecord[control.Call, control.Request, control.Violation](kindOf),
	}
	var err error
	if s.authority, err = authority.New(); err != nil {
		return nil, err
	}
	s.directory, err = entra.NewDirectory(entra.Config{
		Now: cfg.Now, Verifier: s.verifier, Resource: func(resource string) bool { return s.vaults.IsResource(resource) },
	})
	if err != nil {
		return nil, err
	}
	s.vaults = keyvault.New(keyvault.Config{Now: cfg.Now, Directory: s.directory})
	s.nodes = node.New(s.directory, s.vaults.IsResource)
	return s, double.Each(cfg.Issuers, s.verifier.Put)
}

func (s *Server) listen(ctx context.Context) error {
	for _, l := range []struct {
		address string
		handler http.Handler
		path    string
		to      *string
	}{
		{cmp.Or(s.cfg.Proxy, defaultListen), http.HandlerFunc(s.serveConnect), "", &s.Addresses.Proxy},
		{cmp.Or(s.cfg.Control, defaultListen), s.controlHandler(), "", &s.Addresses.Control},
		{cmp.Or(s.cfg.IMDS, defaultListen), s.at(control.IMDS, s.imds), "", &s.Addresses.IMDS},
		{cmp.Or(s.cfg.NMI, defaultListen), s.at(control.NMI, s.nmi), node.NMIPath, &s.Addresses.NMI},
	} {
		if l.address == Off {
			continue
		}
		address, err := s.servers.Listen(ctx, l.address, l.handler)
		if err != nil {
			return err
		}
		*l.to = "http://" + address + l.path
	}
	s.servers.Serve(s.proxied, &http.Server{
		Handler: http.HandlerFunc(s.serveProxied), ConnContext: tunnel.Keep,
		TLSConfig: s.authority.TLS(s.certifies), Protocols: authority.Protocols(),
	})
	return s.listenTokenProxy(ctx)
}

// Close ends it at once, and lets go what hangs.
func (s *Server) Close() {
	s.servers.Close()
	s.faults.Clear()
	s.verifier.Close()
}

// Control returns a client of its control API.
func (s *Server) Control() *control.Client { return control.NewClient(s.Addresses.Control) }

// CA returns the certificate of its authority as PEM.
func (s *Server) CA() string { return s.authority.PEM() }
