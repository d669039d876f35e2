package pods_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-dev/postern/test/otlp"
)

// One mount is one trace through all processes, from kubelet's call to the
// requests to the store.
func testOneTrace(t *testing.T) {
	t.Parallel()
	n := newTenant(t, map[string]any{"password": "hunter2"})
	n.class("app", "password")
	n.start(n.pod("web", "app"))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	trace, err := shared.traces.Wait(ctx, func(trace otlp.Trace) bool {
		root, ok := trace.Find("csi.NodePublishVolume")
		return ok && root.Attributes["k8s.namespace.name"] == n.namespace && trace.Has("vault GET")
	})
	must(t, err)
	t.Logf("\n%s", trace.Tree())
	read, _ := trace.Find("vault GET")
	got := append([]string{read.Name}, trace.Ancestors(read)...)
	slices.Reverse(got)
	want := "csi.NodePublishVolume > postern.gateway.v1.GatewayService/Fetch > postern.gateway.v1.GatewayService/Fetch > gateway.Fetch > " +
		"postern.provider.v1.ProviderService/Fetch > postern.provider.v1.ProviderService/Fetch > provider.Fetch > vault GET"
	if strings.Join(got, " > ") != want {
		t.Errorf("the way to the store is\n%s\nwant\n%s", strings.Join(got, " > "), want)
	}
	for _, name := range []string{"driver.GetSecretProviderClass", "driver.WriteVolume", "vault POST"} {
		if !trace.Has(name) {
			t.Errorf("the trace has no %s", name)
		}
	}
	for _, span := range trace.Spans {
		if strings.Contains(span.Text(), "hunter2") {
			t.Errorf("span %s holds the secret", span.Name)
		}
	}
}
