// Package gcp is a test double of Google Cloud: Secret Manager, Parameter Manager,
// the token services and the metadata server of a node, behind an HTTP proxy that
// ends TLS for their names. It verifies the tokens of pods and access tokens, and
// knows who may do what.
//
// README.md has its control API.
package gcp

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"google.golang.org/grpc"

	"github.com/postern-dev/postern/test/double"
	"github.com/postern-dev/postern/test/double/authority"
	"github.com/postern-dev/postern/test/double/tunnel"
	"github.com/postern-dev/postern/test/gcp/api"
	"github.com/postern-dev/postern/test/gcp/control"
	"github.com/postern-dev/postern/test/gcp/iam"
	"github.com/postern-dev/postern/test/gcp/metadata"
	"github.com/postern-dev/postern/test/gcp/parametermanager"
	"github.com/postern-dev/postern/test/gcp/secretmanager"
	"github.com/postern-dev/postern/test/gcp/serviceaccount"
	"github.com/postern-dev/postern/test/gcp/sts"
	"github.com/postern-dev/postern/test/token"
)

// Off is the address of what is not wanted.
const Off = double.Off

const defaultListen = "127.0.0.1:0"

// Config is what a Server may be told. The zero value is a server on free ports.
type Config struct {
	// Proxy, Control and Metadata are addresses, such as 127.0.0.1:0. Metadata may
	// be Off.
	Proxy, Control, Metadata string
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

	cfg        Config
	authority  *authority.Authority
	verifier   *token.Verifier
	directory  *iam.Directory
	exchange   *sts.Service
	accounts   *serviceaccount.Service
	metadata   *metadata.Server
	secrets    *secretmanager.Store
	parameters *parametermanager.Store
	grpc       *grpc.Server
	faults     *double.Faults[control.Fault]
	record     *double.Record[control.Call, control.Request, control.Violation]
	servers    *double.Servers
	tunnels    *tunnel.Listener
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
	certified, err := authority.New()
	if err != nil {
		return nil, err
	}
	s := &Server{
		cfg: cfg, authority: certified, verifier: token.NewVerifier(cfg.Now), directory: iam.New(cfg.Now),
		servers: double.NewServers(cfg.Logger), tunnels: tunnel.NewListener(),
		faults: double.NewFaults(func(f *control.Fault) double.Limits { return double.Limits{After: &f.After, Count: &f.Count} }),
		record: double.NewRecord[control.Call, control.Request, control.Violation](kindOf),
	}
	s.exchange, s.accounts = sts.New(s.directory, s.verifier), serviceaccount.New(s.directory, cfg.Now)
	s.metadata = metadata.New(s.directory)
	s.secrets = secretmanager.New(cfg.Now, s.directory)
	s.parameters = parametermanager.New(cfg.Now, s.directory, s.secrets)
	s.grpc = s.newGRPC()
	return s, double.Each(cfg.Issuers, s.verifier.Put)
}

func (s *Server) listen(ctx context.Context) error {
	for _, l := range []struct {
		address string
		handler http.Handler
		scheme  string
		to      *string
	}{
		{cmp.Or(s.cfg.Proxy, defaultListen), http.HandlerFunc(s.serveConnect), "http://", &s.Addresses.Proxy},
		{cmp.Or(s.cfg.Control, defaultListen), s.controlHandler(), "http://", &s.Addresses.Control},
		{cmp.Or(s.cfg.Metadata, defaultListen), http.HandlerFunc(s.serveMetadata), "", &s.Addresses.Metadata},
	} {
		if l.address == Off {
			continue
		}
		address, err := s.servers.Listen(ctx, l.address, l.handler)
		if err != nil {
			return err
		}
		*l.to = l.scheme + address
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	s.servers.Serve(s.tunnels, &http.Server{
		Handler: http.HandlerFunc(s.serveProxied), ConnContext: tunnel.Keep, Protocols: protocols,
		TLSConfig: s.authority.TLS(func(name string) bool { return api.ServiceOf(name) != "" }),
	})
	return nil
}

// Close ends it at once, and lets go what hangs.
func (s *Server) Close() {
	s.servers.Close()
	s.faults.Clear()
	s.grpc.Stop()
	s.verifier.Close()
}

// Control returns a client of its control API.
func (s *Server) Control() *control.Client { return control.NewClient(s.Addresses.Control) }

// CA returns the certificate of its authority as PEM.
func (s *Server) CA() string { return s.authority.PEM() }
