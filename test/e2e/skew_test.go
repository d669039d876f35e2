package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/postern-dev/postern/test/build"
	"github.com/postern-dev/postern/test/harness"
)

// skewEnv names the revision that this one has to work together with.
const skewEnv = "POSTERN_SKEW_REVISION"

// The parts are upgraded one by one, so each works together with the others of
// the release before.
func TestVersionSkew(t *testing.T) {
	t.Parallel()
	earlier := earlierDaemons(t)
	const driver, gateway, vault, file = "postern-driver", "postern-gateway", "postern-provider-vault", "postern-provider-file"
	for name, old := range map[string][]string{
		"old gateway":            {gateway},
		"old providers":          {vault, file},
		"old driver":             {driver},
		"new gateway":            {driver, vault, file},
		"new providers":          {driver, gateway},
		"new driver":             {gateway, vault, file},
		"each replaced in turn":  {gateway, vault, file},
		"all of the old release": {driver, gateway, vault, file},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			programs := map[string]string{}
			for _, daemon := range old {
				programs[daemon] = filepath.Join(earlier, daemon)
			}
			n := startNode(t, func(c *harness.Config) { c.Programs = programs })
			n.checkMounts(t, "before")
			if name != "each replaced in turn" {
				return
			}
			for _, daemon := range []*harness.Daemon{n.Providers["vault"], n.Gateway, n.Providers["file"]} {
				must(t, daemon.Replace(t.Context(), filepath.Join(servers.binaries, daemon.Name())))
				n.checkMounts(t, "after "+daemon.Name())
			}
		})
	}
}

// earlierDaemons builds the daemons of the last release, or skips.
func earlierDaemons(t *testing.T) string {
	t.Helper()
	find := servers.builder.PreviousRevision
	if name := os.Getenv(skewEnv); name != "" {
		find = func(ctx context.Context) (string, error) { return servers.builder.Revision(ctx, name) }
	}
	revision, err := find(t.Context())
	if errors.Is(err, build.ErrNoRevision) && os.Getenv(skewEnv) == "" {
		t.Skipf("SKIPPED: nothing is known of how this version works with the one before: %v; or set %s", err, skewEnv)
	}
	must(t, err) // who asks for a revision gets it or an error
	t.Logf("with the daemons of %s", revision)
	dir, err := servers.builder.DaemonsAt(t.Context(), revision)
	must(t, err)
	return dir
}

// checkMounts mounts from both providers, and has a mount fail as it should.
func (n *node) checkMounts(t *testing.T, when string) {
	t.Helper()
	namespace := tenant(t, map[string]any{"username": "bob", "password": "p4ssw0rd"})
	class(t, namespace, "vault", vaultSpec(namespace, nil))
	class(t, namespace, "denied", vaultSpec(namespace, map[string]any{"roleName": "nobody"}))
	n.storeFile(t, namespace, "one", "1")
	class(t, namespace, "file", map[string]any{"provider": "file", "parameters": map[string]any{"objects": "- {objectName: one}\n"}})
	for class, want := range map[string]map[string]string{
		"vault": {"username": "bob", "password": "p4ssw0rd"},
		"file":  {"one": "1"},
	} {
		v := pod(t, namespace, podName(class, when), class)
		if err := n.Kubelet.Publish(t.Context(), v); err != nil {
			t.Errorf("%s: publish %s: %v", when, class, err)
			continue
		}
		n.wantFiles(t, v, want)
		must(t, n.Kubelet.Publish(t.Context(), v)) // as kubelet does every minute
		n.unpublish(t, v)
	}
	// What is wrong is told as well by mixed versions.
	v := pod(t, namespace, podName("denied", when), "denied")
	err := n.Kubelet.Publish(t.Context(), v)
	if got := status.Code(err); got != codes.Unauthenticated && got != codes.PermissionDenied {
		t.Errorf("%s: publish with a role that does not exist: %v", when, err)
	}
	n.unpublish(t, v)
}

func podName(class, when string) string { return fmt.Sprintf("%s-%d", class, len(when)) }
