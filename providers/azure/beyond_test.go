package azure

import (
	"fmt"
	"maps"
	"testing"

	"github.com/postern-dev/postern/providers/sdk"
)

// An optional object that is not there is no error, and the status says that it is
// missing; one that may not be read is.
func TestOptional(t *testing.T) {
	t.Parallel()
	c := newCustomer(t)
	c.secret("a", "canary-a", nil)
	c.secret("off", "canary-off", map[string]any{"enabled": false})
	const some = `
- {objectName: a, objectType: secret}
- {objectName: maybe, objectType: secret, objectAlias: dir/maybe, optional: true}
`
	resp := c.fetchOK(c.request(some))
	if got, want := contentsOf(resp), map[string]string{"a": "canary-a"}; !maps.Equal(got, want) {
		t.Errorf("files %q, want %q", got, want)
	}
	if o := resp.Objects[1]; o.ID != "secret/maybe" || o.Version != versionMissing {
		t.Errorf("the status says %v of what is not there", o)
	}
	for name, tt := range map[string]struct {
		objects string
		change  func()
		reason  sdk.Reason
	}{
		"all are missing": {"[{objectName: maybe, objectType: secret, optional: true}]", nil, sdk.ReasonObjectNotFound},
		"disabled":        {"[{objectName: off, objectType: secret, optional: true}]", nil, sdk.ReasonAccessDenied},
		"denied":          {some, func() { c.grant() }, sdk.ReasonAccessDenied},
	} {
		if tt.change != nil {
			tt.change()
		}
		t.Run(name, func(*testing.T) { c.wantError(c.request(tt.objects), tt.reason) })
		c.grant(readAll()...)
	}
}

// Many objects by a pattern of their names, and by tags.
func TestSelections(t *testing.T) {
	t.Parallel()
	c := newCustomer(t)
	c.grant("secrets/get", "secrets/list")
	for _, name := range []string{"app-db", "app-url", "other"} {
		c.secret(name, "canary-"+name, map[string]any{"tags": map[string]string{"team": name[:3]}})
	}
	c.secret("app-off", "canary-off", map[string]any{"enabled": false})
	const named = "[{namePattern: app-*, objectType: secret, objectAlias: app/*.txt}]"
	for name, tt := range map[string]struct {
		objects string
		want    map[string]string
		reason  sdk.Reason
		texts   []string
	}{
		"names":           {named, map[string]string{"app/db.txt": "canary-app-db", "app/url.txt": "canary-app-url"}, "", nil},
		"tags":            {"[{tags: {team: oth}, objectType: secret}]", map[string]string{"other": "canary-other"}, "", nil},
		"names and tags":  {"[{namePattern: '*-db', tags: {team: app}, objectType: secret}]", map[string]string{"app-db": "canary-app-db"}, "", nil},
		"more than limit": {"[{namePattern: '*', objectType: secret, limit: 2}]", nil, sdk.ReasonInvalidParameters, []string{"objects[0].limit", "more than 2"}},
		"nothing":         {"[{namePattern: 'x-*', objectType: secret}]", nil, sdk.ReasonObjectNotFound, []string{"optional: true"}},
		"one twice": {
			"[{namePattern: app-*, objectType: secret}, {objectName: app-db, objectType: secret}]", nil,
			sdk.ReasonInvalidParameters,
			[]string{"app-db", "the same file"},
		},
	} {
		t.Run(name, func(*testing.T) {
			if tt.reason != "" {
				c.wantError(c.request(tt.objects), tt.reason, tt.texts...)
				return
			}
			c.wantFiles(c.request(tt.objects), tt.want)
		})
	}
	t.Run("one more comes", func(t *testing.T) {
		req := c.request(named)
		again := refreshed(req, c.fetchOK(req))
		c.secret("app-new", "canary-app-new", nil)
		if got := contentsOf(c.fetchOK(again)); got["app/new.txt"] != "canary-app-new" || len(got) != 3 {
			t.Errorf("files %q", got)
		}
	})
	t.Run("may not list", func(*testing.T) {
		c.grant("secrets/get")
		c.wantError(c.request(named), sdk.ReasonAccessDenied, `"Key Vault Secrets User" on the whole vault`)
	})
}

// Many objects are read at once, and come in the order of the class.
func TestManyObjects(t *testing.T) {
	t.Parallel()
	c := newCustomer(t)
	objects, want := "", map[string]string{}
	for i := range 40 {
		name := fmt.Sprintf("s%d", i)
		c.secret(name, "canary-"+name, nil)
		objects += "- {objectName: " + name + ", objectType: secret}\n"
		want[name] = "canary-" + name
	}
	resp := c.fetchOK(c.request(objects))
	if got := contentsOf(resp); !maps.Equal(got, want) {
		t.Errorf("files %q", got)
	}
	for i, o := range resp.Objects {
		if o.ID != fmt.Sprintf("secret/s%d", i) {
			t.Fatalf("object %d is %s", i, o.ID)
		}
	}
}
