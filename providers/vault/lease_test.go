package vault

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-dev/postern/providers/sdk"
)

// pki mounts an authority with the role "web" beside the tenant's kv mount.
func (n *tenant) pki(t *testing.T, lease bool) string {
	t.Helper()
	mount := n.name + "pki"
	n.call(t, "POST", "sys/mounts/"+mount, map[string]any{"type": "pki"})
	n.call(t, "POST", mount+"/root/generate/internal", map[string]any{"common_name": "test", "key_type": "ec"})
	n.call(t, "POST", mount+"/roles/web", map[string]any{
		"allow_any_name": true, "generate_lease": lease, "key_type": "ec", "ttl": "10m", "no_store": false,
	})
	return mount
}

const issue = `path "KVpki/issue/web" { capabilities = ["update"] }
path "KV/data/*" { capabilities = ["read"] }
`

// TestCertificates: issued once for a volume and each set of arguments, and
// never for two volumes.
func TestCertificates(t *testing.T) {
	t.Parallel()
	n := newTenant(t, issue)
	mount := n.pki(t, false)
	rec := record(t, n.bao)
	p := start(t, nil)
	objects := `
- {objectName: a.crt, secretPath: KVpki/issue/web, method: PUT, secretArgs: {common_name: a.example, ttl: 5m}, secretKey: certificate}
- {objectName: a.key, secretPath: KVpki/issue/web, method: PUT, secretArgs: {ttl: 5m, common_name: a.example}, secretKey: private_key}
- {objectName: b.crt, secretPath: KVpki/issue/web, method: PUT, secretArgs: {common_name: b.example}, secretKey: certificate}
`
	req := n.request(t, rec.URL, objects)
	one := fetchOK(t, p, req)
	if got := rec.count("PUT " + mount + "/issue/web"); got != 2 {
		t.Errorf("%d certificates for one volume, want one for each set of arguments", got)
	}
	if files(one)["a.crt"] == files(one)["b.crt"] {
		t.Error("two sets of arguments share a certificate")
	}
	if one.Sharing != sdk.SharingPod || len(one.Leases) != 3 || one.RefreshAfter <= 0 || one.RefreshAfter > 200*time.Second {
		t.Errorf("sharing %v, leases %v, refresh after %v; want the pod's, 3, and two thirds of 5m", one.Sharing, one.Leases, one.RefreshAfter)
	}
	again := fetchOK(t, p, req)
	if files(again)["a.crt"] != files(one)["a.crt"] || versions(again)["a.crt"] != versions(one)["a.crt"] {
		t.Error("the second fetch for the volume gives another certificate")
	}
	other := n.request(t, rec.URL, objects)
	other.VolumeID = "volume-2"
	if files(fetchOK(t, p, other))["a.crt"] == files(one)["a.crt"] {
		t.Error("two volumes share a certificate")
	}
}

// TestLeases: a lease is revoked with its volume, where the policy allows it,
// though its login lives on.
func TestLeases(t *testing.T) {
	t.Parallel()
	n := newTenant(t, issue+`path "sys/leases/revoke" { capabilities = ["update"] }`)
	mount := n.pki(t, true)
	n.put(t, "app", map[string]any{"k": "v"})
	p := start(t, nil)
	static := n.request(t, n.address, `- {objectName: k, secretPath: KV/data/app, secretKey: k}`)
	static.VolumeID = "volume-of-another-pod"
	fetchOK(t, p, static)
	resp := fetchOK(t, p, n.request(t, n.address,
		`- {objectName: crt, secretPath: KVpki/issue/web, method: POST, secretArgs: {common_name: a.example}}`))
	var envelope struct {
		LeaseID string `json:"lease_id"`
	}
	if err := json.Unmarshal([]byte(files(resp)["crt"]), &envelope); err != nil || envelope.LeaseID == "" {
		t.Fatalf("no lease id (%v)", err)
	}
	lookup := func() int {
		status, _ := n.try(t, "PUT", "sys/leases/lookup", map[string]string{"lease_id": envelope.LeaseID})
		return status
	}
	if got := lookup(); got != http.StatusOK {
		t.Fatalf("status %d of the lease, want 200", got)
	}
	for range 2 { // it is idempotent
		if err := p.Release(t.Context(), "volume-1"); err != nil {
			t.Fatal(err)
		}
	}
	if got := lookup(); got != http.StatusBadRequest {
		t.Errorf("status %d of the lease after Release, want 400, of %s", got, mount)
	}
	fetchOK(t, p, static)
}

// TestRestart: the next process goes on with what a real store says is alive.
func TestRestart(t *testing.T) {
	t.Parallel()
	for name, lease := range map[string]bool{"with leases": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newTenant(t, issue+`path "sys/leases/revoke" { capabilities = ["update"] }`)
			mount := n.pki(t, lease)
			rec := record(t, n.bao)
			req := n.request(t, rec.URL,
				`- {objectName: serial, secretPath: KVpki/issue/web, method: POST, secretArgs: {common_name: a.example}, secretKey: serial_number}`)
			first := fetchOK(t, start(t, nil), req)
			next := start(t, nil)
			req.State, req.CurrentObjects = first.State, first.Objects
			for range 2 {
				if again := fetchOK(t, next, req); !again.NotModified || again.State.IsZero() || len(again.Leases) != 1 {
					t.Errorf("not modified is %v, with %d leases; want the volume confirmed", again.NotModified, len(again.Leases))
				}
			}
			if got := rec.count("POST " + mount + "/issue/web"); got != 1 {
				t.Errorf("%d certificates, want 1", got)
			}
			if err := next.Release(t.Context(), "volume-1"); err != nil {
				t.Fatal(err)
			}
			certificate := n.call(t, "GET", mount+"/cert/"+files(first)["serial"], nil)
			if revoked := certificate["data"].(map[string]any)["revocation_time"] != float64(0); revoked != lease {
				t.Errorf("revoked is %v, want %v: with its volume, if it has a lease", revoked, lease)
			}
		})
	}
}

// TestCallerLeft: nobody's deadline has passed.
func TestCallerLeft(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	fake := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // or its context does not end with the connection
		cancel()
		<-r.Context().Done()
	}))
	t.Cleanup(fake.Close)
	_, err := start(t, nil).Fetch(ctx, opaqueRequest(fake.URL, databaseObjects))
	if _, explained := errors.AsType[*sdk.Error](err); explained || !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v (%T), want the context's: the sdk says what that is", err, err)
	}
}

// leasing is a server that issues credentials with leases.
type leasing struct {
	*httptest.Server
	mu      sync.Mutex
	issued  int
	revoked []string
	ended   int // logins revoked
}

func newLeasing(t *testing.T) *leasing {
	t.Helper()
	l := &leasing{}
	mux := http.NewServeMux()
	mux.HandleFunc("/v1/auth/kubernetes/login", answer(200,
		`{"auth":{"client_token":"s.login","accessor":"a","lease_duration":3600,"renewable":true}}`))
	mux.HandleFunc("/v1/auth/token/revoke-self", func(w http.ResponseWriter, _ *http.Request) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.ended++
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("/v1/database/creds/app", func(w http.ResponseWriter, _ *http.Request) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.issued++
		_ = json.NewEncoder(w).Encode(map[string]any{
			"lease_id": "database/creds/app/" + string(rune('a'+l.issued)), "lease_duration": 600, "renewable": true,
			"data": map[string]any{"username": "u", "password": "p" + string(rune('a'+l.issued))},
		})
	})
	mux.HandleFunc("/v1/sys/leases/revoke", func(w http.ResponseWriter, r *http.Request) {
		var body struct {
			LeaseID string `json:"lease_id"`
		}
		_ = json.NewDecoder(r.Body).Decode(&body)
		l.mu.Lock()
		defer l.mu.Unlock()
		l.revoked = append(l.revoked, body.LeaseID)
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("/v1/kv/app", answer(200, `{"data":{"k":"v"}}`))
	l.Server = httptest.NewServer(mux)
	t.Cleanup(l.Close)
	return l
}

func (l *leasing) state() (issued int, revoked []string, ended int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.issued, append([]string(nil), l.revoked...), l.ended
}

const databaseObjects = `
- {objectName: user, secretPath: database/creds/app, secretKey: username}
- {objectName: password, secretPath: database/creds/app, secretKey: password}
`

func TestDynamicCredential(t *testing.T) {
	t.Parallel()
	store := newLeasing(t)
	p := start(t, nil)
	one := fetchOK(t, p, opaqueRequest(store.URL, databaseObjects))
	two := fetchOK(t, p, opaqueRequest(store.URL, databaseObjects))
	if files(one)["password"] != files(two)["password"] || versions(one)["password"] != versions(two)["password"] {
		t.Error("the second fetch for the volume gives another credential")
	}
	if one.Sharing != sdk.SharingPod || len(one.Leases) != 2 || !one.Leases[0].Renewable ||
		one.RefreshAfter <= time.Minute || one.RefreshAfter > 400*time.Second {
		t.Errorf("sharing %v, leases %v, refresh after %v", one.Sharing, one.Leases, one.RefreshAfter)
	}
	// A login that a running pod's credential hangs on survives a restart.
	if err := p.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if issued, revoked, ended := store.state(); issued != 1 || len(revoked) != 0 || ended != 0 {
		t.Errorf("%d issued, %v revoked, %d logins ended; want 1, none, 0", issued, revoked, ended)
	}
}

// TestRefreshAfter: a process that ends at any moment leaves time for the next
// one to go on.
func TestRefreshAfter(t *testing.T) {
	t.Parallel()
	store := newLeasing(t)
	for name, objects := range map[string]string{
		"credential":           databaseObjects,
		"and another secret":   databaseObjects + "- {objectName: k, secretPath: kv/app, secretKey: k}",
		"only another secret":  "- {objectName: k, secretPath: kv/app, secretKey: k}",
		"and the same of both": databaseObjects + "- {objectName: again, secretPath: database/creds/app, secretKey: password}",
	} {
		req := opaqueRequest(store.URL, objects)
		req.VolumeID = name
		resp := fetchOK(t, start(t, nil), req)
		want := 150 * time.Second // a quarter of the lease, which is shorter than the login
		if name == "only another secret" {
			want = 0
		}
		if resp.RefreshAfter != want {
			t.Errorf("%s: refresh after %v, want %v", name, resp.RefreshAfter, want)
		}
	}
}

// TestFailedFetchRevokes: what was issued before a fetch failed is given back.
func TestFailedFetchRevokes(t *testing.T) {
	t.Parallel()
	store := newLeasing(t)
	p := start(t, nil)
	_, err := p.Fetch(t.Context(), opaqueRequest(store.URL, databaseObjects+"- {objectName: k, secretPath: kv/app, secretKey: nothing}"))
	wantError(t, err, sdk.ReasonObjectNotFound, "k", `key "nothing" does not exist`)
	if issued, revoked, _ := store.state(); issued != 1 || len(revoked) != 1 || revoked[0] != "database/creds/app/b" {
		t.Errorf("%d issued, revoked %v; want the one", issued, revoked)
	}
	if err := p.Release(t.Context(), "volume-1"); err != nil {
		t.Fatal(err)
	}
	if _, revoked, ended := store.state(); len(revoked) != 1 || ended != 1 {
		t.Errorf("%d leases revoked, %d logins ended, want 1 and 1", len(revoked), ended)
	}
}

// TestRemovedObjectKeepsLease: pods may be using the credential until the volume
// is gone.
func TestRemovedObjectKeepsLease(t *testing.T) {
	t.Parallel()
	store := newLeasing(t)
	p := start(t, nil)
	fetchOK(t, p, opaqueRequest(store.URL, databaseObjects))
	fetchOK(t, p, opaqueRequest(store.URL, "- {objectName: k, secretPath: kv/app, secretKey: k}"))
	if _, revoked, _ := store.state(); len(revoked) != 0 {
		t.Errorf("revoked %v before Release", revoked)
	}
	if err := p.Release(t.Context(), "volume-1"); err != nil {
		t.Fatal(err)
	}
	if _, revoked, _ := store.state(); len(revoked) != 1 {
		t.Errorf("revoked %v, want the lease of the removed object", revoked)
	}
}

// TestUnavailableAfterIssue: callers send a fetch again at once when the store
// is unavailable, which must not issue again.
func TestUnavailableAfterIssue(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	mux.HandleFunc("/v1/auth/kubernetes/login", answer(200, `{"auth":{"client_token":"s.login","accessor":"a","lease_duration":3600}}`))
	mux.HandleFunc("/v1/pki/issue/web", answer(500, `{"errors":["disk full"]}`))
	fake := httptest.NewServer(mux)
	t.Cleanup(fake.Close)
	_, err := start(t, nil).Fetch(t.Context(), opaqueRequest(fake.URL, "- {objectName: c, secretPath: pki/issue/web, method: POST}"))
	wantError(t, err, sdk.ReasonInternal, "c", "disk full")
	if !strings.Contains(err.Error(), "error requesting secret") {
		t.Error(err)
	}
}
