package pods_test

import (
	"context"
	"strings"
	"testing"
	"time"
)

// dumpIfFailed writes what there is to know about a namespace and about Postern
// to the test's log, if the test fails, before its objects go.
func dumpIfFailed(t *testing.T, namespace string) {
	t.Helper()
	t.Cleanup(func() {
		if t.Failed() {
			dump(t, namespace)
		}
	})
}

func dump(t *testing.T, namespace string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	defer cancel()
	for _, command := range []string{
		"-n " + namespace + " get pods,secretproviderclasses,secretproviderclasspodstatuses -o wide",
		"-n " + namespace + " describe pods",
		"-n " + namespace + " get events --sort-by=.lastTimestamp",
		"-n " + system + " get daemonsets,pods -o wide",
		"-n " + system + " get events --sort-by=.lastTimestamp",
		"-n " + system + " logs -l app.kubernetes.io/part-of=postern --all-containers --prefix --tail=40 --max-log-requests=20",
	} {
		out, err := output(shared.cluster.Command(ctx, "kubectl", strings.Fields(command)...))
		if err != nil {
			out += err.Error()
		}
		t.Logf("kubectl %s\n%s", command, out)
	}
}
