package upstream_test

import (
	"os"
	"strings"
	"testing"

	"github.com/postern-dev/postern/test/build"
	"github.com/postern-dev/postern/test/upstream"
)

// The manifests have the names that tests go by.
func TestManifests(t *testing.T) {
	t.Parallel()
	root, err := build.FindRoot(".")
	if err != nil {
		t.Fatal(err)
	}
	paths, err := upstream.Manifests(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, path := range paths {
		contents, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(contents)
	}
	for _, want := range []string{
		"image: " + upstream.Image + "\n", "namespace: " + upstream.Namespace + "\n", "name: " + upstream.DaemonSet + "\n",
		"kind: CSIDriver", "kind: ClusterRoleBinding", "name: secretproviderclasses.secrets-store.csi.x-k8s.io",
		"name: secretproviderclasspodstatuses.secrets-store.csi.x-k8s.io",
	} {
		if !strings.Contains(all.String(), want) {
			t.Errorf("the manifests do not have %q", want)
		}
	}
}
