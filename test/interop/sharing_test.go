package interop_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/postern-dev/postern/test/kubelet"
	"github.com/postern-dev/postern/test/tenant"
)

// sharers is how many pods of one service account mount at once.
const sharers = 20

// Nothing is known of what a provider of the upstream protocol answers by, so
// each pod has a call of its own, unless the operator knows better.
func TestLegacySharing(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		flags []string
		want  int
	}{
		"by default":      {nil, sharers},
		"service account": {[]string{"--legacy-sharing", "upstream"}, 1},
		"of another one":  {[]string{"--legacy-sharing", "other"}, sharers},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := startPosternNode(t, test.flags...)
			p := startLegacy(t, n.etc, "upstream")
			n.awaitServing(t, p)
			web := newTenant(t)
			worker, err := tenant.New(t.Context(), servers.Stack, web.Namespace, "worker")
			must(t, err)
			// What is kept is good for longer than a slow machine takes for all.
			must(t, web.Class(t.Context(), "app", "upstream", map[string]string{"greeting": "hello", "delay": "500ms", "maxAge": "10m"}))
			n.publishAtOnce(t, web, "app")
			if got := p.mounts("web-"); got != test.want {
				t.Errorf("%d pods of one service account cost %d calls of Mount, want %d", sharers, got, test.want)
			}
			// Raised or not, it stays with the service account.
			n.publishAtOnce(t, worker, "app")
			if got := p.mounts("worker-"); got != test.want {
				t.Errorf("%d pods of another service account cost %d calls of Mount, want %d", sharers, got, test.want)
			}
		})
	}
}

// publishAtOnce publishes the class for pods of the tenant's service account,
// and checks that what each has was fetched for that account.
func (n *posternNode) publishAtOnce(t *testing.T, of *tenant.Tenant, class string) {
	t.Helper()
	volumes := make([]kubelet.Volume, sharers)
	for i := range volumes {
		volumes[i] = newPod(t, of, fmt.Sprintf("%s-%d", of.ServiceAccount, i), class, "vault")
	}
	var wait sync.WaitGroup
	for _, v := range volumes {
		t.Cleanup(func() { n.unpublish(t, v) })
		wait.Go(func() {
			if err := n.Kubelet.Publish(t.Context(), v); err != nil {
				t.Errorf("publish %s: %v", v.Pod, err)
			}
		})
	}
	wait.Wait()
	for _, v := range volumes {
		got := contents(t, n.Kubelet, v)
		if account := got["csi.storage.k8s.io_serviceAccount.name"]; account != of.ServiceAccount || got["greeting"] != "hello" {
			t.Errorf("pod %s has what was fetched for service account %q", v.Pod, account)
		}
	}
}
