package store

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-dev/postern/providers/gcp/internal/params"
	"github.com/postern-dev/postern/providers/sdk/providertest"
)

// doubleEnv names the test double of Google Cloud, test/cmd/postern-gcp.
const doubleEnv = "POSTERN_TEST_GCP"

// testDouble is what the tests with it share; each works with a project of its own.
// Nil: there is no binary.
var testDouble *double

// double is a running test double.
type double struct {
	Proxy   string `json:"proxy"`
	Control string `json:"control"`

	server *providertest.Server
}

func startDouble(binary, caFile string) (*double, error) {
	d := new(double)
	var err error
	d.server, err = providertest.StartServer(binary, []string{"--metadata", "off", "--ca-file", caFile}, d)
	return d, err
}

// stop ends it. What Google would not take is an error.
func (d *double) stop() error {
	defer d.server.Stop()
	var found struct {
		Violations []any `json:"violations"`
	}
	err := d.control("GET", "/violations", nil, &found)
	if err == nil && len(found.Violations) > 0 {
		err = fmt.Errorf("requests that are not as Google takes them: %v", found.Violations)
	}
	return err
}

func (d *double) control(method, path string, in, out any) error {
	return d.server.Call(method, d.Control+path, in, out)
}

// project is a project of the double, and a Store with nothing but the environment.
type project struct {
	*double
	t     *testing.T
	id    string
	store *Store
}

// newProject puts a document, in which P stands for the project and WHO for one of
// its service accounts.
func newProject(t *testing.T, id string, document map[string]any) *project {
	t.Helper()
	if testDouble == nil {
		t.Fatalf("%s is not set: `make test` builds the test double and sets it; by hand, run "+
			"`go build -o postern-gcp ./cmd/postern-gcp` in test and set %s to its path", doubleEnv, doubleEnv)
	}
	p := &project{double: testDouble, t: t, id: id, store: New(Config{})}
	t.Cleanup(p.store.Close)
	document["serviceAccounts"] = []any{map[string]any{"email": p.email()}}
	p.post("/apply", document, nil)
	return p
}

func (p *project) email() string { return "app@" + p.id + ".iam.gserviceaccount.com" }

func (p *project) post(path string, in, out any) {
	p.t.Helper()
	if err := p.control(http.MethodPost, path, in, out); err != nil {
		p.t.Fatal(err)
	}
}

// as is the project's service account.
func (p *project) as() As {
	p.t.Helper()
	var token struct {
		AccessToken string `json:"accessToken"`
	}
	p.post("/token", map[string]any{"principal": p.email()}, &token)
	return As{Credentials: plain(token.AccessToken), Identity: p.email()}
}

// plain is a token.
type plain string

func (p plain) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(p)}, nil
}
func (plain) RequireTransportSecurity() bool { return true }

func (p *project) binding(role, resource string) map[string]any {
	return map[string]any{"resource": resource, "role": role, "members": []string{"serviceAccount:" + p.email()}}
}

// grant gives the service account a role in the project.
func (p *project) grant(role string) {
	p.t.Helper()
	p.post("/apply", map[string]any{"bindings": []any{p.binding(role, "projects/"+p.id)}}, nil)
}

func (p *project) ref(kind params.Kind, location, rest string) Ref {
	return Ref{Kind: kind, Location: strings.TrimPrefix(location, "global"), Resource: parentOf(p.id, location) + "/" + rest}
}

func (p *project) read(as As, refs ...Ref) []Answer {
	p.t.Helper()
	answers, err := p.store.Read(p.t.Context(), as, refs)
	if err != nil {
		p.t.Fatal(err)
	}
	return answers
}

func (p *project) kindOf(as As, ref Ref) Kind {
	p.t.Helper()
	answer := p.read(as, ref)[0]
	if answer.Err == nil {
		return 0
	}
	return asError(p.t, answer.Err).Kind
}

func secretNamed(name, value string) map[string]any {
	return map[string]any{"name": name, "value": value, "labels": map[string]string{"app": "web"}}
}

// TestDouble reads everything there is, with the roles that it takes and without.
func TestDouble(t *testing.T) {
	t.Parallel()
	at := "projects/store-read/"
	p := newProject(t, "store-read", map[string]any{
		"secrets": []any{
			secretNamed(at+"secrets/db", "canary-1"), secretNamed(at+"secrets/db", "canary-2"),
			secretNamed(at+"locations/europe-west3/secrets/db", "canary-eu"),
			map[string]any{"name": at + "secrets/db", "aliases": map[string]int{"stable": 1}},
			secretNamed(at+"secrets/off", "canary"),
			map[string]any{"name": at + "secrets/off", "state": "DISABLED"},
		},
		"parameters": []any{
			map[string]any{"name": at + "locations/global/parameters/conf", "version": "v1", "value": "canary-conf"},
			map[string]any{"name": at + "locations/europe-west3/parameters/conf", "version": "v1", "value": "canary-conf-eu"},
		},
	})
	as := p.as()
	latest := p.ref(params.Secret, "", "secrets/db/versions/latest")
	if kind := p.kindOf(as, latest); kind != Denied {
		t.Errorf("without a role: %v", kind)
	}
	p.grant("roles/secretmanager.secretAccessor")
	p.grant("roles/parametermanager.parameterAccessor")
	for _, tt := range []struct {
		ref           Ref
		want, version string
	}{
		{latest, "canary-2", "2"},
		{p.ref(params.Secret, "", "secrets/db/versions/stable"), "canary-1", "1"},
		{p.ref(params.Secret, "europe-west3", "secrets/db/versions/1"), "canary-eu", "1"},
		{p.ref(params.Parameter, "global", "parameters/conf/versions/v1"), "canary-conf", "v1"},
		{p.ref(params.Parameter, "europe-west3", "parameters/conf/versions/v1"), "canary-conf-eu", "v1"},
	} {
		if a := p.read(as, tt.ref)[0]; a.Err != nil || string(a.Contents.Reveal()) != tt.want || numberOf(a) != tt.version {
			t.Errorf("%v is version %q, %v", tt.ref, a.Version, a.Err)
		}
	}
	for name, want := range map[string]Kind{"off/versions/latest": Disabled, "nosuch/versions/latest": NotFound, "db/versions/7": NotFound} {
		if kind := p.kindOf(as, p.ref(params.Secret, "", "secrets/"+name)); kind != want {
			t.Errorf("%s: %v, want %v", name, kind, want)
		}
	}
	if _, ok, err := p.store.Versions(t.Context(), as, []Ref{latest}); ok || err != nil {
		t.Errorf("versions are told without a role, %v", err)
	}
	p.post("/revoke", map[string]any{"principal": p.email()}, nil)
	if kind := p.kindOf(as, latest); kind != BadCredentials {
		t.Errorf("revoked: %v", kind)
	}
}

// TestDoubleVersionsAndList: with the role for them.
func TestDoubleVersionsAndList(t *testing.T) {
	t.Parallel()
	at := "projects/store-list/"
	p := newProject(t, "store-list", map[string]any{"secrets": []any{
		secretNamed(at+"secrets/web-b", "canary"), secretNamed(at+"secrets/web-a", "canary"), secretNamed(at+"secrets/db", "canary"),
		map[string]any{"name": at + "secrets/web-c", "value": "canary"},
	}})
	p.grant("roles/secretmanager.secretAccessor")
	p.grant("roles/secretmanager.viewer")
	as := p.as()
	names, err := p.store.List(t.Context(), as, &params.Select{Project: p.id, NamePrefix: "web", Labels: map[string]string{"app": "web"}, Limit: 5})
	if diff := cmp.Diff([]string{"web-a", "web-b"}, names); diff != "" || err != nil {
		t.Errorf("%v %s", err, diff)
	}
	refs := []Ref{p.ref(params.Secret, "", "secrets/web-a/versions/latest"), p.ref(params.Secret, "", "secrets/nosuch/versions/latest")}
	versions := func() ([]string, bool) {
		told, ok, err := p.store.Versions(t.Context(), as, refs)
		if err != nil {
			t.Fatal(err)
		}
		return told, ok
	}
	if told, ok := versions(); ok {
		t.Errorf("versions that were not read are told: %v", told)
	}
	read := p.read(as, refs...)[0].Version
	if told, ok := versions(); !ok || told[0] != read || told[1] != "" {
		t.Errorf("versions are %v, %t, and %s was read", told, ok, read)
	}
	p.post("/apply", map[string]any{"secrets": []any{secretNamed(at+"secrets/web-a", "canary-2")}}, nil)
	if told, ok := versions(); ok && told[0] == read {
		t.Error("after rotation: the version is still the same")
	}
	if a := p.read(as, refs[0])[0]; numberOf(a) != "2" || string(a.Contents.Reveal()) != "canary-2" {
		t.Errorf("after rotation: %+v", a)
	}
}

// TestDoubleFaults: what breaks on the way.
func TestDoubleFaults(t *testing.T) {
	t.Parallel()
	name := "projects/store-fault/locations/asia-east1/secrets/db"
	p := newProject(t, "store-fault", map[string]any{"secrets": []any{secretNamed(name, "canary")}})
	p.grant("roles/secretmanager.secretAccessor")
	as, ref := p.as(), p.ref(params.Secret, "asia-east1", "secrets/db/versions/latest")
	for _, tt := range []struct {
		kind  string
		count int
		want  Kind
	}{
		{"corrupt", 1, 0},
		{"corrupt", 2, Corrupted},
		{"no-checksum", 2, Corrupted},
		{"throttle", 1, 0},
		{"throttle", 3, Throttled},
		{"unavailable", 2, 0},
		{"close", 1, 0},
		{"garbage", 3, Unavailable},
	} {
		fault := map[string]any{"service": "secretmanager", "operation": "access", "resource": name + "/versions/latest", "kind": tt.kind, "count": tt.count}
		p.post("/apply", map[string]any{"faults": []any{fault}}, nil)
		start := time.Now()
		got := p.kindOf(as, ref)
		if got != tt.want {
			t.Errorf("%s, %d times: %v, want %v", tt.kind, tt.count, got, tt.want)
		}
		t.Logf("%s, %d times: %v after %s", tt.kind, tt.count, got, time.Since(start))
	}
	for _, how := range []string{"close", "freeze"} {
		p.post("/connections/"+how, map[string]any{"host": "secretmanager.asia-east1.rep.googleapis.com"}, nil)
		start := time.Now()
		if got := p.kindOf(as, ref); got != 0 {
			t.Errorf("after %s: %v", how, got)
		}
		t.Logf("%s: %s", how, time.Since(start))
	}
}
