package charts_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/postern-dev/postern/test/apiserver"
	"github.com/postern-dev/postern/test/charts"
)

// installation is helm with an API server that has no nodes.
type installation struct {
	t          *testing.T
	helm       charts.Helm
	kubeconfig string
	server     *apiserver.Server
}

func newInstallation(t *testing.T) *installation {
	t.Helper()
	server := startServer(t)
	kubeconfig, err := server.AdminKubeconfig()
	if err != nil {
		t.Fatal(err)
	}
	return &installation{t: t, helm: newHelm(t), kubeconfig: kubeconfig, server: server}
}

func (i *installation) run(values string, args ...string) error {
	i.t.Helper()
	args = append(args, "--kubeconfig", i.kubeconfig, "--namespace", charts.Namespace)
	if values != "" {
		args = append(args, "--values", "-")
	}
	_, err := i.helm.Command(i.t.Context(), values, args...)
	return err
}

func (i *installation) must(values string, args ...string) {
	i.t.Helper()
	if err := i.run(values, args...); err != nil {
		i.t.Fatal(err)
	}
}

func (i *installation) chart(name string) string { return filepath.Join(i.helm.Root, "charts", name) }

// crds are the names of the custom resources that the server has.
func (i *installation) crds() []string {
	i.t.Helper()
	list, err := i.server.Dynamic.Resource(schema.GroupVersionResource{
		Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions",
	}).List(i.t.Context(), metav1.ListOptions{})
	if err != nil {
		i.t.Fatal(err)
	}
	var names []string
	for _, item := range list.Items {
		names = append(names, item.GetName())
	}
	return names
}

// TestInstall is the life of an installation, as docs/install.md has it.
func TestInstall(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	i.must("", "install", "postern-crds", i.chart(charts.CRDs), "--create-namespace")
	i.must("", "install", charts.Release, i.chart(charts.Umbrella))
	drivers := i.server.Client.StorageV1().CSIDrivers()
	driver, err := drivers.Get(t.Context(), "secrets-store.csi.k8s.io", metav1.GetOptions{})
	if err != nil || len(driver.Spec.TokenRequests) != 0 {
		t.Fatalf("CSIDriver: %v, %v", driver, err)
	}

	// A provider is added: what kubelet has to send changes in place.
	i.must("provider-vault: {enabled: true}", "upgrade", charts.Release, i.chart(charts.Umbrella), "--reset-then-reuse-values")
	upgraded, err := drivers.Get(t.Context(), driver.Name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if upgraded.UID != driver.UID || len(upgraded.Spec.TokenRequests) != 1 || upgraded.Spec.ServiceAccountTokenInSecrets == nil {
		t.Errorf("CSIDriver after the upgrade: %+v", upgraded)
	}
	i.must("provider-vault: {enabled: false}", "upgrade", charts.Release, i.chart(charts.Umbrella), "--reset-then-reuse-values")
	if reduced, err := drivers.Get(t.Context(), driver.Name, metav1.GetOptions{}); err != nil || len(reduced.Spec.TokenRequests) != 0 {
		t.Errorf("CSIDriver without the provider: %+v, %v", reduced, err)
	}

	i.must("", "uninstall", charts.Release)
	if _, err := drivers.Get(t.Context(), driver.Name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the CSIDriver after uninstalling: %v, want not found", err)
	}
	i.must("", "uninstall", "postern-crds")
	if names := i.crds(); len(names) != 2 {
		t.Errorf("custom resources after uninstalling: %v, want both", names)
	}
}

// TestTakeOwnership installs over the custom resources that the upstream
// driver's chart left, as docs/migrate.md has it.
func TestTakeOwnership(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	if err := i.server.ApplyCRDs(t.Context(), othersCRDs(t, i.helm.Root)); err != nil {
		t.Fatal(err)
	}
	install := []string{"install", "postern-crds", i.chart(charts.CRDs), "--create-namespace"}
	if err := i.run("", install...); err == nil || !strings.Contains(err.Error(), "invalid ownership metadata") {
		t.Errorf("without --take-ownership: %v", err)
	}
	install = append(install, "--take-ownership")
	if err := i.run("", install...); err == nil || !strings.Contains(err.Error(), "conflict") {
		t.Errorf("without --force-conflicts: %v", err)
	}
	i.must("", "uninstall", "postern-crds", "--ignore-not-found")
	i.must("", append(install, "--force-conflicts")...)
	i.must("", "upgrade", "postern-crds", i.chart(charts.CRDs))
	if names := i.crds(); len(names) != 2 {
		t.Errorf("custom resources: %v, want both", names)
	}
}

// othersCRDs are the custom resources as somebody else made them.
func othersCRDs(t *testing.T, root string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "driver/api/crds/*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, file := range files {
		text := regexp.MustCompile(`kubebuilder.io/version: .*`).ReplaceAllString(read(t, file), "kubebuilder.io/version: v0.16.3")
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(file)), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
