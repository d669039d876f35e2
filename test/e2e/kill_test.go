package e2e_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/postern-dev/postern/test/harness"
	"github.com/postern-dev/postern/test/kubelet"
)

// killRounds is how many publishes are hit, at delays that sweep over a publish.
const killRounds = 12

// A daemon is killed at any point of a publish. Afterwards the target is either
// not mounted or complete, and kubelet's next attempt makes it complete.
func TestKill(t *testing.T) {
	t.Parallel()
	for name, victim := range map[string]func(*node) *harness.Daemon{
		"driver":   func(n *node) *harness.Daemon { return n.Driver },
		"gateway":  func(n *node) *harness.Daemon { return n.Gateway },
		"provider": func(n *node) *harness.Daemon { return n.Providers["vault"] },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := startNode(t)
			namespace := tenant(t, map[string]any{"username": "bob", "password": "p4ssw0rd"})
			class(t, namespace, "app", vaultSpec(namespace, nil))
			duration := n.measurePublish(t, pod(t, namespace, "measured", "app"))
			killed := 0
			for round := range killRounds {
				delay := duration * time.Duration(round) / (killRounds - 2)
				v := pod(t, namespace, "web-"+string(rune('a'+round)), "app")
				if n.killDuringPublish(t, v, victim(n), delay) {
					killed++
				}
			}
			t.Logf("%d of %d publishes (of %s) were under way when the %s was killed", killed, killRounds, duration, name)
			if killed == 0 {
				t.Error("no publish was under way: the test tests nothing")
			}
		})
	}
}

// measurePublish returns how long a publish takes.
func (n *node) measurePublish(t *testing.T, v kubelet.Volume) time.Duration {
	t.Helper()
	start := time.Now()
	must(t, n.Kubelet.Publish(t.Context(), v))
	duration := time.Since(start)
	n.unpublish(t, v)
	return duration
}

// killDuringPublish kills the victim a while after a publish began and starts
// it again. It tells whether the publish was still under way.
func (n *node) killDuringPublish(t *testing.T, v kubelet.Volume, victim *harness.Daemon, delay time.Duration) bool {
	t.Helper()
	want := map[string]string{"username": "bob", "password": "p4ssw0rd"}
	answer := make(chan error, 1)
	go func() { answer <- n.Kubelet.Publish(t.Context(), v) }()
	timer := time.NewTimer(delay)
	<-timer.C
	underWay := len(answer) == 0
	victim.Kill()
	must(t, victim.Restart(t.Context()))
	err := <-answer
	if err == nil {
		n.wantFiles(t, v, want)
	} else {
		n.wantCompleteOrNothing(t, v, want)
	}
	// As kubelet does: again, until it works.
	n.publishUntilOK(t, v)
	n.wantFiles(t, v, want)
	mounts, mountsErr := kubelet.Mounts(n.Kubelet.Target(v))
	must(t, mountsErr)
	if len(mounts) != 1 {
		t.Errorf("%d mounts at the target after %s (first answer: %v), want 1", len(mounts), delay, err)
	}
	n.unpublish(t, v)
	return underWay
}

func (n *node) wantCompleteOrNothing(t *testing.T, v kubelet.Volume, want map[string]string) {
	t.Helper()
	mounts, err := kubelet.Mounts(n.Kubelet.Target(v))
	must(t, err)
	if len(mounts) != 0 {
		n.wantFiles(t, v, want)
	}
}

func (n *node) publishUntilOK(t *testing.T, v kubelet.Volume) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var last error
	must(t, n.Driver.WaitFor(ctx, func(ctx context.Context) error {
		n.Kubelet.Connect()
		last = n.Kubelet.Publish(ctx, v)
		return last
	}))
	if last != nil {
		t.Fatal(errors.Join(errors.New("publish after a restart"), last))
	}
}
