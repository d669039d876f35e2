// Package stack starts the third-party servers that the project works with, real
// and already introduced to each other: an API server with the project's CRDs,
// and an OpenBao that checks pods' tokens with it.
package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/postern-dev/postern/test/apiserver"
	"github.com/postern-dev/postern/test/build"
	"github.com/postern-dev/postern/test/openbao"
)

// Where the reviewer of tokens is: the account by which OpenBao asks the API
// server whether a token is genuine.
const (
	reviewerNamespace = "vault"
	reviewerAccount   = "vault"
)

// Config is what a Stack needs.
type Config struct {
	// Builder finds or builds the binaries. Required.
	Builder *build.Builder
	// Root is the repository's root, for the CRDs. Required.
	Root string
	// Dir is an existing directory for the servers' files. Required.
	Dir string
	// TLS makes OpenBao serve HTTPS.
	TLS bool
}

// Stack is the running servers.
type Stack struct {
	API *apiserver.Server
	Bao *openbao.Server
}

// Start starts both servers and introduces them, which takes about four seconds
// once they are built.
func Start(ctx context.Context, cfg Config) (*Stack, error) {
	kube, err := cfg.Builder.Server(ctx, build.Kube())
	if err != nil {
		return nil, err
	}
	bao, err := cfg.Builder.Server(ctx, build.Bao())
	if err != nil {
		return nil, err
	}
	s := &Stack{}
	dirs := map[string]string{"kube": filepath.Join(cfg.Dir, "kube"), "bao": filepath.Join(cfg.Dir, "bao")}
	for _, dir := range dirs {
		// Others' uids reach the servers' certificates, but not their keys.
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("make the servers' directories: %w", err)
		}
	}
	if s.API, err = apiserver.Start(ctx, apiserver.Config{Kube: kube, Dir: dirs["kube"]}); err != nil {
		return nil, err
	}
	if s.Bao, err = openbao.Start(ctx, openbao.Config{Bao: bao, Dir: dirs["bao"], TLS: cfg.TLS}); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	if err := s.introduce(ctx, cfg.Root); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

func (s *Stack) introduce(ctx context.Context, root string) error {
	if err := s.API.ApplyCRDs(ctx, filepath.Join(root, "driver/api/crds")); err != nil {
		return err
	}
	if err := s.API.EnsureServiceAccount(ctx, reviewerNamespace, reviewerAccount); err != nil {
		return err
	}
	if err := s.API.BindClusterRole(ctx, "system:auth-delegator", reviewerNamespace, reviewerAccount, nil); err != nil {
		return err
	}
	return s.TrustTokens(ctx)
}

// TrustTokens makes OpenBao accept the API server's tokens; again after a
// restart of OpenBao, which forgets everything.
func (s *Stack) TrustTokens(ctx context.Context) error {
	token, err := s.API.ServiceAccountToken(ctx, reviewerNamespace, reviewerAccount)
	if err != nil {
		return err
	}
	return s.Bao.EnableKubernetesAuth(ctx, openbao.Kubernetes{Host: s.API.URL, CAFile: s.API.CAFile, ReviewerToken: token})
}

// Stop ends both servers.
func (s *Stack) Stop() error {
	var errs []error
	if s.Bao != nil {
		errs = append(errs, s.Bao.Stop())
	}
	if s.API != nil {
		errs = append(errs, s.API.Stop())
	}
	return errors.Join(errs...)
}
