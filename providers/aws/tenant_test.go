package aws

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	metricnoop "go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/postern-dev/postern/providers/aws/internal/identity"
	"github.com/postern-dev/postern/providers/sdk"
)

// tenant is a namespace whose service account "web" has a role, and a provider.
type tenant struct {
	*double
	*provider
	t *testing.T
	// name is the namespace's; names of secrets begin with it.
	name string
	role string
}

// readAll is what a role needs for the fewest calls, for all that begins with the
// tenant's name.
func (n *tenant) readAll() map[string]any {
	secrets := fmt.Sprintf("arn:aws:secretsmanager:*:%s:secret:%s/*", account, n.name)
	parameters := fmt.Sprintf("arn:aws:ssm:*:%s:parameter/%s/*", account, n.name)
	return policy(
		map[string]any{"Effect": "Allow", "Action": []string{"secretsmanager:GetSecretValue", "secretsmanager:DescribeSecret"}, "Resource": secrets},
		map[string]any{"Effect": "Allow", "Action": "secretsmanager:BatchGetSecretValue", "Resource": "*"},
		map[string]any{"Effect": "Allow", "Action": "ssm:GetParameters", "Resource": parameters},
	)
}

func newTenant(t *testing.T, change ...func(*options)) *tenant {
	t.Helper()
	sum := sha256.Sum256([]byte(t.Name()))
	n := &tenant{double: awsDouble(t), t: t, name: "t" + hex.EncodeToString(sum[:5])}
	n.role = "arn:aws:iam::" + account + ":role/" + n.name
	n.allow(n.readAll())
	n.provider = n.start(change...)
	return n
}

// start makes a provider, as its process does.
func (n *tenant) start(change ...func(*options)) *provider {
	n.t.Helper()
	o := options{refreshCheck: checkDescribe, maxSessions: 100, agentTimeout: identity.DefaultAgentTimeout}
	o.agent.IPv4, o.agent.IPv6 = n.PodIdentity, n.PodIdentity6
	for _, c := range change {
		c(&o)
	}
	p, err := newProvider(n.t.Context(), o, sdk.Environment{
		Logger: slog.New(slog.DiscardHandler), TracerProvider: tracenoop.NewTracerProvider(),
		MeterProvider: metricnoop.NewMeterProvider(), Getenv: func(string) string { return "" }, Version: "v0.0.0-test",
	})
	if err != nil {
		n.t.Fatal(err)
	}
	return p
}

// put puts a document into the double.
func (n *tenant) put(document map[string]any) {
	n.t.Helper()
	if err := n.apply(document); err != nil {
		n.t.Fatal(err)
	}
}

// allow gives the role a policy.
func (n *tenant) allow(document map[string]any) {
	n.t.Helper()
	n.put(map[string]any{"roles": []any{map[string]any{
		"arn": n.role, "serviceAccounts": []string{n.name + "/web"}, "policy": document,
	}}})
}

// secret puts a version of a secret, and parameter one of a parameter. Members
// are those of the double's document.
func (n *tenant) secret(name, contents string, members map[string]any) {
	n.t.Helper()
	n.put(map[string]any{"secrets": []any{with(members, "name", n.name+"/"+name, "string", contents)}})
}

func (n *tenant) parameter(name, value string, members map[string]any) {
	n.t.Helper()
	n.put(map[string]any{"parameters": []any{with(members, "name", "/"+n.name+"/"+name, "value", value)}})
}

// with is members, with more where they say nothing, in the tests' region.
func with(members map[string]any, more ...string) map[string]any {
	all := map[string]any{"region": region}
	for i := 0; i < len(more); i += 2 {
		all[more[i]] = more[i+1]
	}
	maps.Copy(all, members)
	return all
}

// fault breaks the double for the tenant until the test ends or the returned
// function is called.
func (n *tenant) fault(members map[string]any) {
	n.t.Helper()
	if _, ok := members["role"]; !ok {
		members["role"] = n.role
	}
	n.put(map[string]any{"faults": []any{members}})
}

// request asks for objects as pod "web-1" of service account "web". "NS" stands
// for the tenant's name.
func (n *tenant) request(objects string) *sdk.Request {
	n.t.Helper()
	return &sdk.Request{
		VolumeID: "volume-" + n.name, SecretProviderClass: "app", DefaultFileMode: 0o644,
		Pod: sdk.Pod{
			Namespace: n.name, Name: "web-1", UID: "uid-1",
			ServiceAccount: sdk.ServiceAccount{Name: "web", Annotations: map[string]string{roleAnnotation: n.role}},
		},
		Parameters: sdk.Parameters{"region": region, "objects": strings.ReplaceAll(objects, "NS", n.name)},
		Tokens:     n.tokens(nil),
	}
}

// tokens are those that kubelet sends, with some claims changed.
func (n *tenant) tokens(changed map[string]any) sdk.Tokens {
	n.t.Helper()
	var tokens sdk.Tokens
	pod := sdk.Pod{Namespace: n.name, Name: "web-1", UID: "uid-1", ServiceAccount: sdk.ServiceAccount{Name: "web"}}
	for _, audience := range []string{audienceSTS, audiencePodIdentity} {
		tokens = append(tokens, n.issuer.Token(pod, audience, changed))
	}
	return tokens
}

// calls counts the tenant's requests that AWS has answered, by operation; those of
// STS and the agent, where it has no role yet, with the others.
func (n *tenant) calls() map[string]int {
	n.t.Helper()
	var all struct {
		Calls []struct {
			Operation, Region, Role string
			Count                   int
		}
	}
	if err := n.control(http.MethodGet, "/calls", nil, &all); err != nil {
		n.t.Fatal(err)
	}
	counts := map[string]int{}
	for _, c := range all.Calls {
		if c.Role == n.role {
			counts[c.Operation] += c.Count
			counts[c.Region+" "+c.Operation] += c.Count
		}
	}
	return counts
}

// since are the calls after others.
func since(before, now map[string]int) map[string]int {
	diff := map[string]int{}
	for operation, count := range now {
		if !strings.Contains(operation, " ") && count > before[operation] {
			diff[operation] = count - before[operation]
		}
	}
	return diff
}

// wantCalls fails the test unless there were these calls since before.
func (n *tenant) wantCalls(before, want map[string]int) {
	n.t.Helper()
	if got := since(before, n.calls()); !maps.Equal(got, want) {
		n.t.Errorf("calls %v, want %v", got, want)
	}
}

// files fetches, and returns the contents by path.
func (n *tenant) files(req *sdk.Request) map[string]string {
	n.t.Helper()
	return contentsOf(n.fetchOK(req))
}

func (n *tenant) fetchOK(req *sdk.Request) *sdk.Response {
	n.t.Helper()
	resp, err := n.Fetch(n.t.Context(), req)
	if err != nil {
		n.t.Fatalf("Fetch: %v", err)
	}
	return resp
}

func contentsOf(resp *sdk.Response) map[string]string {
	files := make(map[string]string, len(resp.Files))
	for _, f := range resp.Files {
		files[f.Path] = string(f.Contents.Reveal())
	}
	return files
}

func (n *tenant) wantFiles(req *sdk.Request, want map[string]string) {
	n.t.Helper()
	if got := n.files(req); !maps.Equal(got, want) {
		n.t.Errorf("files %v, want %v", got, want)
	}
}

// wantError fetches, and wants that to fail for a reason and to say these texts.
func (n *tenant) wantError(req *sdk.Request, reason sdk.Reason, texts ...string) {
	n.t.Helper()
	resp, err := n.Fetch(n.t.Context(), req)
	e, ok := errors.AsType[*sdk.Error](err)
	if !ok || e.Reason != reason {
		n.t.Errorf("got %v, %v (%s); want %s", resp, err, reasonOf(e), reason)
		return
	}
	for _, text := range texts {
		if !strings.Contains(e.Error(), strings.ReplaceAll(text, "NS", n.name)) {
			n.t.Errorf("error %q does not say %q", e, text)
		}
	}
	if strings.Contains(e.Error(), "canary") {
		n.t.Errorf("error %q holds a secret", e)
	}
}

func reasonOf(e *sdk.Error) sdk.Reason {
	if e == nil {
		return ""
	}
	return e.Reason
}

// refreshed is the request of a refresh of a volume that holds an answer.
func refreshed(req *sdk.Request, resp *sdk.Response) *sdk.Request {
	again := *req
	if !resp.NotModified {
		again.CurrentObjects = slices.Clone(resp.Objects)
	}
	return &again
}

func (n *tenant) drop(path string, query url.Values) {
	n.t.Helper()
	if err := n.control(http.MethodDelete, path+"?"+query.Encode(), nil, nil); err != nil {
		n.t.Fatal(err)
	}
}
