package azure

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

	"github.com/postern-dev/postern/providers/sdk"
)

// customer is a namespace whose service account "web" is federated with an
// application that may read everything of a vault, and a provider.
type customer struct {
	*double
	*provider
	t *testing.T
	// name is the namespace's and the vault's, and client the application's id.
	name, client string
}

// readAll is what most need.
func readAll() []string { return []string{"secrets/get", "keys/get", "certificates/get"} }

func newCustomer(t *testing.T, change ...func(*options)) *customer {
	t.Helper()
	sum := sha256.Sum256([]byte(t.Name()))
	c := &customer{
		double: azureDouble(t), t: t, name: "t" + hex.EncodeToString(sum[:5]),
		client: fmt.Sprintf("%x-0000-4000-8000-%x", sum[:4], sum[4:10]),
	}
	c.federate()
	c.grant(readAll()...)
	c.provider = c.start(change...)
	return c
}

// neighbour is another namespace with an application and a vault of its own, which
// mounts from the same provider.
func (c *customer) neighbour() *customer {
	c.t.Helper()
	n := *c
	n.name, n.client = "n"+c.name[1:], "ffff"+c.client[4:]
	n.federate()
	n.grant(readAll()...)
	return &n
}

// start makes a provider, as its process does.
func (c *customer) start(change ...func(*options)) *provider {
	c.t.Helper()
	o := options{cloudName: "AzurePublicCloud", maxSessions: 100, nmiEndpoint: c.NMI}
	o.content.ConstructPEMChain = true
	for _, set := range change {
		set(&o)
	}
	p, err := newProvider(o, sdk.Environment{
		Logger: slog.New(slog.DiscardHandler), TracerProvider: tracenoop.NewTracerProvider(),
		MeterProvider: metricnoop.NewMeterProvider(), Getenv: func(string) string { return "" }, Version: "v0.0.0-test",
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return p
}

// put puts a document into the double.
func (c *customer) put(document map[string]any) {
	c.t.Helper()
	if err := c.apply(document); err != nil {
		c.t.Fatal(err)
	}
}

// federate registers the application, with a federated credential of the service
// account unless members say other ones.
func (c *customer) federate(members ...map[string]any) {
	c.t.Helper()
	application := map[string]any{
		"tenant": tenant, "clientId": c.client,
		"federatedCredentials": []any{map[string]any{"issuer": issuer, "subject": "system:serviceaccount:" + c.name + ":web"}},
	}
	for _, m := range members {
		maps.Copy(application, m)
	}
	c.put(map[string]any{"applications": []any{application}})
}

// grant says what the application may do in the vault, and nobody else.
func (c *customer) grant(operations ...string) {
	c.t.Helper()
	if len(operations) == 0 {
		c.vault(nil)
		return
	}
	c.vault(map[string]any{"grants": []any{map[string]any{"clientId": c.client, "operations": operations}}})
}

// vault puts the vault, with these members.
func (c *customer) vault(members map[string]any) {
	c.t.Helper()
	vault := map[string]any{"name": c.name, "tenant": tenant}
	maps.Copy(vault, members)
	c.put(map[string]any{"vaults": []any{vault}})
}

// secret puts a version of a secret, with members of the double's document.
func (c *customer) secret(name, value string, members map[string]any) {
	c.t.Helper()
	secret := map[string]any{"vault": c.name, "name": name, "value": value}
	maps.Copy(secret, members)
	c.put(map[string]any{"secrets": []any{secret}})
}

// fault breaks the double for the customer until the test ends.
func (c *customer) fault(members map[string]any) {
	c.t.Helper()
	if _, ok := members["vault"]; !ok && members["service"] != "entra" {
		members["vault"] = c.name
	}
	if members["service"] == "entra" {
		members["clientId"] = c.client
	}
	c.put(map[string]any{"faults": []any{members}})
}

// pod is "web-1" of service account "web", which is annotated with the application.
func (c *customer) pod() sdk.Pod {
	return sdk.Pod{
		Namespace: c.name, Name: "web-1", UID: "uid-1",
		ServiceAccount: sdk.ServiceAccount{Name: "web", Annotations: map[string]string{clientAnnotation: c.client}},
	}
}

// request asks for objects as that pod.
func (c *customer) request(objects string) *sdk.Request {
	c.t.Helper()
	return &sdk.Request{
		VolumeID: "volume-" + c.name, SecretProviderClass: "app", DefaultFileMode: 0o644, Pod: c.pod(),
		Parameters: sdk.Parameters{"keyvaultName": c.name, "tenantID": tenant, "objects": objects},
		Tokens:     c.tokens(nil),
	}
}

// tokens are those that kubelet sends, with some claims changed.
func (c *customer) tokens(changed map[string]any) sdk.Tokens {
	c.t.Helper()
	return sdk.Tokens{
		c.issuer.Token(c.pod(), audienceExchange, changed),
		c.issuer.Token(c.pod(), audienceBinding, changed),
	}
}

// calls counts the requests of the customer's application and to its vault, by
// service and operation; a vault's challenges are under "challenge".
func (c *customer) calls() map[string]int {
	c.t.Helper()
	var all struct {
		Calls []struct {
			Service, Operation, Vault, ClientID, Code string
			Count                                     int
		}
	}
	if err := c.control(http.MethodGet, "/calls", nil, &all); err != nil {
		c.t.Fatal(err)
	}
	counts, vault := map[string]int{}, c.name+".vault.azure.net"
	for _, call := range all.Calls {
		switch {
		case call.Vault == vault && call.Code == "Unauthorized":
			counts["challenge"] += call.Count
		case call.Vault == vault || call.ClientID == c.client:
			counts[call.Service+" "+call.Operation] += call.Count
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

// wantError fetches, and wants that to fail for a reason and to say these texts, in
// which NS is the customer's name.
func (c *customer) wantError(req *sdk.Request, reason sdk.Reason, texts ...string) {
	c.t.Helper()
	resp, err := c.Fetch(c.t.Context(), req)
	e, ok := errors.AsType[*sdk.Error](err)
	if !ok || e.Reason != reason {
		c.t.Errorf("got %v, %v; want %s", resp, err, reason)
		return
	}
	for _, text := range texts {
		if !strings.Contains(e.Error(), strings.ReplaceAll(text, "NS", c.name)) {
			c.t.Errorf("error %q does not say %q", e, text)
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
