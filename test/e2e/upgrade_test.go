package e2e_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-dev/postern/test/harness"
	"github.com/postern-dev/postern/test/kubelet"
)

// How a daemon is replaced under load.
const (
	upgradePublishes = 300
	upgradeWorkers   = 6
	upgradeVolumes   = 5 // of each worker
	upgrades         = 5
	// longestPublish is generous: what is promised is 1 s, which a machine that
	// does ten other things at once cannot keep. The log has the figure.
	longestPublish = 15 * time.Second
)

// While pods come and go, a daemon is replaced several times as a DaemonSet with
// maxSurge 1 does it. No mount fails.
func TestUpgradeUnderLoad(t *testing.T) {
	t.Parallel()
	for name, daemon := range map[string]func(*node) *harness.Daemon{
		"gateway":  func(n *node) *harness.Daemon { return n.Gateway },
		"provider": func(n *node) *harness.Daemon { return n.Providers["vault"] },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := startNode(t)
			namespace := tenant(t, map[string]any{"username": "bob", "password": "p4ssw0rd"})
			class(t, namespace, "app", vaultSpec(namespace, nil))
			var volumes [upgradeWorkers][]kubelet.Volume
			for worker := range volumes {
				for i := range upgradeVolumes {
					volumes[worker] = append(volumes[worker], pod(t, namespace, fmt.Sprintf("web-%d-%d", worker, i), "app"))
				}
			}
			var load load
			var workers sync.WaitGroup
			stop := func() {
				load.ended.Store(true)
				workers.Wait()
			}
			defer stop()
			for _, mine := range volumes {
				workers.Go(func() { load.run(t, n, mine) })
			}
			for i := range upgrades {
				load.await(t, (i+1)*upgradePublishes/(upgrades+1))
				if err := daemon(n).Replace(t.Context(), ""); err != nil {
					t.Errorf("replace the %s: %v", name, err)
				}
			}
			load.await(t, upgradePublishes)
			stop()
			t.Logf("measured: %d publishes while the %s was replaced %d times: %d failed, the longest took %s",
				load.done.Load(), name, upgrades, load.failed.Load(), time.Duration(load.longest.Load()).Round(time.Millisecond))
			if longest := time.Duration(load.longest.Load()); longest > longestPublish {
				t.Errorf("a publish took %s", longest)
			}
		})
	}
}

// load publishes and unpublishes until it is told to end.
type load struct {
	done, failed, longest atomic.Int64
	ended                 atomic.Bool
}

func (l *load) run(t *testing.T, n *node, volumes []kubelet.Volume) {
	t.Helper()
	for i := 0; !l.ended.Load() && t.Context().Err() == nil; i++ {
		v := volumes[i%len(volumes)]
		start := time.Now()
		err := n.Kubelet.Publish(t.Context(), v)
		took := time.Since(start)
		if err != nil {
			l.failed.Add(1)
			t.Errorf("publish %s: %v", v.Pod, err)
		} else if files, err := n.Kubelet.Files(v); err != nil || files["password"].Contents != "p4ssw0rd" {
			l.failed.Add(1)
			t.Errorf("publish %s succeeded, but its files are %v (%v)", v.Pod, files, err)
		}
		for longest := l.longest.Load(); int64(took) > longest && !l.longest.CompareAndSwap(longest, int64(took)); {
			longest = l.longest.Load()
		}
		if err := n.Kubelet.Unpublish(t.Context(), v); err != nil {
			t.Errorf("unpublish %s: %v", v.Pod, err)
		}
		l.done.Add(1)
	}
}

// await waits until as many publishes are done.
func (l *load) await(t *testing.T, publishes int) {
	t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.NewTimer(3 * time.Minute)
	defer deadline.Stop()
	for l.done.Load() < int64(publishes) {
		select {
		case <-ticker.C:
		case <-deadline.C:
			t.Fatalf("%d publishes after 3 minutes, want %d", l.done.Load(), publishes)
		}
	}
}
