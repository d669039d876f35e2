// Package aws is a test double of AWS: Secrets Manager, SSM Parameter Store, STS
// and the EKS Pod Identity agent. It verifies signatures, tokens and policies, and
// checks every request and answer against AWS' own service models.
//
// README.md has its control API.
package aws

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/postern-dev/postern/test/aws/control"
	"github.com/postern-dev/postern/test/aws/iam"
	"github.com/postern-dev/postern/test/aws/models"
	"github.com/postern-dev/postern/test/aws/oidc"
	"github.com/postern-dev/postern/test/aws/podidentity"
	"github.com/postern-dev/postern/test/aws/secretsmanager"
	"github.com/postern-dev/postern/test/aws/ssm"
	"github.com/postern-dev/postern/test/aws/sts"
	"github.com/postern-dev/postern/test/double"
)

const (
	defaultListen    = "127.0.0.1:0"
	defaultAccount   = "111122223333"
	defaultPartition = "aws"
)

// Off is the address of what is not wanted.
const Off = double.Off

// Config is what a Server may be told. The zero value is a server on free ports.
type Config struct {
	// Listen, Control, PodIdentity and PodIdentity6 are addresses, such as
	// 127.0.0.1:0. PodIdentity may be Off; PodIdentity6 is off if it is empty.
	Listen, Control, PodIdentity, PodIdentity6 string
	// Account and Partition are those of names that say none.
	Account, Partition string
	// Issuers are those that are trusted from the start.
	Issuers []control.Issuer
	// STSUpstream is the URL of a MinIO that verifies tokens for STS, and
	// STSUpstreamRole its own role.
	STSUpstream, STSUpstreamRole string
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
	models    map[string]*models.Model
	directory *iam.Directory
	verifier  *oidc.Providers
	secrets   *secretsmanager.Service
	params    *ssm.Service
	sts       *sts.Service
	upstream  *sts.Upstream
	agent     *podidentity.Agent
	faults    *double.Faults[control.Fault]
	record    record

	servers *double.Servers
}

// Start starts one. It listens when Start returns.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	s, err := assemble(cfg)
	if err != nil {
		return nil, err
	}
	for _, l := range []struct {
		address string
		handler http.Handler
		path    string
		to      *string
	}{
		{cmp.Or(cfg.Listen, defaultListen), http.HandlerFunc(s.serveAWS), "", &s.Addresses.Endpoint},
		{cmp.Or(cfg.Control, defaultListen), s.controlHandler(), "", &s.Addresses.Control},
		{cmp.Or(cfg.PodIdentity, defaultListen), http.HandlerFunc(s.serveAgent), podidentity.Path, &s.Addresses.PodIdentity},
		{cmp.Or(cfg.PodIdentity6, Off), http.HandlerFunc(s.serveAgent), podidentity.Path, &s.Addresses.PodIdentity6},
	} {
		if l.address == Off {
			continue
		}
		address, err := s.servers.Listen(ctx, l.address, l.handler)
		if err != nil {
			s.Close()
			return nil, err
		}
		*l.to = "http://" + address + l.path
	}
	return s, nil
}

// assemble makes the parts of a server that does not listen yet.
func assemble(cfg Config) (*Server, error) {
	cfg.Account, cfg.Partition = cmp.Or(cfg.Account, defaultAccount), cmp.Or(cfg.Partition, defaultPartition)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{
		cfg: cfg, models: map[string]*models.Model{},
		directory: iam.NewDirectory(cfg.Partition, cfg.Now), verifier: oidc.New(cfg.Now),
		faults: newFaults(), record: newRecord(), servers: double.NewServers(cfg.Logger),
	}
	for _, service := range []string{control.SecretsManager, control.SSM, control.STS} {
		var err error
		if s.models[service], err = models.Load(service); err != nil {
			return nil, err
		}
	}
	for _, issuer := range cfg.Issuers {
		if err := s.verifier.Put(issuer); err != nil {
			return nil, err
		}
	}
	s.secrets = secretsmanager.New(secretsmanager.Config{Partition: cfg.Partition, Account: cfg.Account, Directory: s.directory, Now: cfg.Now})
	s.params = ssm.New(ssm.Config{Partition: cfg.Partition, Account: cfg.Account, Directory: s.directory, Now: cfg.Now})
	if (cfg.STSUpstream == "") != (cfg.STSUpstreamRole == "") {
		return nil, errors.New("the upstream of STS needs a URL and its own role")
	}
	if cfg.STSUpstream != "" {
		s.upstream = sts.NewUpstream(cfg.STSUpstream, cfg.STSUpstreamRole, cfg.Now)
	}
	s.sts = sts.New(sts.Config{Partition: cfg.Partition, Directory: s.directory, Verifier: s.verifier, Upstream: s.upstream})
	s.agent = podidentity.New(s.directory, s.verifier)
	return s, nil
}

// Close ends it at once, and lets go what hangs.
func (s *Server) Close() {
	s.servers.Close()
	s.faults.Clear()
	s.verifier.Close()
	if s.upstream != nil {
		s.upstream.Close()
	}
}

// Control returns a client of its control API.
func (s *Server) Control() *control.Client { return control.NewClient(s.Addresses.Control) }
