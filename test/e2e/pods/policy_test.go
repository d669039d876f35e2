package pods_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Rules come from the chart's values. A broken one ends the upgrade before it
// has changed anything; one that is changed is in force without a restart; and
// a denial tells the pod's users which rule it was.
func testPolicy(t *testing.T) {
	dumpIfFailed(t, system)
	n := newTenant(t, map[string]any{"password": "hunter2"})
	n.class("allowed", "password")
	n.class("forbidden", "password")
	rule := func(require string) []string {
		return []string{
			"gateway.policy.rules[0].name=some-classes", "gateway.policy.rules[0].require=" + require,
			"gateway.policy.rules[0].message=ask the platform team",
		}
	}
	t.Cleanup(func() {
		if err := shared.postern.Upgrade(context.WithoutCancel(t.Context()), "gateway.policy.rules=null"); err != nil {
			t.Error(err)
		}
	})
	must(t, shared.postern.Upgrade(t.Context(), rule("secretProviderClass.name != 'nobody'")...))
	n.start(n.pod("before", "forbidden"))
	var gateways []string
	eventually(t, time.Minute, "the gateway without rules to be gone", func(ctx context.Context) error {
		parts, err := listParts(ctx)
		if gateways = parts["gateway"]; err == nil && len(gateways) != 1 {
			err = fmt.Errorf("there are %v", gateways)
		}
		return err
	})

	err := shared.postern.Upgrade(t.Context(), rule("secretProviderClass.nam != 'forbidden'")...)
	if err == nil || !strings.Contains(err.Error(), "some-classes") || !strings.Contains(err.Error(), "nam") {
		t.Errorf("the upgrade with a broken rule ended with %v", err)
	}
	must(t, shared.postern.Upgrade(t.Context(), rule("secretProviderClass.name != 'forbidden'")...))
	nudge(t, gateways)
	denied := 0
	eventually(t, 3*time.Minute, "the new rule to be in force", func(ctx context.Context) error {
		denied++
		pod := n.create(n.pod(fmt.Sprintf("denied-%d", denied), "forbidden"))
		defer n.delete(pod, metav1.DeleteOptions{})
		return n.deniedBy(ctx, pod, `"some-classes"`, "ask the platform team", "forbidden")
	})
	n.start(n.pod("after", "allowed"))
	if now := podsOfParts(t)["gateway"]; !slices.Equal(now, gateways) {
		t.Errorf("the gateway's pods were %v and are %v", gateways, now)
	}
}

// nudge has kubelet look at the pods of the gateway, so that it writes their
// ConfigMap anew at once and not within a minute or two.
func nudge(t *testing.T, pods []string) {
	t.Helper()
	for _, name := range pods {
		_, err := shared.client.CoreV1().Pods(system).Patch(t.Context(), name, types.MergePatchType,
			fmt.Appendf(nil, `{"metadata":{"annotations":{"nudged":%q}}}`, time.Now()), metav1.PatchOptions{})
		must(t, err)
	}
}

// deniedBy waits until a pod runs, which is an error, or is denied with these
// words.
func (n *tenant) deniedBy(ctx context.Context, pod *corev1.Pod, words ...string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		list, err := events(ctx, pod)
		if err != nil {
			return err
		}
		for _, event := range list {
			if event.Reason != "SecretsMountFailed" {
				continue
			}
			for _, word := range words {
				if !strings.Contains(event.Message, word) {
					n.t.Errorf("the event says %q, and not %q", event.Message, word)
				}
			}
			return nil
		}
		current, err := shared.client.CoreV1().Pods(n.namespace).Get(ctx, pod.Name, metav1.GetOptions{})
		switch {
		case err != nil:
			return err
		case isRunning(current):
			return errors.New("the pod got its secret")
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return errors.New(describe(context.WithoutCancel(ctx), pod))
		}
	}
}
