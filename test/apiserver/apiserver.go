// Package apiserver runs a real etcd and kube-apiserver, and gives tests what
// they need of them: an admin's client, the project's CRDs, pods and the tokens
// that kubelet would ask for. There is no kubelet and no controller: a pod is an
// object that stays as it was created.
package apiserver

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/postern-dev/postern/test/ports"
	"github.com/postern-dev/postern/test/process"
)

// adminUser has every right, through the group system:masters.
const adminUser = "admin"

// Issuer is the service account tokens' issuer.
const Issuer = "https://kubernetes.default.svc"

// Config is what a Server needs.
type Config struct {
	// Kube is the multi-call binary's path; see package build. Required.
	Kube string
	// Dir is an existing directory for its files. Required.
	Dir string
}

// Server is a running API server.
type Server struct {
	// URL of the API server.
	URL string
	// CAFile is the certificate to trust it by.
	CAFile string
	// Client is the admin's.
	Client kubernetes.Interface
	// Dynamic is the admin's, for the project's own types.
	Dynamic dynamic.Interface
	// Rest is the admin's configuration, to make more clients of.
	Rest *rest.Config

	mapper        meta.ResettableRESTMapper
	dir           string
	etcd, process *process.Process
}

// Start starts etcd and the API server and waits until it is ready, which takes
// about three seconds.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	free, err := ports.Free(ctx, 3)
	if err != nil {
		return nil, err
	}
	s := &Server{
		URL: "https://127.0.0.1:" + strconv.Itoa(free[2]), CAFile: filepath.Join(cfg.Dir, "apiserver.crt"), dir: cfg.Dir,
	}
	token := rand.Text()
	if err := writeInputs(cfg.Dir, token); err != nil {
		return nil, err
	}
	if err := s.startProcesses(cfg, free); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	s.Rest = &rest.Config{
		Host: s.URL, BearerToken: token, TLSClientConfig: rest.TLSClientConfig{CAFile: s.CAFile},
		QPS: -1, // no throttle: the tests' own calls are not what is measured
	}
	if err := s.waitReady(ctx); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	if err := s.makeClients(); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

// writeInputs writes the service accounts' signing key and the admin's token.
func writeInputs(dir, token string) error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return fmt.Errorf("make the key for service account tokens: %w", err)
	}
	block := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	if err := os.WriteFile(filepath.Join(dir, "sa.key"), block, 0o600); err != nil {
		return fmt.Errorf("write the key for service account tokens: %w", err)
	}
	line := token + "," + adminUser + "," + adminUser + ",system:masters\n"
	if err := os.WriteFile(filepath.Join(dir, "tokens.csv"), []byte(line), 0o600); err != nil {
		return fmt.Errorf("write the admin's token: %w", err)
	}
	return nil
}

func (s *Server) startProcesses(cfg Config, free []int) error {
	client := "http://127.0.0.1:" + strconv.Itoa(free[0])
	peer := "http://127.0.0.1:" + strconv.Itoa(free[1])
	var err error
	s.etcd, err = process.Start(process.Config{
		Name: "etcd", Path: cfg.Kube, Dir: cfg.Dir, LogFile: filepath.Join(cfg.Dir, "etcd.log"),
		Args: []string{
			"etcd", "--data-dir", filepath.Join(cfg.Dir, "etcd"), "--unsafe-no-fsync", "--log-level", "warn",
			"--listen-client-urls", client, "--advertise-client-urls", client,
			"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default=" + peer,
		},
	})
	if err != nil {
		return err
	}
	s.process, err = process.Start(process.Config{
		Name: "kube-apiserver", Path: cfg.Kube, Dir: cfg.Dir, LogFile: filepath.Join(cfg.Dir, "apiserver.log"),
		Args: []string{
			"kube-apiserver", "--etcd-servers", client, "--bind-address", "127.0.0.1",
			"--secure-port", strconv.Itoa(free[2]), "--cert-dir", cfg.Dir, "--service-cluster-ip-range", "10.96.0.0/16",
			"--service-account-issuer", Issuer,
			"--service-account-signing-key-file", filepath.Join(cfg.Dir, "sa.key"),
			"--service-account-key-file", filepath.Join(cfg.Dir, "sa.key"),
			"--token-auth-file", filepath.Join(cfg.Dir, "tokens.csv"),
			"--authorization-mode", "RBAC", "--endpoint-reconciler-type", "none",
			"--allow-privileged", // as wherever CSI drivers run
			// No controller makes the default service accounts that it would wait for.
			"--disable-admission-plugins", "ServiceAccount",
		},
	})
	return err
}

func (s *Server) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return s.process.WaitFor(ctx, func(ctx context.Context) error {
		if _, err := os.Stat(s.CAFile); err != nil {
			return err // made at start
		}
		client, err := kubernetes.NewForConfig(s.Rest)
		if err != nil {
			return err
		}
		return client.RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	})
}

// Stop ends both processes at once: asked politely, the API server takes twelve
// seconds to give up its leases.
func (s *Server) Stop() error {
	for _, p := range []*process.Process{s.process, s.etcd} {
		if p != nil {
			p.Kill()
		}
	}
	return nil
}

// Processes returns both processes.
func (s *Server) Processes() []*process.Process { return []*process.Process{s.etcd, s.process} }
