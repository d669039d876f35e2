package podstatus

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation"
)

func TestObjectName(t *testing.T) {
	t.Parallel()
	status := func(pod, namespace, class string) Status {
		return Status{Pod: Pod{Name: pod, Namespace: namespace}, SecretProviderClass: class, VolumeID: "csi-1"}
	}
	long := strings.Repeat("a", 250)
	tests := []struct {
		name   string
		status Status
		want   string // empty: any that is valid
	}{
		{name: "the upstream driver's", status: status("web-0", "shop", "db"), want: "web-0-shop-db"},
		{name: "just fits", status: status(strings.Repeat("a", 244), "shop", "db1"), want: strings.Repeat("a", 244) + "-shop-db1"},
		{name: "one too long", status: status(strings.Repeat("a", 245), "shop", "db1")},
		{name: "cut at a dot", status: status(strings.Repeat("a", 241)+".b", "shop", "db")},
		{name: "all long", status: status(long, strings.Repeat("n", 63), long)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			for _, got := range []string{objectName(test.status), volumeObjectName(test.status)} {
				if problems := validation.IsDNS1123Subdomain(got); len(problems) > 0 {
					t.Errorf("name %q: %v", got, problems)
				}
			}
			if got := objectName(test.status); test.want != "" && got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
	if a, b := objectName(status(long+"x", "n", "c")), objectName(status(long+"y", "n", "c")); a == b {
		t.Errorf("two pods have one name: %q", a)
	}
}

func TestNodeLabel(t *testing.T) {
	t.Parallel()
	for _, node := range []string{"n1", strings.Repeat("a", 63), strings.Repeat("a", 64), strings.Repeat("a", 51) + "." + strings.Repeat("b", 60)} {
		got := nodeLabel(node)
		if problems := validation.IsValidLabelValue(got); len(problems) > 0 {
			t.Errorf("label %q of node %q: %v", got, node, problems)
		}
		if len(node) <= 63 && got != node {
			t.Errorf("label %q of node %q, want the same", got, node)
		}
	}
}
