package cluster

import (
	"path/filepath"

	"github.com/postern-dev/postern/test/cluster/node"
)

// components are the names that the multi-call binary goes by.
func components() []string {
	return []string{
		"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl",
	}
}

// processes are what the node runs. All of them would wait for the API server by
// themselves, but some give up after ten seconds, so they are started after it.
func (l layout) processes(nodeName string) []node.Process {
	const (
		etcd = "http://127.0.0.1:2379"
		api  = "https://" + apiEndpoint + "/readyz"
	)
	config := func(name string) string { return filepath.Join(l.config(), name) }
	return []node.Process{
		{Name: "containerd", Command: []string{"containerd", "--config", config("containerd.toml")}},
		{Name: "etcd", Command: l.etcdCommand(etcd)},
		{Name: "kube-apiserver", After: etcd + "/health", Command: l.apiserverCommand(etcd)},
		{Name: "kube-controller-manager", After: api, Command: []string{
			l.program("kube-controller-manager"), "--kubeconfig", l.kubeconfig("kube-controller-manager"),
			"--service-account-private-key-file", filepath.Join(l.pki(), "sa.key"),
			"--root-ca-file", filepath.Join(l.pki(), "ca.crt"), "--use-service-account-credentials",
			"--leader-elect=false", "--bind-address", "127.0.0.1", "--kube-api-qps", "200", "--kube-api-burst", "400",
		}},
		{Name: "kube-scheduler", After: api, Command: []string{
			l.program("kube-scheduler"), "--kubeconfig", l.kubeconfig("kube-scheduler"),
			"--leader-elect=false", "--bind-address", "127.0.0.1",
		}},
		{Name: "kubelet", After: api, Command: []string{
			l.program("kubelet"), "--config", config("kubelet.yaml"), "--kubeconfig", l.kubeconfig("kubelet"),
			"--hostname-override", nodeName, "--node-ip", nodeAddress, "--v", "2",
		}},
		{Name: "kube-proxy", After: api, Command: []string{l.program("kube-proxy"), "--config", config("kube-proxy.yaml")}},
	}
}

func (l layout) program(name string) string { return filepath.Join(l.bin(), name) }

// etcdCommand does not wait for the disk: a reboot ends processes, but what they
// have written stays.
func (l layout) etcdCommand(client string) []string {
	const peer = "http://127.0.0.1:2380"
	return []string{
		l.program("etcd"), "--data-dir", l.etcd(), "--unsafe-no-fsync", "--log-level", "warn",
		"--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default=" + peer,
	}
}

func (l layout) apiserverCommand(etcd string) []string {
	pki := func(name string) string { return filepath.Join(l.pki(), name) }
	return []string{
		l.program("kube-apiserver"), "--etcd-servers", etcd,
		"--advertise-address", nodeAddress, "--secure-port", apiPort, "--service-cluster-ip-range", serviceCIDR,
		"--client-ca-file", pki("ca.crt"), "--tls-cert-file", pki("apiserver.crt"), "--tls-private-key-file", pki("apiserver.key"),
		"--authorization-mode", "Node,RBAC", "--enable-admission-plugins", "NodeRestriction", "--allow-privileged=true",
		"--service-account-issuer", Issuer, "--service-account-jwks-uri", Issuer + "/openid/v1/jwks",
		"--service-account-signing-key-file", pki("sa.key"), "--service-account-key-file", pki("sa.key"),
		"--kubelet-certificate-authority", pki("ca.crt"), "--kubelet-preferred-address-types", "InternalIP",
		"--kubelet-client-certificate", pki("apiserver-kubelet-client.crt"),
		"--kubelet-client-key", pki("apiserver-kubelet-client.key"),
	}
}
