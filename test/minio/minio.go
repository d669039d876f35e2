// Package minio runs a real MinIO, whose AssumeRoleWithWebIdentity is an
// implementation of AWS' STS by others than us: it gets the issuer's keys, checks
// a token's signature, audience and expiry, and gives credentials, with which
// requests to it then have to be signed.
//
// MinIO's licence is the AGPL. It is a process of its own that tests talk to, and
// is neither linked to anything here nor shipped.
package minio

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/postern-dev/postern/test/ports"
	"github.com/postern-dev/postern/test/process"
)

// Audience is the one that AWS' STS wants, and the default of Config.
const Audience = "sts.amazonaws.com"

// startup bounds a start, which takes a second on an idle machine.
const startup = 2 * time.Minute

// Config is what a Server needs.
type Config struct {
	// Minio is the binary's path; see package build. Required.
	Minio string
	// Dir is an existing directory for its files. Required.
	Dir string
	// Issuer is the URL of the one whose tokens it accepts. It must answer when
	// MinIO starts, with a discovery document that says where its keys are. Required.
	Issuer string
	// IssuerCA is a file with the authority of the issuer's certificate. "" is the
	// system's.
	IssuerCA string
	// Audience that tokens must have; "" is AWS' own.
	Audience string
}

// Server is a running MinIO.
type Server struct {
	// Endpoint is its URL, for STS and for S3.
	Endpoint string
	// RoleARN is the role that tokens of the issuer may assume. It may do anything
	// with buckets, of which there are none.
	RoleARN string

	process *process.Process
}

// Start starts it and waits until it gives credentials.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	free, err := ports.Free(ctx, 1)
	if err != nil {
		return nil, err
	}
	if err := trust(cfg); err != nil {
		return nil, err
	}
	address := "127.0.0.1:" + strconv.Itoa(free[0])
	child, err := process.Start(process.Config{
		Name: "minio", Path: cfg.Minio, Dir: cfg.Dir, Env: environment(cfg),
		Args: []string{
			"server", "--address", address, "--certs-dir", certificates(cfg), filepath.Join(cfg.Dir, "data"),
		},
		LogFile: filepath.Join(cfg.Dir, "minio.log"),
	})
	if err != nil {
		return nil, err
	}
	s := &Server{Endpoint: "http://" + address, process: child}
	ctx, cancel := context.WithTimeout(ctx, startup)
	defer cancel()
	if err := child.WaitFor(ctx, s.ready); err != nil {
		s.Stop()
		return nil, err
	}
	return s, nil
}

// Stop ends it at once.
func (s *Server) Stop() { s.process.Kill() }

// Process returns the running process.
func (s *Server) Process() *process.Process { return s.process }

func environment(cfg Config) []string {
	audience := cfg.Audience
	if audience == "" {
		audience = Audience
	}
	return []string{
		"HOME=" + cfg.Dir,
		"MINIO_ROOT_USER=" + rand.Text(), "MINIO_ROOT_PASSWORD=" + rand.Text(), // nobody needs them
		"MINIO_BROWSER=off", "MINIO_UPDATE=off", "MINIO_PROMETHEUS_AUTH_TYPE=public",
		"MINIO_IDENTITY_OPENID_CONFIG_URL=" + strings.TrimSuffix(cfg.Issuer, "/") + "/.well-known/openid-configuration",
		"MINIO_IDENTITY_OPENID_CLIENT_ID=" + audience,
		"MINIO_IDENTITY_OPENID_ROLE_POLICY=readwrite",
	}
}

func certificates(cfg Config) string { return filepath.Join(cfg.Dir, "certs") }

// trust puts the issuer's authority where MinIO looks for those it trusts.
func trust(cfg Config) error {
	authorities := filepath.Join(certificates(cfg), "CAs")
	if err := os.MkdirAll(authorities, 0o755); err != nil {
		return fmt.Errorf("make a directory for the authorities that MinIO trusts: %w", err)
	}
	if cfg.IssuerCA == "" {
		return nil
	}
	pem, err := os.ReadFile(cfg.IssuerCA)
	if err != nil {
		return fmt.Errorf("read the authority of the tokens' issuer: %w", err)
	}
	if err := os.WriteFile(filepath.Join(authorities, "issuer.crt"), pem, 0o644); err != nil {
		return fmt.Errorf("have MinIO trust the tokens' issuer: %w", err)
	}
	return nil
}

// ready learns the role's ARN, which MinIO prints when it knows the issuer's keys,
// and waits until it has its policies, too: before that it gives no credentials.
func (s *Server) ready(ctx context.Context) error {
	if s.RoleARN == "" {
		found := regexp.MustCompile(`IAM Roles: (arn:\S+)`).FindStringSubmatch(s.process.Log())
		if found == nil {
			return errors.New("it has not printed its role yet")
		}
		s.RoleARN = found[1]
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Endpoint+"/minio/metrics/v3/cluster/iam", http.NoBody)
	if err != nil {
		return err
	}
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	metrics, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if !regexp.MustCompile(`(?m)^minio_cluster_iam_sync_successes(\{.*\})? [1-9]`).Match(metrics) {
		return fmt.Errorf("it has not read its policies yet: %s: %s", req.URL, resp.Status)
	}
	return nil
}
