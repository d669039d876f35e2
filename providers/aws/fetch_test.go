package aws

import (
	"encoding/base64"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/postern-dev/postern/providers/sdk"
)

// What users of ASCP mount, by its README: a secret, a parameter, an ARN, keys of
// a JSON secret, a label, a mode, a translated path.
func TestFetch(t *testing.T) {
	t.Parallel()
	n := newTenant(t)
	n.secret("db", `{"username":"canary-bob","password":"canary-s3cret","port":5432,"tls":true,"hosts":["a","b"]}`, map[string]any{"suffix": "AbCdEf"})
	n.secret("plain", "canary-first", nil)
	n.secret("plain", "canary-second", nil)
	n.put(map[string]any{"secrets": []any{map[string]any{
		"region": region, "name": n.name + "/binary", "binary": base64.StdEncoding.EncodeToString([]byte("canary-\x00\xff")),
	}}})
	n.parameter("url", "canary-one", nil)
	n.parameter("url", "canary-two", map[string]any{"labels": []string{"stable"}})
	n.parameter("url", "canary-three", map[string]any{"type": "SecureString"})
	req := n.request(`
- ObjectName: arn:aws:secretsmanager:eu-west-1:111122223333:secret:NS/db-AbCdEf
  objectalias: db
  filePermission: "0400"
  jmesPath:
  - {path: username, objectAlias: user}
  - {path: password, objectAlias: password, filePermission: "0440"}
  - {path: port, objectAlias: port}
  - {path: tls, objectAlias: tls}
  - {path: hosts, objectAlias: hosts}
- {objectName: NS/plain, objectType: secretsmanager}
- {objectName: NS/plain, objectType: secretsmanager, objectVersionLabel: AWSPREVIOUS, objectAlias: previous}
- {objectName: NS/binary, objectType: secretsmanager, objectAlias: binary}
- {objectName: /NS/url, objectType: ssmparameter}
- {objectName: /NS/url, objectType: ssmparameter, objectVersion: "1", objectAlias: url-1}
- {objectName: /NS/url, objectType: ssmparameter, objectVersionLabel: stable, objectAlias: url-stable}
`)
	resp := n.fetchOK(req)
	want := map[string]string{
		"db":   `{"username":"canary-bob","password":"canary-s3cret","port":5432,"tls":true,"hosts":["a","b"]}`,
		"user": "canary-bob", "password": "canary-s3cret", "port": "5432", "tls": "true", "hosts": `["a","b"]`,
		n.name + "_plain": "canary-second", "previous": "canary-first", "binary": "canary-\x00\xff",
		"_" + n.name + "_url": "canary-three", "url-1": "canary-one", "url-stable": "canary-two",
	}
	if got := contentsOf(resp); !maps.Equal(got, want) {
		t.Errorf("files %v, want %v", got, want)
	}
	modes := map[string]fs.FileMode{"db": 0o400, "user": 0o400, "password": 0o440, "previous": 0}
	for _, f := range resp.Files {
		if mode, ok := modes[f.Path]; ok && f.Mode != mode {
			t.Errorf("%s has mode %o, want %o", f.Path, f.Mode, mode)
		}
	}
	if resp.Sharing != sdk.SharingServiceAccount || resp.FreshFor != freshFor {
		t.Errorf("sharing %s, fresh for %s", resp.Sharing, resp.FreshFor)
	}
	req.Parameters["pathTranslation"] = "False"
	got := n.files(req)
	if got[n.name+"/plain"] != "canary-second" || got[n.name+"/url"] != "canary-three" {
		t.Errorf("without translation: %v", got)
	}
}

// Twenty pods with five secrets each, of one service account: one login, one
// read, and on a refresh only what has changed.
func TestFetch_Calls(t *testing.T) {
	t.Parallel()
	for check, want := range map[string]map[string]int{
		checkDescribe: {"AssumeRoleWithWebIdentity": 1, "BatchGetSecretValue": 1, "DescribeSecret": 150},
		checkRead:     {"AssumeRoleWithWebIdentity": 1, "BatchGetSecretValue": 31},
	} {
		t.Run(check, func(t *testing.T) {
			t.Parallel()
			n := newTenant(t, func(o *options) { o.refreshCheck = check })
			var objects strings.Builder
			for i := range 5 {
				n.secret(fmt.Sprint(i), fmt.Sprintf("canary-%d", i), nil)
				fmt.Fprintf(&objects, "- {objectName: NS/%d, objectType: secretsmanager}\n", i)
			}
			req := n.request(objects.String())
			before := n.calls()
			resp := n.fetchOK(req)
			again := refreshed(req, resp)
			for range 30 { // an hour of two minutes; the gateway makes one of all pods' calls
				if resp := n.fetchOK(again); !resp.NotModified {
					t.Fatal("an unchanged secret is read as changed")
				}
			}
			n.wantCalls(before, want)
		})
	}
}

// A refresh finds what has changed, whatever it is, and answers all of it.
func TestRefresh(t *testing.T) {
	t.Parallel()
	objects := `
- {objectName: NS/a, objectType: secretsmanager, objectAlias: a}
- {objectName: /NS/p, objectType: ssmparameter, objectAlias: p}
- {objectName: NS/maybe, objectType: secretsmanager, objectAlias: maybe, optional: true}
`
	files := func(a, p string) map[string]string { return map[string]string{"a": a, "p": p} }
	tests := map[string]struct {
		change func(n *tenant, req *sdk.Request)
		want   map[string]string
	}{
		"nothing":  {func(*tenant, *sdk.Request) {}, nil},
		"a secret": {func(n *tenant, _ *sdk.Request) { n.secret("a", "canary-2", nil) }, files("canary-2", "canary-p")},
		"a stage": {func(n *tenant, _ *sdk.Request) {
			n.secret("a", "canary-2", map[string]any{"stages": []string{"AWSPENDING"}})
		}, nil},
		"parameter": {func(n *tenant, _ *sdk.Request) { n.parameter("p", "canary-2", nil) }, files("canary-1", "canary-2")},
		"a parameter made anew": {func(n *tenant, _ *sdk.Request) {
			n.drop("/parameters", url.Values{"region": {region}, "name": {"/" + n.name + "/p"}})
			n.parameter("p", "canary-anew", nil)
		}, files("canary-1", "canary-anew")},
		"an optional one came": {
			func(n *tenant, _ *sdk.Request) { n.secret("maybe", "canary-maybe", nil) },
			map[string]string{"a": "canary-1", "p": "canary-p", "maybe": "canary-maybe"},
		},
		"the class: a name": {func(_ *tenant, req *sdk.Request) {
			req.Parameters["objects"] = strings.Replace(req.Parameters["objects"], "objectAlias: a}", "objectAlias: b}", 1)
		}, map[string]string{"b": "canary-1", "p": "canary-p"}},
		"the class: another parameter": {func(n *tenant, req *sdk.Request) {
			n.parameter("q", "canary-q", nil)
			req.Parameters["objects"] = strings.Replace(req.Parameters["objects"], "/p,", "/q,", 1)
		}, files("canary-1", "canary-q")},
		"the class: a mode": {func(_ *tenant, req *sdk.Request) {
			req.Parameters["objects"] = strings.Replace(req.Parameters["objects"], "objectAlias: a}", "objectAlias: a, filePermission: '0600'}", 1)
		}, files("canary-1", "canary-p")},
		"the class: one less": {func(_ *tenant, req *sdk.Request) {
			req.Parameters["objects"] = strings.SplitAfter(req.Parameters["objects"], "\n")[1]
		}, map[string]string{"a": "canary-1"}},
		"the default mode": {func(_ *tenant, req *sdk.Request) { req.DefaultFileMode = 0o600 }, files("canary-1", "canary-p")},
		"may not describe": {func(n *tenant, _ *sdk.Request) { n.allow(n.without("secretsmanager:DescribeSecret")) }, nil},
		"may not describe; changed": {func(n *tenant, _ *sdk.Request) {
			n.allow(n.without("secretsmanager:DescribeSecret"))
			n.secret("a", "canary-2", nil)
		}, files("canary-2", "canary-p")},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newTenant(t)
			n.secret("a", "canary-1", nil)
			n.parameter("p", "canary-p", map[string]any{"type": "SecureString"})
			req := n.request(objects)
			resp := n.fetchOK(req)
			if got := versionOf(resp, "maybe"); got != versionMissing {
				t.Errorf("the optional secret has version %q, want %q", got, versionMissing)
			}
			again := refreshed(req, resp)
			again.Parameters = maps.Clone(req.Parameters)
			tt.change(n, again)
			got := n.fetchOK(again)
			if tt.want == nil {
				if !got.NotModified {
					t.Errorf("got %v, want not modified", got.Objects)
				}
				return
			}
			if files := contentsOf(got); got.NotModified || !maps.Equal(files, tt.want) {
				t.Errorf("not modified: %t, files %v, want %v", got.NotModified, files, tt.want)
			}
			if again := refreshed(again, got); !n.fetchOK(again).NotModified {
				t.Error("the next refresh reads it as changed again")
			}
		})
	}
}

// without is readAll with one action less.
func (n *tenant) without(action string) map[string]any {
	document := n.readAll()
	for _, s := range document["Statement"].([]map[string]any) {
		if actions, ok := s["Action"].([]string); ok {
			var left []string
			for _, a := range actions {
				if a != action {
					left = append(left, a)
				}
			}
			s["Action"] = left
		}
	}
	return document
}

func versionOf(resp *sdk.Response, id string) string {
	for _, o := range resp.Objects {
		if o.ID == id {
			return o.Version
		}
	}
	return ""
}

// An unchanged secret moves no contents on a refresh.
func TestRefresh_MovesNoContents(t *testing.T) {
	t.Parallel()
	n := newTenant(t)
	n.secret("a", "canary-1", nil)
	n.parameter("p", "canary-p", map[string]any{"type": "SecureString"})
	req := n.request("- {objectName: NS/a, objectType: secretsmanager}\n- {objectName: /NS/p, objectType: ssmparameter}")
	again := refreshed(req, n.fetchOK(req))
	before := n.calls()
	if !n.fetchOK(again).NotModified {
		t.Error("modified")
	}
	// Without decryption, GetParameters needs no key either: it works while the
	// key is denied.
	n.wantCalls(before, map[string]int{"DescribeSecret": 1, "GetParameters": 1})
	n.put(map[string]any{"parameters": []any{with(map[string]any{"kms": "denied"}, "name", "/"+n.name+"/p")}})
	if !n.fetchOK(again).NotModified {
		t.Error("modified")
	}
	n.wantError(req, sdk.ReasonAccessDenied, "kms:Decrypt")
}

// Pods of one service account that come at once log in once.
func TestFetch_Concurrent(t *testing.T) {
	t.Parallel()
	n := newTenant(t)
	n.secret("a", "canary-a", nil)
	before := n.calls()
	var pods sync.WaitGroup
	for i := range 20 {
		pods.Go(func() {
			req := n.request("- {objectName: NS/a, objectType: secretsmanager, objectAlias: a}")
			req.VolumeID = fmt.Sprint(i)
			n.wantFiles(req, map[string]string{"a": "canary-a"})
		})
	}
	pods.Wait()
	n.wantCalls(before, map[string]int{"AssumeRoleWithWebIdentity": 1, "GetSecretValue": 20})
}
