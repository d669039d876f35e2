package apiserver

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Where the driver's service account is.
const (
	driverNamespace = "kube-system"
	driverAccount   = "secrets-store-csi-driver"
	crdGroup        = "secrets-store.csi.x-k8s.io"
)

// DriverKubeconfig creates the driver's service account with exactly the rights
// that the driver needs, and returns the path of a kubeconfig file for it.
func (s *Server) DriverKubeconfig(ctx context.Context) (string, error) {
	if err := s.EnsureServiceAccount(ctx, driverNamespace, driverAccount); err != nil {
		return "", err
	}
	if err := s.BindClusterRole(ctx, "secretproviderclasses-role", driverNamespace, driverAccount, DriverRules()); err != nil {
		return "", err
	}
	token, err := s.ServiceAccountToken(ctx, driverNamespace, driverAccount)
	if err != nil {
		return "", err
	}
	return s.writeKubeconfig("driver", token)
}

// DriverRules are all that the driver may do: read single objects that it knows
// the name of, watch single classes, write its status objects, and send events.
// It lists nothing of other people's.
func DriverRules() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{
		{APIGroups: []string{crdGroup}, Resources: []string{"secretproviderclasses"}, Verbs: []string{"get", "watch"}},
		{
			APIGroups: []string{crdGroup}, Resources: []string{"secretproviderclasspodstatuses"},
			Verbs: []string{"get", "list", "watch", "create", "update", "patch", "delete"},
		},
		{
			APIGroups: []string{crdGroup}, Resources: []string{"secretproviderclasspodstatuses/status"},
			Verbs: []string{"get", "update", "patch"},
		},
		{APIGroups: []string{""}, Resources: []string{"pods", "serviceaccounts", "nodes"}, Verbs: []string{"get"}},
		{APIGroups: []string{"", "events.k8s.io"}, Resources: []string{"events"}, Verbs: []string{"create", "patch"}},
	}
}

// AdminKubeconfig returns the path of a kubeconfig file for the admin.
func (s *Server) AdminKubeconfig() (string, error) {
	return s.writeKubeconfig("admin", s.Rest.BearerToken)
}

func (s *Server) writeKubeconfig(name, token string) (string, error) {
	config := clientcmdapi.NewConfig()
	config.Clusters["test"] = &clientcmdapi.Cluster{Server: s.URL, CertificateAuthority: s.CAFile}
	config.AuthInfos[name] = &clientcmdapi.AuthInfo{Token: token}
	config.Contexts[name] = &clientcmdapi.Context{Cluster: "test", AuthInfo: name}
	config.CurrentContext = name
	contents, err := clientcmd.Write(*config)
	if err != nil {
		return "", fmt.Errorf("write the kubeconfig of %s: %w", name, err)
	}
	path := filepath.Join(s.dir, name+".kubeconfig")
	if err := os.WriteFile(path, contents, 0o600); err != nil {
		return "", fmt.Errorf("write the kubeconfig of %s: %w", name, err)
	}
	return path, nil
}
