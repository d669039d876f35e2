// Package openbao runs a real OpenBao, which serves Vault's API, in its dev mode:
// in memory, unsealed, with a kv-v2 engine at secret/.
package openbao

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/postern-dev/postern/test/ports"
	"github.com/postern-dev/postern/test/process"
)

// Config is what a Server needs.
type Config struct {
	// Bao is the binary's path; see package build. Required.
	Bao string
	// Dir is an existing directory for its files. Required.
	Dir string
	// TLS makes it serve HTTPS with a certificate of its own authority.
	TLS bool
}

// Server is a running OpenBao, and a client of it.
type Server struct {
	*Client

	// CAFile is the authority of its certificate, with TLS.
	CAFile string

	cfg     Config
	port    int
	process *process.Process
}

// Start starts it and waits until it is unsealed, which takes half a second.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	free, err := ports.Free(ctx, 1)
	if err != nil {
		return nil, err
	}
	scheme := "http"
	s := &Server{cfg: cfg, port: free[0]}
	if cfg.TLS {
		scheme, s.CAFile = "https", filepath.Join(cfg.Dir, "vault-ca.pem")
	}
	s.Client = NewClient(scheme+"://127.0.0.1:"+strconv.Itoa(s.port), rand.Text())
	if err := s.Restart(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// Restart starts it again on the same port after Stop, empty as at first.
func (s *Server) Restart(ctx context.Context) error {
	args := []string{
		"server", "-dev", "-dev-root-token-id=" + s.RootToken(), "-dev-no-store-token",
		"-dev-listen-address=127.0.0.1:" + strconv.Itoa(s.port), "-config=" + s.configFile(),
	}
	if err := s.writeConfig(); err != nil {
		return err
	}
	if s.cfg.TLS {
		args = append(args, "-dev-tls", "-dev-tls-cert-dir="+s.cfg.Dir)
	}
	var err error
	s.process, err = process.Start(process.Config{
		Name: "bao", Path: s.cfg.Bao, Args: args, Dir: s.cfg.Dir, Env: []string{"HOME=" + s.cfg.Dir},
		LogFile: filepath.Join(s.cfg.Dir, "bao.log"),
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	err = s.process.WaitFor(ctx, func(ctx context.Context) error {
		if err := s.trust(); err != nil {
			return err
		}
		// The dev server answers before it has mounted kv-v2.
		return s.Read(ctx, "secret/config", nil)
	})
	if err != nil {
		return errors.Join(err, s.Stop())
	}
	return nil
}

// trust makes the client trust the authority that the server wrote at start.
func (s *Server) trust() error {
	if !s.cfg.TLS {
		return nil
	}
	pem, err := os.ReadFile(s.CAFile)
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return fmt.Errorf("no certificate in %s", s.CAFile)
	}
	s.http.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}
	return nil
}

// Stop ends it at once.
func (s *Server) Stop() error {
	if s.process != nil {
		s.process.Kill()
	}
	s.http.CloseIdleConnections()
	return nil
}

// Process returns the running process.
func (s *Server) Process() *process.Process { return s.process }
