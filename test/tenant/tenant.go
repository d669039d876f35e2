// Package tenant makes what a team has in a cluster: a namespace, a service
// account with secrets in OpenBao that it alone may read, SecretProviderClasses
// and pods.
package tenant

import (
	"context"
	"fmt"
	"maps"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/postern-dev/postern/test/apiserver"
	"github.com/postern-dev/postern/test/kubelet"
	"github.com/postern-dev/postern/test/openbao"
	"github.com/postern-dev/postern/test/stack"
)

// Audience of the tokens with which tenants log in to OpenBao.
const Audience = "vault"

// Names of what each pod has.
const (
	node   = "node-1"
	volume = "secrets"
)

// Tenant is one service account and what belongs to it.
type Tenant struct {
	Namespace, ServiceAccount string

	servers *stack.Stack
}

// Of returns the tenant of a service account that somebody else made.
func Of(servers *stack.Stack, namespace, account string) *Tenant {
	return &Tenant{Namespace: namespace, ServiceAccount: account, servers: servers}
}

// New makes a service account, in its namespace, that may do with OpenBao what
// its own policy says: read the secrets below its SecretPath, and what further
// rules (in HCL) allow.
func New(ctx context.Context, servers *stack.Stack, namespace, account string, rules ...string) (*Tenant, error) {
	t := Of(servers, namespace, account)
	if err := servers.API.EnsureServiceAccount(ctx, namespace, account); err != nil {
		return nil, err
	}
	policy := fmt.Sprintf("path \"secret/data/%s/*\" { capabilities = [\"read\"] }\n", t.Role()) + strings.Join(rules, "\n")
	if err := servers.Bao.PutPolicy(ctx, t.Role(), policy); err != nil {
		return nil, err
	}
	err := servers.Bao.PutRole(ctx, openbao.Role{
		Name: t.Role(), Namespace: namespace, ServiceAccount: account, Audience: Audience, Policies: []string{t.Role()},
	})
	return t, err
}

// Role is the tenant's role in OpenBao, and no other tenant's.
func (t *Tenant) Role() string { return t.Namespace + "-" + t.ServiceAccount }

// SecretPath is the path of the secret of this name in OpenBao's API.
func (t *Tenant) SecretPath(name string) string { return "secret/data/" + t.Role() + "/" + name }

// PutSecret writes a version of the tenant's secret of this name.
func (t *Tenant) PutSecret(ctx context.Context, name string, data map[string]any) error {
	return t.servers.Bao.PutSecret(ctx, t.Role()+"/"+name, data)
}

// Object is an entry of a class's objects: a key of the tenant's secret, and
// lines of further fields.
func (t *Tenant) Object(file, secret, key string, fields ...string) string {
	entry := fmt.Sprintf("- objectName: %s\n  secretPath: %s\n  secretKey: %s\n", file, t.SecretPath(secret), key)
	for _, field := range fields {
		entry += "  " + field + "\n"
	}
	return entry
}

// VaultClass writes a SecretProviderClass of these objects for the Vault
// provider, with the tenant's role unless the parameters say otherwise.
func (t *Tenant) VaultClass(ctx context.Context, name, objects string, parameters map[string]string) error {
	merged := map[string]string{"roleName": t.Role(), "vaultAddress": t.servers.Bao.Address, "objects": objects}
	maps.Copy(merged, parameters)
	return t.Class(ctx, name, "vault", merged)
}

// Class writes a SecretProviderClass.
func (t *Tenant) Class(ctx context.Context, name, provider string, parameters map[string]string) error {
	manifest, err := yaml.Marshal(map[string]any{
		"apiVersion": "secrets-store.csi.x-k8s.io/v1", "kind": "SecretProviderClass",
		"metadata": map[string]any{"name": name, "namespace": t.Namespace},
		"spec":     map[string]any{"provider": provider, "parameters": parameters},
	})
	if err != nil {
		return fmt.Errorf("encode SecretProviderClass %s: %w", name, err)
	}
	return t.servers.API.Apply(ctx, string(manifest))
}

// Pod creates a pod that mounts the class, and returns its volume with tokens
// of these audiences, as kubelet has them.
func (t *Tenant) Pod(ctx context.Context, name, class string, audiences ...string) (kubelet.Volume, error) {
	created, err := t.servers.API.CreatePod(ctx, apiserver.Pod{
		Namespace: t.Namespace, Name: name, ServiceAccount: t.ServiceAccount, Node: node,
		Volume: volume, SecretProviderClass: class,
	})
	if err != nil {
		return kubelet.Volume{}, err
	}
	v := kubelet.Volume{
		Namespace: t.Namespace, Pod: name, UID: string(created.UID), ServiceAccount: t.ServiceAccount,
		Name: volume, SecretProviderClass: class,
	}
	if len(audiences) > 0 {
		v.Tokens, err = t.servers.API.Tokens(ctx, created, audiences...)
	}
	return v, err
}

// DeletePod deletes a pod at once.
func (t *Tenant) DeletePod(ctx context.Context, name string) error {
	return t.servers.API.DeletePod(ctx, t.Namespace, name)
}
