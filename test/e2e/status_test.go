package e2e_test

import (
	"bytes"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"

	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
	"github.com/postern-dev/postern/test/harness"
)

// What "postern-gateway status" says of a node with two providers and three
// volumes, to people and to machines.
func TestGatewayStatus(t *testing.T) {
	t.Parallel()
	n := startNode(t, func(c *harness.Config) { c.GatewayArgs = []string{"--max-age", "10m"} }) // however slow this is
	namespace := tenant(t, map[string]any{"username": canaryUser, "password": canaryPassword})
	class(t, namespace, "app", vaultSpec(namespace, nil))
	n.storeFile(t, namespace, "key", canaryPassword)
	class(t, namespace, "key", map[string]any{"provider": "file", "parameters": objects("{objectName: key}")})
	canaries := map[string]string{"a secret": canaryUser, "another secret": canaryPassword, "a path": namespace + "/app"}
	for name, class := range map[string]string{"web-0": "app", "web-1": "app", "web-2": "key"} {
		v := pod(t, namespace, name, class)
		addTokens(t, canaries, v.Tokens)
		n.publish(t, v)
	}

	table := n.status(t, "table")
	for _, want := range []string{
		`(?m)^postern-gateway \S+$`,
		`(?m)^  vault +serving +\S+ +provider\.v1 +\d+[sm].* +/\S+/providers/vault/\S+\.sock$`,
		`(?m)^  file +serving `,
		`(?m)^  vault +2 +0 +0/[1-9]`, // volumes, fetches and calls under way
		`(?m)^  file +1 +0 +0/[1-9]`,
		`(?m)^  no rules: every fetch is allowed$`,
	} {
		if !regexp.MustCompile(want).MatchString(table) {
			t.Errorf("nothing matches %s in\n%s", want, table)
		}
	}
	var report gatewayv1.StatusResponse
	encoded := n.status(t, "json")
	must(t, protojson.Unmarshal([]byte(encoded), &report))
	volumes := map[string]uint32{}
	for _, p := range report.GetProviders() {
		volumes[p.GetName()] += p.GetVolumes()
	}
	if volumes["vault"] != 2 || volumes["file"] != 1 {
		t.Errorf("volumes: %v", volumes)
	}
	// One of Vault's two volumes needed no call of its own.
	if cache := report.GetCache(); cache.GetMisses() < 2 || cache.GetHits() < 1 || cache.GetEntries() < 1 || cache.GetBytes() == 0 {
		t.Errorf("cache: %v", cache)
	}
	for what, canary := range canaries {
		if strings.Contains(table+encoded, canary) {
			t.Errorf("the status holds %s:\n%s", what, table)
		}
	}
}

// status runs the command as kubectl exec does: the gateway's program, as its
// uid, beside it.
func (n *node) status(t *testing.T, format string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), n.Path("bin/postern-gateway"), "status", "--addr", n.Gateway.Admin, "-o", format)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: harness.GatewayUID, Gid: harness.GatewayUID}}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil || stderr.Len() > 0 {
		t.Fatalf("postern-gateway status: %v\n%s", err, stderr.String())
	}
	return stdout.String()
}
