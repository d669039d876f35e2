package cluster

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"text/template"

	"github.com/postern-dev/postern/test/cluster/node"
)

// Addresses and names that pods and components see.
const (
	// Domain of the names of Services.
	domain         = "cluster.local"
	nodeAddress    = "10.99.0.1"
	apiPort        = "6443"
	apiEndpoint    = nodeAddress + ":" + apiPort
	serviceCIDR    = "10.96.0.0/16"
	apiAddress     = "10.96.0.1"
	dnsAddress     = "10.96.0.10"
	podCIDR        = "10.88.0.0/16"
	containerdSock = "/run/containerd/containerd.sock"
)

// Issuer is the service account tokens' issuer. Its discovery document and keys
// are at this address, for pods.
const Issuer = "https://kubernetes.default.svc." + domain

// layout is a cluster's directory, as an absolute path.
type layout string

func (l layout) pki() string    { return filepath.Join(string(l), "pki") }
func (l layout) config() string { return filepath.Join(string(l), "config") }
func (l layout) bin() string    { return filepath.Join(string(l), "bin") }
func (l layout) images() string { return filepath.Join(string(l), "images") }
func (l layout) etcd() string   { return filepath.Join(node.DiskDir(string(l)), "etcd") }

func (l layout) kubeconfig(who string) string {
	return filepath.Join(l.config(), who+".kubeconfig")
}

// cgroup is the name of the cluster's cgroup: another for each directory, and
// known even when the directory has gone.
func (l layout) cgroup() string {
	sum := sha256.Sum256([]byte(l))
	return "postern-" + hex.EncodeToString(sum[:6])
}

// make makes the directories.
func (l layout) make() error {
	for _, dir := range []string{
		l.pki(), l.config(), filepath.Join(l.config(), "cni"), l.bin(), l.images(), l.etcd(), node.LogDir(string(l)),
	} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make the cluster's directory: %w", err)
		}
	}
	return nil
}

//go:embed config
var configFiles embed.FS

// configValues are what the files in config are filled in with.
type configValues struct {
	ConfigDir, PKIDir, CNIPlugins, Cgroup, NodeName             string
	ContainerdSocket, Domain, DNSAddress, PodCIDR, CoreDNSImage string
	PauseImage                                                  string
}

// writeConfig writes the components' configuration files.
func (l layout) writeConfig(nodeName, cniPlugins string) error {
	values := configValues{
		ConfigDir: l.config(), PKIDir: l.pki(), CNIPlugins: cniPlugins, Cgroup: l.cgroup(), NodeName: nodeName,
		ContainerdSocket: containerdSock, Domain: domain, DNSAddress: dnsAddress, PodCIDR: podCIDR,
		CoreDNSImage: coreDNSImage, PauseImage: pauseImage,
	}
	templates, err := template.ParseFS(configFiles, "config/*")
	if err != nil {
		return fmt.Errorf("read the configuration files: %w", err)
	}
	entries, err := fs.ReadDir(configFiles, "config")
	if err != nil {
		return fmt.Errorf("list the configuration files: %w", err)
	}
	for _, entry := range entries {
		target := filepath.Join(l.config(), entry.Name())
		if filepath.Ext(target) == ".conflist" { // containerd takes each file there
			target = filepath.Join(l.config(), "cni", entry.Name())
		}
		if err := render(templates.Lookup(entry.Name()), target, values); err != nil {
			return err
		}
	}
	return nil
}

func render(t *template.Template, target string, values configValues) error {
	file, err := os.OpenFile(target, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("write a configuration file: %w", err)
	}
	if err := t.Execute(file, values); err != nil {
		_ = file.Close()
		return fmt.Errorf("write %s: %w", target, err)
	}
	if err := file.Close(); err != nil {
		return fmt.Errorf("write %s: %w", target, err)
	}
	return nil
}
