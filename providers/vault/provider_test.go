package vault

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-dev/postern/providers/sdk"
)

func TestFetch(t *testing.T) {
	t.Parallel()
	n := newTenant(t, readAll)
	n.put(t, "app", map[string]any{
		"username": "admin", "password": "p4ss <w0rd>", "port": json.Number("5432"), "big": json.Number("12345678901"),
		"list": []string{"a", "b"}, "b64": "aGVsbG8=", "hex": "68656c6c6f",
	})
	p := start(t, nil)
	resp := fetchOK(t, p, n.request(t, n.address, `
- {objectName: username, secretPath: KV/data/app, secretKey: username}
- {objectName: sub/password, secretPath: /v1/KV/data/app, secretKey: password, filePermission: 0600}
- {objectName: port, secretPath: /KV/data/app, secretKey: port, filePermission: 384}
- {objectName: big, secretPath: KV/data/app, secretKey: big}
- {objectName: list, secretPath: KV/data/app, secretKey: list}
- {objectName: b64, secretPath: KV/data/app, secretKey: b64, encoding: BASE64}
- {objectName: hex, secretPath: KV/data/app, secretKey: hex, encoding: hex}
`))
	want := map[string]string{
		"username": "admin", "sub/password": "p4ss <w0rd>", "port": "5432", "big": "12345678901",
		"list": `["a","b"]`, "b64": "hello", "hex": "hello",
	}
	if diff := cmp.Diff(want, files(resp)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	modes := map[string]uint32{}
	for _, f := range resp.Files {
		modes[f.Path] = uint32(f.Mode)
	}
	if modes["sub/password"] != 0o600 || modes["port"] != 0o600 || modes["username"] != 0o644 {
		t.Errorf("modes = %v", modes)
	}
	if resp.Sharing != sdk.SharingServiceAccount || resp.FreshFor <= 0 || len(resp.Leases) != 0 {
		t.Errorf("sharing %v, fresh for %v, leases %v", resp.Sharing, resp.FreshFor, resp.Leases)
	}
}

// TestFetchWholeResponse: what upstream gives, but for the request's id.
func TestFetchWholeResponse(t *testing.T) {
	t.Parallel()
	n := newTenant(t, readAll)
	n.put(t, "app", map[string]any{"a": "b", "n": json.Number("7")})
	p := start(t, nil)
	req := n.request(t, n.address, `
- {objectName: envelope, secretPath: KV/data/app}
- {objectName: data, secretPath: KV/data/app, responseFormat: data}
- {objectName: raw, secretPath: KV/data/app, responseFormat: raw}
`)
	one, two := fetchOK(t, p, req), fetchOK(t, p, req)
	if got := files(one)["data"]; got != `{"a":"b","n":7}` {
		t.Errorf("data = %s", got)
	}
	var envelope map[string]any
	if err := json.Unmarshal([]byte(files(one)["envelope"]), &envelope); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"request_id", "lease_id", "lease_duration", "renewable", "data", "warnings"} {
		if _, ok := envelope[key]; !ok {
			t.Errorf("the envelope has no %s", key)
		}
	}
	if envelope["request_id"] != "" {
		t.Errorf("request_id = %v, want it blank", envelope["request_id"])
	}
	for name, same := range map[string]bool{"envelope": true, "data": true, "raw": false} {
		if (versions(one)[name] == versions(two)[name]) != same || (files(one)[name] == files(two)[name]) != same {
			t.Errorf("%s: the same in two fetches is %v, want %v", name, !same, same)
		}
	}
}

func TestFetchOldVersion(t *testing.T) {
	t.Parallel()
	n := newTenant(t, readAll)
	n.put(t, "app", map[string]any{"a": "one"})
	n.put(t, "app", map[string]any{"a": "two"})
	p := start(t, nil)
	resp := fetchOK(t, p, n.request(t, n.address, `
- {objectName: now, secretPath: KV/data/app, secretKey: a}
- {objectName: before, secretPath: "KV/data/app?version=1", secretKey: a}
`))
	if diff := cmp.Diff(map[string]string{"now": "two", "before": "one"}, files(resp)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

// TestVersions: the same in another process, and another if and only if the
// content or the configuration changes.
func TestVersions(t *testing.T) {
	t.Parallel()
	n := newTenant(t, readAll)
	n.put(t, "app", map[string]any{"a": "one"})
	objects := `
- {objectName: key, secretPath: KV/data/app, secretKey: a}
- {objectName: whole, secretPath: KV/data/app}
`
	one := versions(fetchOK(t, start(t, nil), n.request(t, n.address, objects)))
	again := versions(fetchOK(t, start(t, nil), n.request(t, n.address, objects)))
	if diff := cmp.Diff(one, again); diff != "" {
		t.Errorf("another process (-want +got):\n%s", diff)
	}
	if !strings.HasPrefix(one["key"], "1-") {
		t.Errorf("version = %q, want the store's own, 1, before the -", one["key"])
	}
	mode := versions(fetchOK(t, start(t, nil), n.request(t, n.address,
		strings.ReplaceAll(objects, "secretKey: a", "secretKey: a, filePermission: 0600"))))
	if mode["key"] == one["key"] || mode["whole"] != one["whole"] {
		t.Error("a mode's change must change this object's version")
	}
	n.put(t, "app", map[string]any{"a": "two"})
	two := versions(fetchOK(t, start(t, nil), n.request(t, n.address, objects)))
	if two["key"] == one["key"] || two["whole"] == one["whole"] {
		t.Error("a new content must change the versions")
	}
}

// TestOneLoginForManyPods: 20 pods of one service account with five objects.
func TestOneLoginForManyPods(t *testing.T) {
	t.Parallel()
	n := newTenant(t, readAll)
	objects := ""
	for i := range 5 {
		n.put(t, fmt.Sprintf("o%d", i), map[string]any{"k": "v"})
		objects += fmt.Sprintf("- {objectName: o%d, secretPath: KV/data/o%d, secretKey: k}\n", i, i)
	}
	rec := record(t, n.bao)
	p := start(t, nil)
	var pods sync.WaitGroup
	for i := range 20 {
		req := n.request(t, rec.URL, objects)
		req.VolumeID, req.Pod.UID = fmt.Sprintf("volume-%d", i), fmt.Sprintf("uid-%d", i)
		pods.Go(func() {
			if _, err := p.Fetch(t.Context(), req); err != nil {
				t.Error(err)
			}
		})
	}
	pods.Wait()
	if got := rec.count("POST auth/" + n.name + "/login"); got != 1 {
		t.Errorf("%d logins, want 1", got)
	}
	if got := rec.count("GET " + n.name + "/data/o3"); got != 20 {
		t.Errorf("%d reads of an object, want 20", got)
	}
	for i := range 20 {
		if i == 19 && !n.alive(t, rec.seen()[0]) {
			t.Error("the login ended before the last volume was gone")
		}
		if err := p.Release(t.Context(), fmt.Sprintf("volume-%d", i)); err != nil {
			t.Error(err)
		}
	}
	if n.alive(t, rec.seen()[0]) {
		t.Error("the login is alive after the last volume is gone")
	}
}

// TestSessionsAreNotShared: each part of an identity makes another login.
func TestSessionsAreNotShared(t *testing.T) {
	t.Parallel()
	n := newTenant(t, readAll)
	n.put(t, "app", map[string]any{"k": "v"})
	n.role(t, "app", map[string]any{"bound_subject": "", "bound_audiences": []string{"vault", "other"}})
	n.role(t, "app2", map[string]any{})
	object := `- {objectName: k, secretPath: KV/data/app, secretKey: k}`
	tests := map[string]struct {
		change func(*sdk.Request)
		logins int
	}{
		"another pod":         {func(r *sdk.Request) { r.Pod.UID = "uid-2" }, 1},
		"another role":        {func(r *sdk.Request) { r.Parameters["roleName"] = "app2" }, 2},
		"another server name": {func(r *sdk.Request) { r.Parameters["vaultTLSServerName"] = "x" }, 2},
		"another account": {func(r *sdk.Request) {
			r.Pod.ServiceAccount.Name = "other"
			r.Tokens[0].Token = sdk.NewSecretString(n.jwt(t, map[string]any{"sub": "system:serviceaccount:shop:other"}))
		}, 2},
		"another namespace": {func(r *sdk.Request) {
			r.Pod.Namespace = "other"
			r.Tokens[0].Token = sdk.NewSecretString(n.jwt(t, map[string]any{"sub": "system:serviceaccount:other:cart"}))
		}, 2},
		"another audience": {func(r *sdk.Request) {
			r.Parameters["audience"] = "other"
			r.Tokens[0].Audience = "other"
			r.Tokens[0].Token = sdk.NewSecretString(n.jwt(t, map[string]any{"aud": "other"}))
		}, 2},
		"per pod": {func(r *sdk.Request) { r.Parameters["vaultSessionPerPod"] = "true" }, 2},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rec := record(t, n.bao)
			p := start(t, nil)
			fetchOK(t, p, n.request(t, rec.URL, object))
			other := n.request(t, rec.URL, object)
			other.VolumeID = "volume-2"
			tt.change(other)
			fetchOK(t, p, other)
			if got := rec.count("POST auth/" + n.name + "/login"); got != tt.logins {
				t.Errorf("%d logins, want %d", got, tt.logins)
			}
		})
	}
}

// TestRevokedLogin: the store has forgotten the login: one more, one retry.
func TestRevokedLogin(t *testing.T) {
	t.Parallel()
	n := newTenant(t, readAll)
	n.put(t, "app", map[string]any{"k": "v"})
	rec := record(t, n.bao)
	p := start(t, nil)
	req := n.request(t, rec.URL, `- {objectName: k, secretPath: KV/data/app, secretKey: k}`)
	fetchOK(t, p, req)
	n.call(t, "POST", "auth/token/revoke", map[string]string{"token": rec.seen()[0]})
	fetchOK(t, p, req)
	fetchOK(t, p, req)
	if got := rec.count("POST auth/" + n.name + "/login"); got != 2 {
		t.Errorf("%d logins, want 2", got)
	}
	// And where the login is refused by then, that is what is reported.
	n.call(t, "POST", "auth/token/revoke", map[string]string{"token": rec.seen()[1]})
	n.role(t, "app", map[string]any{"bound_subject": "nobody"})
	_, err := p.Fetch(t.Context(), req)
	wantError(t, err, sdk.ReasonLoginFailed, "", "failed to login")
}

// TestDeniedReadKeepsSession: a policy that denies one class something does not
// end the login of the others, and leaves no login behind.
func TestDeniedReadKeepsSession(t *testing.T) {
	t.Parallel()
	n := newTenant(t, `path "KV/data/app" { capabilities = ["read"] }`)
	n.put(t, "app", map[string]any{"k": "v"})
	n.put(t, "denied", map[string]any{"k": "v"})
	rec := record(t, n.bao)
	p := start(t, nil)
	good := n.request(t, rec.URL, `- {objectName: k, secretPath: KV/data/app, secretKey: k}`)
	fetchOK(t, p, good)
	bad := n.request(t, rec.URL, `- {objectName: k, secretPath: KV/data/denied, secretKey: k}`)
	bad.VolumeID = "volume-2"
	_, err := p.Fetch(t.Context(), bad)
	wantError(t, err, sdk.ReasonAccessDenied, "k", `must allow "read" on "`+n.name+`/data/denied"`)
	fetchOK(t, p, good)
	seen := rec.seen()
	if len(seen) != 2 {
		t.Fatalf("%d logins were used, want the first and one to try", len(seen))
	}
	if !n.alive(t, seen[0]) {
		t.Error("the first login has ended")
	}
	eventually(t, "the second login is revoked", func() bool { return !n.alive(t, seen[1]) })
}

func TestShutdownRevokes(t *testing.T) {
	t.Parallel()
	n := newTenant(t, readAll)
	n.put(t, "app", map[string]any{"k": "v"})
	rec := record(t, n.bao)
	p := start(t, nil)
	fetchOK(t, p, n.request(t, rec.URL, `- {objectName: k, secretPath: KV/data/app, secretKey: k}`))
	if err := p.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n.alive(t, rec.seen()[0]) {
		t.Error("the login is alive after Shutdown")
	}
}

// TestKubernetesAuth is the walk-through of the upstream documentation: a role
// of the kubernetes auth method, with reviews by the API server.
func TestKubernetesAuth(t *testing.T) {
	t.Parallel()
	n := newTenant(t, readAll)
	n.put(t, "app", map[string]any{"username": "admin", "password": "p4ssw0rd"})
	reviews := make(chan string, 10)
	api := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review struct {
			Spec struct {
				Token string `json:"token"`
			} `json:"spec"`
		}
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			t.Error(err)
		}
		reviews <- review.Spec.Token
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_, _ = w.Write([]byte(`{"apiVersion":"authentication.k8s.io/v1","kind":"TokenReview","status":{"authenticated":true,"audiences":["vault"],
			"user":{"username":"system:serviceaccount:shop:cart","uid":"u1","groups":["system:serviceaccounts"]}}}`))
	}))
	t.Cleanup(api.Close)
	mount := n.name + "k"
	n.call(t, "POST", "sys/auth/"+mount, map[string]any{"type": "kubernetes"})
	n.call(t, "POST", "auth/"+mount+"/config", map[string]any{
		"kubernetes_host": api.URL, "disable_local_ca_jwt": true, "token_reviewer_jwt": n.jwt(t, nil),
		"kubernetes_ca_cert": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: api.Certificate().Raw})),
	})
	n.call(t, "POST", "auth/"+mount+"/role/mycsirole", map[string]any{
		"bound_service_account_names": "cart", "bound_service_account_namespaces": "shop", "policies": n.name, "ttl": "20m",
	})
	claims := map[string]any{
		"kubernetes.io": map[string]any{
			"namespace": "shop", "pod": map[string]any{"name": "cart-1", "uid": "uid-1"},
			"serviceaccount": map[string]any{"name": "cart", "uid": "u1"},
		},
	}
	req := n.request(t, n.address, `
- objectName: "myUsername"
  secretPath: "KV/data/app"
  secretKey: "username"
- objectName: "myPassword"
  secretPath: "KV/data/app"
  secretKey: "password"
`)
	delete(req.Parameters, "vaultAuthMountPath")
	req.Parameters["vaultKubernetesMountPath"], req.Parameters["roleName"] = mount, "mycsirole"
	req.Tokens[0].Token = sdk.NewSecretString(n.jwt(t, claims))
	resp := fetchOK(t, start(t, nil), req)
	if diff := cmp.Diff(map[string]string{"myUsername": "admin", "myPassword": "p4ssw0rd"}, files(resp)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	if got := <-reviews; got != req.Tokens[0].Token.Reveal() {
		t.Error("the API server was not asked about the pod's token")
	}
	req.Pod.ServiceAccount.Name = "other"
	req.VolumeID = "volume-2"
	req.Tokens[0].Token = sdk.NewSecretString(n.jwt(t, map[string]any{"sub": "system:serviceaccount:shop:other"}))
	_, err := start(t, nil).Fetch(t.Context(), req)
	wantError(t, err, sdk.ReasonLoginFailed, "", `role "mycsirole" as service account shop/other`)
}

// TestOpenBaoNames: the other spelling of parameters.
func TestOpenBaoNames(t *testing.T) {
	t.Parallel()
	n := newTenant(t, readAll)
	n.put(t, "app", map[string]any{"k": "v"})
	req := n.request(t, n.address, `- {objectName: k, secretPath: KV/data/app, secretKey: k}`)
	for _, name := range []string{"Address", "AuthMountPath"} {
		req.Parameters["bao"+name] = req.Parameters["vault"+name]
		delete(req.Parameters, "vault"+name)
	}
	fetchOK(t, start(t, nil), req)
	if names := Definition().Names; !slices.Contains(names, "openbao") || !slices.Contains(names, "vault") {
		t.Errorf("names = %v", names)
	}
}

// TestEnvironmentToken: the provider's own token is never used for a pod.
func TestEnvironmentToken(t *testing.T) {
	t.Setenv("VAULT_TOKEN", rootToken)
	t.Setenv("VAULT_WRAP_TTL", "60s")
	n := newTenant(t, `path "KV/data/other" { capabilities = ["read"] }`)
	n.put(t, "app", map[string]any{"k": "v"})
	n.put(t, "other", map[string]any{"k": "v"})
	rec := record(t, n.bao)
	p := start(t, nil)
	_, err := p.Fetch(t.Context(), n.request(t, rec.URL, `- {objectName: k, secretPath: KV/data/app, secretKey: k}`))
	wantError(t, err, sdk.ReasonAccessDenied, "k", "")
	fetchOK(t, p, n.request(t, rec.URL, `- {objectName: k, secretPath: KV/data/other, secretKey: k}`))
	if contains(rec.seen(), rootToken) {
		t.Error("VAULT_TOKEN was sent")
	}
}

// TestRetries: a store that fails for a moment costs no pod start.
func TestRetries(t *testing.T) {
	t.Parallel()
	n := newTenant(t, readAll)
	n.put(t, "app", map[string]any{"k": "v"})
	rec := record(t, n.bao)
	var mu sync.Mutex
	failures := map[string]int{}
	rec.failing(func(w http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		failures[r.URL.Path]++
		if failures[r.URL.Path] > 1 {
			return false
		}
		w.WriteHeader(http.StatusBadGateway)
		return true
	})
	start := start(t, nil)
	begun := time.Now()
	fetchOK(t, start, n.request(t, rec.URL, `- {objectName: k, secretPath: KV/data/app, secretKey: k}`))
	if took := time.Since(begun); took > 2*time.Second {
		t.Errorf("took %v", took)
	}
}

// TestSessionIsRenewed: while a volume is mounted its login is prolonged,
// without a fetch.
func TestSessionIsRenewed(t *testing.T) {
	t.Parallel()
	n := newTenant(t, readAll)
	n.put(t, "app", map[string]any{"k": "v"})
	n.role(t, "app", map[string]any{"token_ttl": "6s"}) // with two to spare for a renewal
	rec := record(t, n.bao)
	p := start(t, nil)
	req := n.request(t, rec.URL, `- {objectName: k, secretPath: KV/data/app, secretKey: k}`)
	fetchOK(t, p, req)
	eventually(t, "the login is renewed twice", func() bool { return rec.count("POST auth/token/renew-self") >= 2 })
	fetchOK(t, p, req)
	if got := rec.count("POST auth/" + n.name + "/login"); got != 1 {
		t.Errorf("%d logins, want 1", got)
	}
}

// TestFirstErrorIsReported: not the fastest one, and not that it was cancelled.
func TestFirstErrorIsReported(t *testing.T) {
	t.Parallel()
	asked, cancelled := make(chan struct{}), make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/v1/auth/kubernetes/login", answer(200, `{"auth":{"client_token":"s.1","accessor":"a","lease_duration":600}}`))
	mux.HandleFunc("/v1/kv/slow", func(w http.ResponseWriter, r *http.Request) {
		<-cancelled
		answer(404, `{"errors":[]}`)(w, r)
	})
	mux.HandleFunc("/v1/kv/fast", func(w http.ResponseWriter, r *http.Request) {
		<-asked // what fails sooner keeps what comes after it from being asked for
		answer(403, `{"errors":["permission denied"]}`)(w, r)
	})
	mux.HandleFunc("/v1/kv/hanging", func(_ http.ResponseWriter, r *http.Request) {
		close(asked)
		<-r.Context().Done()
		close(cancelled)
	})
	fake := httptest.NewServer(mux)
	t.Cleanup(fake.Close)
	_, err := start(t, nil).Fetch(t.Context(), opaqueRequest(fake.URL, `
- {objectName: slow, secretPath: kv/slow}
- {objectName: fast, secretPath: kv/fast}
- {objectName: hanging, secretPath: kv/hanging}
`))
	wantError(t, err, sdk.ReasonObjectNotFound, "slow", "there is nothing at this path")
}

// TestReadsComeFirst: nothing is issued for a fetch that cannot succeed.
func TestReadsComeFirst(t *testing.T) {
	t.Parallel()
	n := newTenant(t, issue)
	mount := n.pki(t, false)
	rec := record(t, n.bao)
	_, err := start(t, nil).Fetch(t.Context(), n.request(t, rec.URL, `
- {objectName: crt, secretPath: KVpki/issue/web, method: PUT, secretArgs: {common_name: a.example}}
- {objectName: k, secretPath: KV/data/nowhere}
`))
	wantError(t, err, sdk.ReasonObjectNotFound, "k", "")
	if got := rec.count("PUT " + mount + "/issue/web"); got != 0 {
		t.Errorf("%d certificates issued", got)
	}
}
