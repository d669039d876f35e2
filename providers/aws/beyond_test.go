package aws

import (
	"fmt"
	"testing"

	"github.com/postern-dev/postern/providers/sdk"
)

// What ASCP cannot do: optional objects, all keys of a secret, what a prefix or
// tags match.

func TestOptional(t *testing.T) {
	t.Parallel()
	n := newTenant(t)
	n.secret("a", "canary-a", nil)
	n.secret("gone", "canary-gone", map[string]any{"deleted": true})
	const rest = `
- {objectName: NS/none, objectType: secretsmanager, objectAlias: none, optional: true}
- {objectName: NS/gone, objectType: secretsmanager, objectAlias: gone, optional: true}
- {objectName: /NS/none, objectType: ssmparameter, objectAlias: parameter, optional: true}
`
	resp := n.fetchOK(n.request(oneSecret + rest))
	if got := contentsOf(resp); len(got) != 1 || got["a"] != "canary-a" {
		t.Errorf("files %v", got)
	}
	for _, id := range []string{"none", "gone", "parameter"} {
		if got := versionOf(resp, id); got != versionMissing {
			t.Errorf("%s has version %q, want %q", id, got, versionMissing)
		}
	}
	// A refresh that nothing has changed for reads nothing.
	before := n.calls()
	if !n.fetchOK(refreshed(n.request(oneSecret+rest), resp)).NotModified {
		t.Error("modified")
	}
	if calls := since(before, n.calls()); calls["GetSecretValue"]+calls["BatchGetSecretValue"] > 0 {
		t.Errorf("calls %v: contents were read", calls)
	}
	n.wantError(n.request(rest), sdk.ReasonObjectNotFound, "none of the optional objects is there")
	// What is denied is not what is missing.
	n.wantError(n.request("- {objectName: elsewhere, objectType: secretsmanager, optional: true}"), sdk.ReasonAccessDenied)
}

func TestAllKeys(t *testing.T) {
	t.Parallel()
	n := newTenant(t)
	n.secret("a", `{"user":"canary-bob","port":5432,"off":null,"db":{"name":"canary-orders"},"path/key":"canary-p"}`, nil)
	got := n.files(n.request(`
- objectName: NS/a
  objectType: secretsmanager
  objectAlias: all.json
  jmesPath: [{path: "*", objectAlias: "app-*"}, {path: db, objectAlias: "db-*.txt"}]
`))
	want := map[string]string{
		"app-user": "canary-bob", "app-port": "5432", "app-db": `{"name":"canary-orders"}`, "app-path_key": "canary-p",
		"db-name.txt": "canary-orders",
	}
	for path, contents := range want {
		if got[path] != contents {
			t.Errorf("%s holds %q, want %q", path, got[path], contents)
		}
	}
	if len(got) != len(want)+1 || got["all.json"] == "" {
		t.Errorf("files %v, want the whole secret, too, and no file for null", got)
	}
	n.wantError(n.request(`
- objectName: NS/a
  objectType: secretsmanager
  objectAlias: user
  jmesPath: [{path: "*", objectAlias: "*"}]
`), sdk.ReasonInvalidParameters, "objects[0].jmesPath", "is there already")
	n.secret("b", `{"user":"canary-b"}`, nil)
	n.wantError(n.request(`
- objectName: NS/a
  objectType: secretsmanager
  objectAlias: a
  jmesPath: [{path: "*", objectAlias: "*"}]
- objectName: NS/b
  objectType: secretsmanager
  objectAlias: b
  jmesPath: [{path: "*", objectAlias: "*"}]
`), sdk.ReasonInvalidParameters, "Name already in use for objectAlias: NS/a and NS/b")
}

func TestSelect(t *testing.T) {
	t.Parallel()
	n := newTenant(t)
	n.allow(policy(map[string]any{"Effect": "Allow", "Action": "*", "Resource": "*"}))
	for i := range 3 {
		n.secret(fmt.Sprintf("app/%d", i), fmt.Sprintf("canary-s%d", i), map[string]any{"tags": map[string]string{"team": n.name, "i": fmt.Sprint(i % 2)}})
		n.parameter(fmt.Sprintf("app/%d", i), fmt.Sprintf("canary-p%d", i), map[string]any{"type": "SecureString", "tags": map[string]string{"team": n.name}})
	}
	n.secret("other", "canary-other", nil)
	bySecret := "- {namePrefix: NS/app/, objectType: secretsmanager, objectAlias: 's-*'}"
	req := n.request(bySecret + "\n- {namePrefix: /NS/app/, objectType: ssmparameter, objectAlias: 'p-*'}")
	n.wantFiles(req, map[string]string{
		"s-0": "canary-s0", "s-1": "canary-s1", "s-2": "canary-s2", "p-0": "canary-p0", "p-1": "canary-p1", "p-2": "canary-p2",
	})
	n.wantFiles(n.request("- {tags: {team: NS, i: '1'}, objectType: secretsmanager}"), map[string]string{n.name + "_app_1": "canary-s1"})

	resp := n.fetchOK(n.request(bySecret))
	again := refreshed(n.request(bySecret), resp)
	before := n.calls()
	if !n.fetchOK(again).NotModified {
		t.Error("modified")
	}
	if calls := since(before, n.calls()); calls["BatchGetSecretValue"]+calls["GetSecretValue"] > 0 {
		t.Errorf("calls %v: contents were read", calls)
	}
	n.secret("app/3", "canary-s3", nil)
	if got := contentsOf(n.fetchOK(again)); len(got) != 4 || got["s-3"] != "canary-s3" {
		t.Errorf("files %v after one more came", got)
	}
	n.wantError(n.request("- {namePrefix: NS/app/, objectType: secretsmanager, limit: 2}"), sdk.ReasonInvalidParameters, "objects[0].limit", "more than 2")
	n.wantError(n.request("- {namePrefix: NS/nothing/, objectType: secretsmanager}"), sdk.ReasonObjectNotFound, "nothing matches")
	n.wantFiles(n.request(oneOther+"\n- {namePrefix: NS/nothing/, objectType: secretsmanager, optional: true}"), map[string]string{"o": "canary-other"})
	n.allow(n.readAll())
	n.wantError(n.request(bySecret), sdk.ReasonAccessDenied, "secretsmanager:ListSecrets")
}

const oneOther = "- {objectName: NS/other, objectType: secretsmanager, objectAlias: o}"
