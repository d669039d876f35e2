// Package openbao runs a real OpenBao, which serves Vault's API, in its dev mode:
// in memory, unsealed, with a kv-v2 engine at secret/.
package openbao

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
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

// Server is a running OpenBao.
type Server struct {
	// Address is its URL.
	Address string
	// CAFile is the authority of its certificate, with TLS.
	CAFile string

	cfg       Config
	port      int
	rootToken string
	client    *http.Client
	process   *process.Process
}

// Start starts it and waits until it is unsealed, which takes half a second.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	free, err := ports.Free(ctx, 1)
	if err != nil {
		return nil, err
	}
	scheme := "http"
	s := &Server{cfg: cfg, port: free[0], rootToken: rand.Text(), client: &http.Client{Timeout: 10 * time.Second}}
	if cfg.TLS {
		scheme, s.CAFile = "https", filepath.Join(cfg.Dir, "vault-ca.pem")
	}
	s.Address = scheme + "://127.0.0.1:" + strconv.Itoa(s.port)
	if err := s.Restart(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// Restart starts it again on the same port after Stop, empty as at first.
func (s *Server) Restart(ctx context.Context) error {
	args := []string{
		"server", "-dev", "-dev-root-token-id=" + s.rootToken, "-dev-no-store-token",
		"-dev-listen-address=127.0.0.1:" + strconv.Itoa(s.port),
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
		return s.do(ctx, http.MethodGet, "secret/config", nil)
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
	s.client.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}
	return nil
}

// Stop ends it at once.
func (s *Server) Stop() error {
	if s.process != nil {
		s.process.Kill()
	}
	s.client.CloseIdleConnections()
	return nil
}

// Process returns the running process.
func (s *Server) Process() *process.Process { return s.process }

// RootToken returns the token that may do everything.
func (s *Server) RootToken() string { return s.rootToken }

// Write sends body to a path of the API below v1/, as root.
func (s *Server) Write(ctx context.Context, path string, body map[string]any) error {
	return s.do(ctx, http.MethodPost, path, body)
}

// PutSecret writes a version of a kv-v2 secret at secret/<path>.
func (s *Server) PutSecret(ctx context.Context, path string, data map[string]any) error {
	return s.Write(ctx, "secret/data/"+path, map[string]any{"data": data})
}

// PutPolicy writes an ACL policy in HCL.
func (s *Server) PutPolicy(ctx context.Context, name, policy string) error {
	return s.Write(ctx, "sys/policies/acl/"+name, map[string]any{"policy": policy})
}

// Kubernetes is the cluster whose service accounts may log in.
type Kubernetes struct {
	// Host is the API server's URL.
	Host string
	// CAFile is the certificate to trust it by.
	CAFile string
	// ReviewerToken may create TokenReviews.
	ReviewerToken string
}

// EnableKubernetesAuth enables the auth method at auth/kubernetes.
func (s *Server) EnableKubernetesAuth(ctx context.Context, k Kubernetes) error {
	ca, err := os.ReadFile(k.CAFile)
	if err != nil {
		return fmt.Errorf("read the API server's certificate: %w", err)
	}
	if err := s.Write(ctx, "sys/auth/kubernetes", map[string]any{"type": "kubernetes"}); err != nil {
		return err
	}
	return s.Write(ctx, "auth/kubernetes/config", map[string]any{
		"kubernetes_host": k.Host, "kubernetes_ca_cert": string(ca),
		"token_reviewer_jwt": k.ReviewerToken, "disable_local_ca_jwt": true,
	})
}

// Role lets a service account log in.
type Role struct {
	Name, Namespace, ServiceAccount, Audience string
	Policies                                  []string
}

// PutRole writes a role of the kubernetes auth method.
func (s *Server) PutRole(ctx context.Context, r Role) error {
	body := map[string]any{
		"bound_service_account_names": r.ServiceAccount, "bound_service_account_namespaces": r.Namespace,
		"token_policies": strings.Join(r.Policies, ","), "token_ttl": "20m",
	}
	if r.Audience != "" {
		body["audience"] = r.Audience
	}
	return s.Write(ctx, "auth/kubernetes/role/"+r.Name, body)
}

func (s *Server) do(ctx context.Context, method, path string, body map[string]any) error {
	encoded, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	req, err := http.NewRequestWithContext(ctx, method, s.Address+"/v1/"+path, bytes.NewReader(encoded))
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	req.Header.Set("X-Vault-Token", s.rootToken)
	resp, err := s.client.Do(req)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode < 300 {
		return nil
	}
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	return fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, bytes.TrimSpace(answer))
}
