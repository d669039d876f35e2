package app

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/postern-dev/postern/internal/daemon"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSocketPath(t *testing.T) {
	t.Parallel()
	for endpoint, want := range map[string]string{
		"unix:///csi/csi.sock": "/csi/csi.sock",
		"unix:/csi/csi.sock":   "/csi/csi.sock",
		"/csi/csi.sock":        "/csi/csi.sock",
	} {
		if got, err := socketPath(endpoint); err != nil || got != want {
			t.Errorf("%s: %q, %v", endpoint, got, err)
		}
	}
	for endpoint, want := range map[string]string{
		"tcp://127.0.0.1:10000": `endpoint "tcp://127.0.0.1:10000" is not a unix socket: write unix:///path/csi.sock`,
		"unix://csi/csi.sock":   `endpoint "unix://csi/csi.sock" is not a unix socket: write unix:///path/csi.sock`,
		"csi.sock":              `endpoint "csi.sock" has no absolute path: write unix:///path/csi.sock`,
	} {
		if _, err := socketPath(endpoint); err == nil || err.Error() != want {
			t.Errorf("%s: %v", endpoint, err)
		}
	}
}

func TestParseUIDs(t *testing.T) {
	t.Parallel()
	got, err := parseUIDs([]string{"vault=65011", "aws=65012"})
	if diff := cmp.Diff(map[string]int{"vault": 65011, "aws": 65012}, got); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	for pair, want := range map[string]string{
		"vault":     `provider uid "vault" is not name=uid`,
		"vault=x":   `provider uid "vault=x" is not name=uid`,
		"vault=-1":  `provider uid "vault=-1" is not name=uid`,
		"=65011":    `provider uid "=65011" is not name=uid`,
		"aws=65011": `providers "vault" and "aws" have the same uid 65011: each needs its own, by which the gateway tells them apart`,
	} {
		if _, err := parseUIDs([]string{"vault=65011", pair}); err == nil || err.Error() != want {
			t.Errorf("%s: %v", pair, err)
		}
	}
}

func TestRun_UsageErrors(t *testing.T) {
	t.Parallel()
	valid := []string{"--node-id=n", "--spc-dir=" + t.TempDir(), "--gateway-dir=" + t.TempDir(), "--providers-dir=" + t.TempDir(), "--metrics-addr="}
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"no node":       {[]string{}, "--node-id is required"},
		"two sources":   {append(valid, "--kubeconfig=/x"), "--spc-dir and --kubeconfig exclude one another"},
		"taint, no API": {append(valid, "--startup-taint-key=k"), "--startup-taint-key needs the Kubernetes API"},
		"no taint":      {append(valid, "--startup-taint-providers=vault"), "--startup-taint-providers means nothing without --startup-taint-key"},
		"no size":       {append(valid, "--volume-size=0"), "--volume-size 0 is not a size"},
		"relative root": {append(valid, "--kubelet-root=kubelet"), "kubelet"},
		"bad uids":      {append(valid, "--provider-uids=vault"), `provider uid "vault" is not name=uid`},
		"bad endpoint":  {append(valid, "--endpoint=tcp://x"), "is not a unix socket"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := Run(t.Context(), daemon.Env{Args: test.args, Getenv: func(string) string { return "" }, Stdout: io.Discard, Stderr: io.Discard})
			if _, usage := errors.AsType[*daemon.UsageError](err); !usage || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want a usage error with %q", err, test.want)
			}
		})
	}
}

func TestRun_EndsWithItsContext(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := Run(ctx, daemon.Env{
		Args: []string{
			"--node-id=n", "--spc-dir=" + dir, "--gateway-dir=" + dir + "/gateway", "--providers-dir=" + dir + "/providers",
			"--legacy-providers-dirs=" + dir + "/legacy", "--staging-dir=" + dir + "/staging", "--kubelet-root=" + dir,
			"--endpoint=" + dir + "/csi.sock", "--metrics-addr=",
		},
		Getenv: func(string) string { return "" }, Stdout: io.Discard, Stderr: io.Discard,
	})
	if err != nil {
		t.Error(err)
	}
}
