package gcp

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"

	metricnoop "go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/postern-dev/postern/providers/sdk"
)

// customer is a namespace with secrets whose names begin with its own, which its
// service account "web" may read, and a provider.
type customer struct {
	*double
	*provider
	t *testing.T
	// name is the namespace's.
	name string
}

func newCustomer(t *testing.T, change ...func(*options)) *customer {
	t.Helper()
	sum := sha256.Sum256([]byte(t.Name()))
	c := &customer{double: googleDouble(t), t: t, name: "t" + hex.EncodeToString(sum[:5])}
	c.provider = c.start(change...)
	return c
}

// start makes a provider of the GKE cluster, as its process does.
func (c *customer) start(change ...func(*options)) *provider {
	c.t.Helper()
	o := options{refreshCheck: checkDescribe, maxSessions: 100}
	o.federation.Project = project
	for _, set := range change {
		set(&o)
	}
	p, err := newProvider(o, sdk.Environment{
		Logger: slog.New(slog.DiscardHandler), TracerProvider: tracenoop.NewTracerProvider(),
		MeterProvider: metricnoop.NewMeterProvider(), Getenv: os.Getenv, Version: "v0.0.0-test",
	})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = p.Shutdown(c.t.Context()) })
	return p
}

// put puts a document into the double.
func (c *customer) put(document map[string]any) {
	c.t.Helper()
	if err := c.apply(document); err != nil {
		c.t.Fatal(err)
	}
}

// member is the customer's service account, as IAM knows it.
func (c *customer) member() string { return "serviceAccount:" + pool + "[" + c.name + "/web]" }

// resource is the name of a secret.
func (c *customer) resource(name string) string {
	return "projects/" + project + "/secrets/" + c.name + "-" + name
}

// secret puts a version of a secret, which the service account may read.
func (c *customer) secret(name, value string, members map[string]any) {
	c.t.Helper()
	secret := map[string]any{"name": c.resource(name), "value": value}
	maps.Copy(secret, members)
	c.put(map[string]any{"secrets": []any{secret}})
	c.grant(name, "roles/secretmanager.secretAccessor", c.member())
}

// grant says who has a role on a secret, and nobody else.
func (c *customer) grant(name, role string, members ...string) {
	c.t.Helper()
	c.put(map[string]any{"bindings": []any{map[string]any{
		"resource": c.resource(name), "role": role, "members": append([]string{}, members...),
	}}})
}

// parameter puts a version of a parameter, which the service account may render.
func (c *customer) parameter(name, version, value string) string {
	c.t.Helper()
	resource := "projects/" + project + "/locations/global/parameters/" + c.name + "-" + name
	var made struct {
		Parameters []struct {
			PolicyMember string `json:"policyMember"`
		}
	}
	if err := c.control(http.MethodPost, "/apply", map[string]any{
		"parameters": []any{map[string]any{"name": resource, "format": "JSON", "version": version, "value": value}},
		"bindings": []any{map[string]any{
			"resource": resource, "role": "roles/parametermanager.parameterAccessor", "members": []string{c.member()},
		}},
	}, &made); err != nil {
		c.t.Fatal(err)
	}
	return made.Parameters[0].PolicyMember
}

// fault breaks the double for the customer's secret "a", or as members say, until
// the test ends.
func (c *customer) fault(members map[string]any) {
	c.t.Helper()
	if _, ok := members["resource"]; !ok {
		members["resource"] = c.name + "-a"
	}
	c.put(map[string]any{"faults": []any{members}})
}

// pod is "web-1" of service account "web".
func (c *customer) pod() sdk.Pod {
	return sdk.Pod{Namespace: c.name, Name: "web-1", UID: "uid-1", ServiceAccount: sdk.ServiceAccount{Name: "web"}}
}

// request asks for secrets as that pod. SECRETS stands for what the names of the
// customer's secrets begin with, and NS for its name.
func (c *customer) request(secrets string) *sdk.Request {
	c.t.Helper()
	return &sdk.Request{
		VolumeID: "volume-" + c.name, SecretProviderClass: "app", DefaultFileMode: 0o644, Pod: c.pod(),
		Parameters: sdk.Parameters{"secrets": c.named(secrets)},
		Tokens:     c.tokens(nil),
	}
}

func (c *customer) named(text string) string {
	return strings.NewReplacer("SECRETS", c.resource(""), "NS", c.name).Replace(text)
}

// tokens are those that kubelet sends, with some claims changed.
func (c *customer) tokens(changed map[string]any) sdk.Tokens {
	c.t.Helper()
	return sdk.Tokens{c.issuer.Token(c.pod(), c.federation.known[0], changed)}
}

// calls counts the requests for the customer's secrets, and those of its service
// account, by service and operation.
func (c *customer) calls() map[string]int {
	c.t.Helper()
	var all struct {
		Requests []struct{ Service, Operation, Resource, Principal string }
	}
	if err := c.control(http.MethodGet, "/requests", nil, &all); err != nil {
		c.t.Fatal(err)
	}
	counts := map[string]int{}
	for _, r := range all.Requests {
		if strings.Contains(r.Resource, c.name) || strings.Contains(r.Principal, c.name) {
			counts[r.Service+" "+r.Operation]++
		}
	}
	return counts
}

// since are the calls after others.
func since(before, now map[string]int) map[string]int {
	diff := map[string]int{}
	for operation, count := range now {
		if count > before[operation] {
			diff[operation] = count - before[operation]
		}
	}
	return diff
}

// wantCalls fails the test unless there were these calls since before.
func (c *customer) wantCalls(before, want map[string]int) {
	c.t.Helper()
	if got := since(before, c.calls()); !maps.Equal(got, want) {
		c.t.Errorf("calls %v, want %v", got, want)
	}
}

// fetchOK fetches, and fails the test if that does not work.
func (c *customer) fetchOK(req *sdk.Request) *sdk.Response {
	c.t.Helper()
	resp, err := c.Fetch(c.t.Context(), req)
	if err != nil {
		c.t.Fatalf("%v", err)
	}
	return resp
}

func contentsOf(resp *sdk.Response) map[string]string {
	contents := map[string]string{}
	for _, f := range resp.Files {
		contents[f.Path] = string(f.Contents.Reveal())
	}
	return contents
}

// wantFiles fetches, and wants these files with these contents.
func (c *customer) wantFiles(req *sdk.Request, want map[string]string) {
	c.t.Helper()
	if got := contentsOf(c.fetchOK(req)); !maps.Equal(got, want) {
		c.t.Errorf("files %q, want %q", got, want)
	}
}

// wantError fetches, and wants that to fail for a reason and to say these texts.
func (c *customer) wantError(req *sdk.Request, reason sdk.Reason, texts ...string) {
	c.t.Helper()
	resp, err := c.Fetch(c.t.Context(), req)
	e, ok := errors.AsType[*sdk.Error](err)
	if !ok || e.Reason != reason {
		c.t.Errorf("got %v, %v; want %s", resp, err, reason)
		return
	}
	for _, text := range texts {
		if !strings.Contains(e.Error(), c.named(text)) {
			c.t.Errorf("error %q does not say %q", e, c.named(text))
		}
	}
	if strings.Contains(e.Error(), "canary") || strings.Contains(e.Error(), "eyJ") {
		c.t.Errorf("error %q holds a secret", e)
	}
}

// refreshed is the request of a refresh of a volume that holds an answer.
func refreshed(req *sdk.Request, resp *sdk.Response) *sdk.Request {
	again := *req
	if !resp.NotModified {
		again.CurrentObjects = slices.Clone(resp.Objects)
	}
	return &again
}

func (c *customer) drop(path string, query url.Values) {
	c.t.Helper()
	if err := c.control(http.MethodDelete, path+"?"+query.Encode(), nil, nil); err != nil {
		c.t.Fatal(err)
	}
}
