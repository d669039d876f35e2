package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/postern-dev/postern/test/apiserver"
	"github.com/postern-dev/postern/test/harness"
	"github.com/postern-dev/postern/test/kubelet"
	"github.com/postern-dev/postern/test/openbao"
	"github.com/postern-dev/postern/test/otlp"
	"github.com/postern-dev/postern/test/stack"
)

// vaultClass is the SecretProviderClass of the Vault provider's documentation.
// %s is Vault's address.
const vaultClass = `
apiVersion: secrets-store.csi.x-k8s.io/v1
kind: SecretProviderClass
metadata:
  name: mycsispc
spec:
  provider: vault
  parameters:
    roleName: mycsirole
    vaultAddress: %s
    objects: |
      - objectName: "myUsername"
        secretPath: "secret/data/app"
        secretKey: "username"
      - objectName: "myPassword"
        secretPath: "secret/data/app"
        secretKey: "password"
`

// Vault is the demo with a real API server and a real OpenBao, after the
// walk-through that users of the Vault provider know.
func Vault(ctx context.Context, cfg Config) error {
	t, err := prepareNode(ctx, cfg)
	if err != nil {
		return err
	}
	return t.end(t.vault(ctx))
}

func (t *tools) vault(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "postern-demo-")
	if err != nil {
		return fmt.Errorf("make the demo's directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	t.tell.title("Start etcd, kube-apiserver and OpenBao")
	servers, err := stack.Start(ctx, stack.Config{Builder: t.builder, Root: t.root, Dir: dir})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, servers.Stop()) }()
	t.tell.say("Kubernetes API at %s, Vault API at %s", servers.API.URL, servers.Bao.Address)
	pod, err := t.walkThrough(ctx, servers)
	if err != nil {
		return err
	}
	kubeconfig, err := servers.API.DriverKubeconfig(ctx)
	if err != nil {
		return err
	}
	traces, err := otlp.Listen(ctx)
	if err != nil {
		return err
	}
	defer traces.Close()
	node, err := t.startNode(ctx, harness.Config{
		Providers:  map[string][]string{"vault": {"--vault-addr", servers.Bao.Address}},
		Kubeconfig: kubeconfig,
		Telemetry:  traces.Environment(),
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, node.Close()) }()
	return t.show(ctx, mount{
		node: node, traces: traces, volume: pod,
		complete: func(trace otlp.Trace) bool {
			return has(trace, "postern-driver") && has(trace, "postern-provider-vault")
		},
	})
}

// walkThrough does what the documentation's reader does by hand, and returns the
// volume of the pod.
func (t *tools) walkThrough(ctx context.Context, servers *stack.Stack) (kubelet.Volume, error) {
	t.tell.title("In Vault: a secret, a policy, a role for the pod's service account")
	t.tell.say("vault kv put secret/app username=bob password=p4ssw0rd")
	t.tell.say("policy mycsipolicy: read secret/data/app")
	t.tell.say("role mycsirole: service account default/mycsiserviceaccount, tokens for audience vault")
	err := errors.Join(
		servers.Bao.PutSecret(ctx, "app", map[string]any{"username": "bob", "password": "p4ssw0rd"}),
		servers.Bao.PutPolicy(ctx, "mycsipolicy", `path "secret/data/app" { capabilities = ["read"] }`),
		servers.Bao.PutRole(ctx, openbao.Role{
			Name: "mycsirole", Namespace: "default", ServiceAccount: "mycsiserviceaccount", Audience: "vault",
			Policies: []string{"mycsipolicy"},
		}),
	)
	if err != nil {
		return kubelet.Volume{}, err
	}
	t.tell.title("In Kubernetes: the service account, the SecretProviderClass, the pod")
	class := strings.TrimSpace(fmt.Sprintf(vaultClass, servers.Bao.Address))
	t.tell.quote(class)
	err = errors.Join(
		servers.API.EnsureServiceAccount(ctx, "default", "mycsiserviceaccount"),
		servers.API.Apply(ctx, class),
	)
	if err != nil {
		return kubelet.Volume{}, err
	}
	pod, err := servers.API.CreatePod(ctx, apiserver.Pod{
		Namespace: "default", Name: "mycsiapp", ServiceAccount: "mycsiserviceaccount",
		Volume: "appsecrets", SecretProviderClass: "mycsispc",
	})
	if err != nil {
		return kubelet.Volume{}, err
	}
	tokens, err := servers.API.Tokens(ctx, pod, "vault")
	if err != nil {
		return kubelet.Volume{}, err
	}
	return kubelet.Volume{
		Namespace: pod.Namespace, Pod: pod.Name, UID: string(pod.UID), ServiceAccount: pod.Spec.ServiceAccountName,
		Name: "appsecrets", SecretProviderClass: "mycsispc", Tokens: tokens,
	}, nil
}
