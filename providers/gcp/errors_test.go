package gcp

import (
	"maps"
	"testing"

	"github.com/postern-dev/postern/providers/sdk"
)

// What a user reads of each way in which Google refuses, with what has to be done.
func TestErrors(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		secrets string
		change  func(*customer)
		fault   map[string]any
		reason  sdk.Reason
		texts   []string
	}{
		"no such secret": {
			secrets: "[{resourceName: SECRETSnone/versions/latest, path: x}]", reason: sdk.ReasonObjectNotFound,
			change: func(c *customer) { c.grant("none", "roles/secretmanager.secretAccessor", c.member()) },
			texts:  []string{`object "SECRETSnone/versions/latest": Check project, name, version`},
		},
		"no such version": {secrets: "[{resourceName: SECRETSa/versions/7, path: x}]", reason: sdk.ReasonObjectNotFound},
		"one of two does not exist": {
			secrets: "[{resourceName: SECRETSa/versions/latest, path: a}, {resourceName: SECRETSa/versions/9, path: x}]",
			reason:  sdk.ReasonObjectNotFound, texts: []string{"SECRETSa/versions/9"},
		},
		"two of three do not exist": {
			secrets: "[{resourceName: SECRETSa/versions/8, path: y}, {resourceName: SECRETSa/versions/latest, path: a}, {resourceName: SECRETSa/versions/9, path: x}]",
			reason:  sdk.ReasonObjectNotFound, texts: []string{"SECRETSa/versions/8", "nor can be had: SECRETSa/versions/9"},
		},
		"disabled": {
			secrets: oneSecret, reason: sdk.ReasonAccessDenied, texts: []string{"DISABLED", "enable it"},
			change: func(c *customer) {
				c.put(map[string]any{"secrets": []any{map[string]any{"name": c.resource("a"), "state": "DISABLED"}}})
			},
		},
		"destroyed": {
			secrets: oneSecret, reason: sdk.ReasonAccessDenied, texts: []string{"DESTROYED"},
			change: func(c *customer) {
				c.put(map[string]any{"secrets": []any{map[string]any{"name": c.resource("a"), "state": "DESTROYED"}}})
			},
		},
		"may not read": {
			secrets: oneSecret, change: func(c *customer) { c.grant("a", "roles/secretmanager.secretAccessor") }, reason: sdk.ReasonAccessDenied,
			texts: []string{"Give serviceAccount:" + pool + "[NS/web] the role roles/secretmanager.secretAccessor", "secretmanager.versions.access"},
		},
		"a checksum that is wrong": {
			secrets: oneSecret, fault: map[string]any{"service": "secretmanager", "operation": "access", "kind": "corrupt"},
			reason: sdk.ReasonStoreUnavailable, texts: []string{"checksum"},
		},
		"no checksum": {
			secrets: oneSecret, fault: map[string]any{"service": "secretmanager", "operation": "access", "kind": "no-checksum"},
			reason: sdk.ReasonStoreUnavailable, texts: []string{"checksum"},
		},
		"a checksum that is wrong once": {
			secrets: oneSecret, fault: map[string]any{"service": "secretmanager", "operation": "access", "kind": "corrupt", "count": 1},
		},
		"throttled for long": {
			secrets: oneSecret, fault: map[string]any{"service": "secretmanager", "kind": "throttle", "retryAfter": 17},
			reason: sdk.ReasonRateLimited, texts: []string{"quota"},
		},
		"down once": {secrets: oneSecret, fault: map[string]any{"service": "secretmanager", "kind": "unavailable", "count": 1}},
		"down":      {secrets: oneSecret, fault: map[string]any{"service": "secretmanager", "kind": "unavailable"}, reason: sdk.ReasonStoreUnavailable},
		"a key that is not there": {
			secrets: "[{resourceName: SECRETSdoc/versions/latest, path: x, extractJSONKey: nothing}]", reason: sdk.ReasonObjectNotFound,
			texts: []string{"key 'nothing' not found in JSON"},
		},
		"no JSON": {
			secrets: "[{resourceName: SECRETSa/versions/latest, path: x, extractJSONKey: k}]", reason: sdk.ReasonInvalidParameters,
			texts: []string{"secrets[0]", "failed to unmarshal JSON"},
		},
		"two keys at once": {
			secrets: "[{resourceName: SECRETSa/versions/latest, path: x, extractJSONKey: k, extractYAMLKey: k}]", reason: sdk.ReasonInvalidParameters,
			texts: []string{"both ExtractJSONKey and ExtractYAMLKey can't be simultaneously non empty strings"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCustomer(t)
			c.secret("a", "canary-a", nil)
			c.secret("doc", `{"key":"canary"}`, nil)
			if tt.change != nil {
				tt.change(c)
			}
			if tt.fault != nil {
				c.fault(tt.fault)
			}
			req := c.request(tt.secrets)
			if tt.reason == "" {
				c.wantFiles(req, map[string]string{"a": "canary-a"})
				return
			}
			c.wantError(req, tt.reason, tt.texts...)
		})
	}
}

// An optional object that is not there is no error, and the status says that it is
// missing; one that may not be read is.
func TestOptional(t *testing.T) {
	t.Parallel()
	c := newCustomer(t)
	c.secret("a", "canary-a", nil)
	c.grant("maybe", "roles/secretmanager.secretAccessor", c.member())
	const some = "[{resourceName: SECRETSa/versions/latest, path: a}, {resourceName: SECRETSmaybe/versions/latest, path: m, optional: true}]"
	resp := c.fetchOK(c.request(some))
	if got, want := contentsOf(resp), map[string]string{"a": "canary-a"}; !maps.Equal(got, want) {
		t.Errorf("files %q, want %q", got, want)
	}
	if o := resp.Objects[1]; o.ID != c.resource("maybe")+"/versions/latest" || o.Version != versionMissing {
		t.Errorf("the status says %v of what is not there", o)
	}
	c.wantError(c.request("[{resourceName: SECRETSmaybe/versions/latest, path: m, optional: true}]"), sdk.ReasonObjectNotFound, "never empty")
	c.grant("maybe", "roles/secretmanager.secretAccessor")
	c.wantError(c.request(some), sdk.ReasonAccessDenied)
}

// Many secrets by their labels and names.
func TestSelections(t *testing.T) {
	t.Parallel()
	c := newCustomer(t)
	for _, name := range []string{"db", "url"} {
		c.secret(name, "canary-"+name, map[string]any{"labels": map[string]string{"app": c.name}})
	}
	c.secret("other", "canary-other", nil)
	c.put(map[string]any{"bindings": []any{map[string]any{
		"resource": "projects/" + project, "role": "roles/" + c.name, "permissions": []string{"secretmanager.secrets.list"}, "members": []string{c.member()},
	}}})
	for name, tt := range map[string]struct {
		secrets string
		want    map[string]string
		reason  sdk.Reason
		texts   []string
	}{
		"labels": {
			"[{parent: projects/" + project + ", labels: {app: NS}, path: 'all/*'}]",
			map[string]string{"all/NS-db": "canary-db", "all/NS-url": "canary-url"},
			"", nil,
		},
		"names": {"[{parent: projects/" + project + ", namePrefix: NS-o}]", map[string]string{"NS-other": "canary-other"}, "", nil},
		"more than limit": {
			"[{parent: projects/" + project + ", labels: {app: NS}, limit: 1}]", nil,
			sdk.ReasonInvalidParameters,
			[]string{"secrets[0].limit", "more than 1"},
		},
		"nothing": {"[{parent: projects/" + project + ", namePrefix: NS-x}]", nil, sdk.ReasonObjectNotFound, []string{"optional: true"}},
		"one twice": {
			"[{parent: projects/" + project + ", namePrefix: NS-db}, {resourceName: SECRETSdb/versions/latest, path: NS-db}]", nil,
			sdk.ReasonInvalidParameters,
			[]string{"the same file"},
		},
	} {
		t.Run(name, func(*testing.T) {
			if tt.reason != "" {
				c.wantError(c.request(tt.secrets), tt.reason, tt.texts...)
				return
			}
			want := map[string]string{}
			for path, contents := range tt.want {
				want[c.named(path)] = contents
			}
			c.wantFiles(c.request(tt.secrets), want)
		})
	}
}
