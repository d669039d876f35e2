package gcp

import (
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/postern-dev/postern/providers/sdk"
)

const oneSecret = "[{resourceName: SECRETSa/versions/latest, path: a}]"

// What users of the upstream provider mount, by its README: the newest version, a
// number, an alias, keys of documents, a parameter, a mode, path before fileName.
func TestFetch(t *testing.T) {
	t.Parallel()
	c := newCustomer(t)
	c.secret("good1", "canary-first", nil)
	c.secret("good1", "canary-second", map[string]any{"aliases": map[string]int{"stable": 1}})
	c.secret("json", `{"user":"canary-bob","port":5432,"tls":true,"nested":{"a": 1}}`, nil)
	c.secret("yaml", "password: canary-pass\n", nil)
	reader := c.parameter("config", "v1", fmt.Sprintf(`{"password": "__REF__(//secretmanager.googleapis.com/%s/versions/1)"}`, c.resource("good1")))
	c.grant("good1", "roles/secretmanager.secretAccessor", c.member(), reader)
	req := c.request(`
- resourceName: "SECRETSgood1/versions/latest"
  fileName: "good1.txt"
- resourceName: "SECRETSgood1/versions/1"
  fileName: "not-this.txt"
  path: "dir/one.txt"
  mode: 0400
- resourceName: "SECRETSgood1/versions/stable"
  path: stable
- resourceName: "SECRETSjson/versions/latest"
  path: user
  extractJSONKey: user
- resourceName: "SECRETSjson/versions/latest"
  path: port
  extractJSONKey: port
- resourceName: "SECRETSjson/versions/latest"
  path: "all/*"
  extractJSONKey: "*"
- resourceName: "SECRETSyaml/versions/latest"
  path: password
  extractYAMLKey: password
- resourceName: "projects/` + project + `/locations/global/parameters/NS-config/versions/v1"
  path: config.json
`)
	resp := c.fetchOK(req)
	want := map[string]string{
		"good1.txt": "canary-second", "dir/one.txt": "canary-first", "stable": "canary-first",
		"user": "canary-bob", "port": "5432", "password": "canary-pass", "config.json": `{"password": "canary-first"}`,
		"all/user": "canary-bob", "all/port": "5432", "all/tls": "true", "all/nested": `{"a":1}`,
	}
	if got := contentsOf(resp); !maps.Equal(got, want) {
		t.Errorf("files %q, want %q", got, want)
	}
	modes := map[string]fs.FileMode{"dir/one.txt": 0o400, "stable": 0}
	for _, f := range resp.Files {
		if mode, ok := modes[f.Path]; ok && f.Mode != mode {
			t.Errorf("%s has mode %o, want %o", f.Path, f.Mode, mode)
		}
	}
	if resp.Sharing != sdk.SharingServiceAccount || resp.FreshFor != freshFor {
		t.Errorf("sharing %s, fresh for %s", resp.Sharing, resp.FreshFor)
	}
	if first := resp.Objects[0]; first.ID != c.resource("good1")+"/versions/latest" || !strings.HasPrefix(first.Version, "2@") {
		t.Errorf("the newest version is told as %v", first)
	}
	ids := map[string]bool{}
	for _, o := range resp.Objects {
		if ids[o.ID] {
			t.Errorf("id %s is there twice", o.ID)
		}
		ids[o.ID] = true
	}
}

// Twenty pods with five secrets each, of one service account: one login, one read
// of each, and on a refresh only the versions.
func TestFetch_Calls(t *testing.T) {
	t.Parallel()
	for check, want := range map[string]map[string]int{
		// What was read at first is read once more, since nobody knew of when it was.
		checkDescribe: {"securetoken token": 1, "secretmanager access": 10, "secretmanager get-version": 150},
		checkRead:     {"securetoken token": 1, "secretmanager access": 155},
	} {
		t.Run(check, func(t *testing.T) {
			t.Parallel()
			c := newCustomer(t, func(o *options) { o.refreshCheck = check })
			var secrets strings.Builder
			for i := range 5 {
				c.secret(fmt.Sprint(i), fmt.Sprintf("canary-%d", i), nil)
				c.grant(fmt.Sprint(i), "roles/secretmanager.viewer", c.member())
				fmt.Fprintf(&secrets, "- {resourceName: SECRETS%d/versions/latest, path: s%d}\n", i, i)
			}
			req := c.request(secrets.String())
			before := c.calls()
			again := refreshed(req, c.fetchOK(req))
			for range 30 { // an hour of two minutes; the gateway makes one of all pods' calls
				if resp := c.fetchOK(again); !resp.NotModified {
					t.Fatal("what has not changed is answered as changed")
				}
			}
			c.wantCalls(before, want)
		})
	}
}

// Without the permission to ask for versions a refresh reads, after it has found
// that out once.
func TestFetch_MayNotDescribe(t *testing.T) {
	t.Parallel()
	c := newCustomer(t)
	c.secret("a", "canary-a", nil)
	req := c.request(oneSecret)
	again := refreshed(req, c.fetchOK(req))
	before := c.calls()
	for range 5 {
		if resp := c.fetchOK(again); !resp.NotModified {
			t.Fatal("what has not changed is answered as changed")
		}
	}
	c.wantCalls(before, map[string]int{"secretmanager get-version": 1, "secretmanager access": 5})
}

// A refresh finds what has changed, whatever it is, and answers all of it.
func TestRefresh(t *testing.T) {
	t.Parallel()
	const secrets = `
- {resourceName: SECRETSa/versions/latest, path: a}
- {resourceName: SECRETSb/versions/latest, path: dir/b}
- {resourceName: SECRETSmaybe/versions/latest, path: maybe, optional: true}
`
	files := func(a, b string) map[string]string { return map[string]string{"a": a, "dir/b": b} }
	edited := func(old, replacement string) func(*customer, *sdk.Request) {
		return func(_ *customer, r *sdk.Request) {
			r.Parameters["secrets"] = strings.Replace(r.Parameters["secrets"], old, replacement, 1)
		}
	}
	for name, tt := range map[string]struct {
		change func(*customer, *sdk.Request)
		want   map[string]string // nil: nothing has changed
	}{
		"nothing":           {func(*customer, *sdk.Request) {}, nil},
		"a version":         {func(c *customer, _ *sdk.Request) { c.secret("a", "canary-2", nil) }, files("canary-2", "canary-b")},
		"the class: a path": {edited("dir/b", "other"), map[string]string{"a": "canary-1", "other": "canary-b"}},
		"the class: a mode": {edited("path: dir/b", "path: dir/b, mode: 0600"), files("canary-1", "canary-b")},
		"the default mode":  {func(_ *customer, r *sdk.Request) { r.DefaultFileMode = 0o600 }, files("canary-1", "canary-b")},
		"a secret made anew": {func(c *customer, _ *sdk.Request) {
			c.drop("/secrets", url.Values{"name": {c.resource("b")}})
			c.secret("b", "canary-anew", nil)
		}, files("canary-1", "canary-anew")},
		"an optional one came": {
			func(c *customer, _ *sdk.Request) { c.secret("maybe", "canary-maybe", nil) },
			map[string]string{"a": "canary-1", "dir/b": "canary-b", "maybe": "canary-maybe"},
		},
	} {
		for _, check := range []string{checkDescribe, checkRead} {
			t.Run(name+", "+check, func(t *testing.T) {
				t.Parallel()
				c := newCustomer(t, func(o *options) { o.refreshCheck = check })
				c.secret("a", "canary-1", nil)
				c.secret("b", "canary-b", nil)
				for _, name := range []string{"a", "b", "maybe"} {
					c.grant(name, "roles/secretmanager.viewer", c.member())
				}
				c.grant("maybe", "roles/secretmanager.secretAccessor", c.member())
				req := c.request(secrets)
				again := refreshed(req, c.fetchOK(req))
				again.Parameters = maps.Clone(req.Parameters)
				tt.change(c, again)
				resp := c.fetchOK(again)
				if resp.NotModified != (tt.want == nil) {
					t.Fatalf("not modified: %v", resp.NotModified)
				}
				if tt.want != nil && !maps.Equal(contentsOf(resp), tt.want) {
					t.Errorf("files %q, want %q", contentsOf(resp), tt.want)
				}
			})
		}
	}
}

// A version of a parameter stays the same while a secret in it changes, and that is
// seen all the same.
func TestRefresh_OfWhatAParameterRefersTo(t *testing.T) {
	t.Parallel()
	c := newCustomer(t)
	c.secret("a", "canary-first", nil)
	reader := c.parameter("config", "v1", fmt.Sprintf(`{"a": "__REF__(//secretmanager.googleapis.com/%s/versions/latest)"}`, c.resource("a")))
	c.grant("a", "roles/secretmanager.secretAccessor", reader)
	req := c.request("[{resourceName: projects/" + project + "/locations/global/parameters/NS-config/versions/v1, path: c}]")
	resp := c.fetchOK(req)
	again := refreshed(req, resp)
	if resp := c.fetchOK(again); !resp.NotModified {
		t.Error("what has not changed is answered as changed")
	}
	if strings.Contains(resp.Objects[0].Version, "canary") {
		t.Errorf("the version %s tells the contents", resp.Objects[0].Version)
	}
	c.secret("a", "canary-second", nil)
	c.grant("a", "roles/secretmanager.secretAccessor", reader)
	c.wantFiles(again, map[string]string{"c": `{"a": "canary-second"}`})
}

// Regional secrets are at their location's endpoint and at no other. Many at once
// each find theirs.
func TestRegions(t *testing.T) {
	t.Parallel()
	c := newCustomer(t)
	locations := []string{"europe-west1", "europe-west3", "us-central1", "us-east1", "asia-east1"}
	var secrets strings.Builder
	want := map[string]string{}
	for _, location := range locations {
		resource := "projects/" + project + "/locations/" + location + "/secrets/" + c.name
		c.put(map[string]any{
			"secrets":  []any{map[string]any{"name": resource, "value": "canary-" + location}},
			"bindings": []any{map[string]any{"resource": resource, "role": "roles/secretmanager.secretAccessor", "members": []string{c.member()}}},
		})
		fmt.Fprintf(&secrets, "- {resourceName: %s/versions/latest, path: %s}\n", resource, location)
		want[location] = "canary-" + location
	}
	c.wantFiles(c.request(secrets.String()), want)
	var all struct {
		Requests []struct{ Host, Resource string }
	}
	if err := c.control("GET", "/requests", nil, &all); err != nil {
		t.Fatal(err)
	}
	var hosts []string
	for _, r := range all.Requests {
		if strings.Contains(r.Resource, c.name) && strings.HasPrefix(r.Host, "secretmanager") {
			hosts = append(hosts, r.Host)
		}
	}
	for _, location := range locations {
		if host := "secretmanager." + location + ".rep.googleapis.com"; !slices.Contains(hosts, host) {
			t.Errorf("%s was not asked, but %v", host, hosts)
		}
	}
}
