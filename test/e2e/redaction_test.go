package e2e_test

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/postern-dev/postern/test/harness"
)

// The contents of the secret, each of which would be seen wherever it appeared.
const (
	canaryUser     = "canary-user-Zk3vTq9xWb"
	canaryPassword = "canary-password-8LhNfR2pYd"
)

// Nothing that anybody may read holds a token or a secret, even at the highest
// log level, when the mount works and when it does not.
func TestNothingSecretIsToldToAnybody(t *testing.T) {
	t.Parallel()
	n := startNode(t, func(c *harness.Config) { c.LogLevel = "debug" })
	namespace := tenant(t, map[string]any{"username": canaryUser, "password": canaryPassword})
	class(t, namespace, "app", vaultSpec(namespace, nil))
	class(t, namespace, "denied", vaultSpec(namespace, map[string]any{"roleName": "nobody"}))
	class(t, namespace, "missing", vaultSpec(namespace, objects(
		"{objectName: x, secretPath: secret/data/"+namespace+"/app, secretKey: none}")))
	told := map[string]string{}
	canaries := map[string]string{}
	for _, name := range []string{"app", "denied", "missing"} {
		v := pod(t, namespace, "web-"+name, name)
		addTokens(t, canaries, v.Tokens)
		v.TokensInSecrets = name == "denied" // where the request fails with them in hand
		err := n.Kubelet.Publish(t.Context(), v)
		if (err == nil) != (name == "app") {
			t.Errorf("publish %s: %v", name, err)
		}
		if err != nil {
			told["the error of "+name] = err.Error()
		}
		t.Cleanup(func() { n.unpublish(t, v) })
		n.trace(t, v, "postern-driver", "postern-provider-vault")
	}
	for _, secret := range []string{canaryUser, canaryPassword} {
		canaries["a secret"+secret] = secret
		canaries["a secret in base64"+secret] = strings.TrimRight(base64.StdEncoding.EncodeToString([]byte(secret)), "=")
	}
	eventually(t, "events tell of the pods", func() bool {
		events, err := servers.API.Client.CoreV1().Events(namespace).List(t.Context(), metav1.ListOptions{})
		must(t, err)
		return len(events.Items) >= 2
	})
	n.collect(t, told, namespace)
	for where, text := range told {
		for what, canary := range canaries {
			if at := strings.Index(text, canary); at >= 0 {
				t.Errorf("%s holds %s: …%s…", where, what, text[max(0, at-120):at])
			}
		}
	}
	// What is searched must be what the daemons say, or nothing is ever found.
	for _, where := range []string{"the log of postern-driver", "the log of postern-gateway", "the spans", "the events and statuses"} {
		if !strings.Contains(told[where], "web-app") && !strings.Contains(told[where], "app") {
			t.Errorf("%s does not even name the pod: the search proves nothing", where)
		}
	}
}

// collect adds everything that the node told.
func (n *node) collect(t *testing.T, told map[string]string, namespace string) {
	t.Helper()
	for _, daemon := range n.Daemons() {
		told["the log of "+daemon.Name()] = daemon.Log()
		metrics, err := daemon.Get(t.Context(), "/metrics")
		must(t, err)
		told["the metrics of "+daemon.Name()] = metrics
	}
	for _, span := range n.traces.Spans() {
		told["the spans"] += span.Text() + "\n"
	}
	events, err := servers.API.Client.CoreV1().Events(namespace).List(t.Context(), metav1.ListOptions{})
	must(t, err)
	encoded, err := json.Marshal(events)
	must(t, err)
	told["the events and statuses"] = string(encoded)
	statuses, err := servers.API.Dynamic.Resource(podStatuses()).Namespace(namespace).List(t.Context(), metav1.ListOptions{})
	must(t, err)
	encoded, err = json.Marshal(statuses)
	must(t, err)
	told["the events and statuses"] += string(encoded)
}

// addTokens adds the payload and the signature of each token: either would do
// for somebody.
func addTokens(t *testing.T, canaries map[string]string, encoded string) {
	t.Helper()
	var tokens map[string]struct{ Token string }
	must(t, json.Unmarshal([]byte(encoded), &tokens))
	for audience, token := range tokens {
		parts := strings.Split(token.Token, ".")
		canaries["the token for "+audience+parts[2][:8]] = parts[1]
		canaries["a token's signature for "+audience+parts[2][:8]] = parts[2]
	}
}
