package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/postern-dev/postern/test/kubelet"
	"github.com/postern-dev/postern/test/postgres"
)

// leaseRules are what pods that use leases are allowed: to end them, and to
// prolong the login that they were issued with.
const leaseRules = `
path "sys/leases/revoke" { capabilities = ["update"] }
path "auth/token/renew-accessor" { capabilities = ["update"] }
`

// database is a PostgreSQL whose users OpenBao makes, at <namespace>-db.
type database struct {
	*postgres.Server
	namespace string
}

// newDatabase starts one for a tenant's pods. A user is valid for ttl, and with
// renewals for max.
func newDatabase(t *testing.T, namespace, ttl, maximum string) *database {
	t.Helper()
	ctx, bao := t.Context(), servers.Bao
	dir, err := os.MkdirTemp("", "postern-pg-")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	must(t, os.Chmod(dir, 0o755))
	server, err := postgres.Start(ctx, dir)
	must(t, err)
	t.Cleanup(server.Stop)
	_, err = server.Query(ctx, `CREATE ROLE openbao LOGIN CREATEROLE PASSWORD 'openbao'`)
	must(t, err)
	d := &database{Server: server, namespace: namespace}
	must(t, bao.Write(ctx, "sys/mounts/"+d.mount(), map[string]any{"type": "database"}))
	must(t, bao.Write(ctx, d.mount()+"/config/pg", map[string]any{
		"plugin_name": "postgresql-database-plugin", "allowed_roles": "*", "connection_url": server.URL("openbao", "openbao"),
	}))
	must(t, bao.Write(ctx, d.mount()+"/roles/app", map[string]any{
		"db_name": "pg", "default_ttl": ttl, "max_ttl": maximum,
		"creation_statements": `CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}'`,
	}))
	must(t, bao.PutPolicy(ctx, namespace, fmt.Sprintf(`path "%s/creds/app" { capabilities = ["read"] }`, d.mount())+leaseRules))
	return d
}

func (d *database) mount() string { return d.namespace + "-db" }

// class writes one that refreshes each second.
func (d *database) class(t *testing.T, parameters map[string]any) {
	t.Helper()
	merged := map[string]any{"rotationPollInterval": "1s", "objects": fmt.Sprintf(`
- {objectName: user, secretPath: %[1]s/creds/app, secretKey: username}
- {objectName: password, secretPath: %[1]s/creds/app, secretKey: password}
`, d.mount())}
	maps.Copy(merged, parameters)
	class(t, d.namespace, "app", vaultSpec(d.namespace, merged))
}

// wantWorking checks that a volume's credential lets a pod in, and returns it.
func (d *database) wantWorking(t *testing.T, n *node, v kubelet.Volume) credential {
	t.Helper()
	c := n.credential(t, v)
	if err := d.Login(t.Context(), c.user, c.password); err != nil {
		t.Errorf("the database refuses the volume's credential: %v", err)
	}
	return c
}

// wantGone waits until the database has no user any more that it had been asked
// for.
func (d *database) wantGone(t *testing.T, users ...string) {
	t.Helper()
	for _, user := range users {
		eventually(t, "the database's user is gone", func() bool {
			rows, err := d.Query(t.Context(), fmt.Sprintf(`SELECT 1 FROM pg_roles WHERE rolname = '%s'`, user))
			must(t, err)
			return rows == ""
		})
	}
}

// credential is what a volume holds, all of it of one revision.
type credential struct {
	user, password string
	// revision tells one from the next.
	revision uint64
}

func (n *node) credential(t *testing.T, v kubelet.Volume) credential {
	t.Helper()
	root, err := os.OpenRoot(filepath.Join(n.Kubelet.Target(v), "..data"))
	must(t, err)
	defer func() { must(t, root.Close()) }()
	var c credential
	for name, to := range map[string]*string{"user": &c.user, "password": &c.password} {
		contents, err := root.ReadFile(name)
		must(t, err)
		*to = string(contents)
	}
	info, err := root.Stat(".")
	must(t, err)
	c.revision = info.Sys().(*syscall.Stat_t).Ino
	return c
}

// leaseCalls is how often the tenant's service account was issued something at
// path, renewed a lease and revoked one.
func leaseCalls(t *testing.T, namespace, path string) (issued, renewed, revoked int) {
	t.Helper()
	calls, err := servers.Bao.Calls()
	must(t, err)
	for _, call := range calls {
		switch {
		case call.Caller != "kubernetes-"+namespace+"-web":
		case call.Path == path:
			issued++
		case call.Path == "sys/leases/renew":
			renewed++
		case call.Path == "sys/leases/revoke":
			revoked++
		}
	}
	return issued, renewed, revoked
}

// renewals waits for so many of them in the audit log.
func (d *database) renewals(t *testing.T, atLeast int) {
	t.Helper()
	eventually(t, fmt.Sprintf("there are %d renewals", atLeast), func() bool {
		_, renewed, _ := leaseCalls(t, d.namespace, "")
		return renewed >= atLeast
	})
}

func (d *database) wantIssued(t *testing.T, want int) {
	t.Helper()
	if issued, _, _ := leaseCalls(t, d.namespace, d.mount()+"/creds/app"); issued != want {
		t.Errorf("OpenBao made %d users, want %d", issued, want)
	}
}

// A credential is issued for a volume once, however often that is refreshed. It
// is renewed, and ends with the volume.
func TestLease_Database(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	namespace := tenant(t, nil)
	d := newDatabase(t, namespace, "30s", "1h")
	d.class(t, nil)
	v, other := pod(t, namespace, "web-0", "app"), pod(t, namespace, "web-1", "app")
	must(t, n.Kubelet.Publish(t.Context(), v))
	n.publish(t, other)
	first := d.wantWorking(t, n, v)
	d.renewals(t, 4) // two of each
	if now := d.wantWorking(t, n, v); now != first {
		t.Error("refreshes without a change have written the volume")
	}
	d.wantIssued(t, 2)
	n.unpublish(t, v)
	d.wantGone(t, first.user)
	if d.wantWorking(t, n, other).user == first.user {
		t.Error("two volumes share a credential")
	}
}

// At its maximum a credential is replaced, once. Who reads the volume sees the
// old one or the new one, whole, and both work.
func TestLease_Maximum(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	namespace := tenant(t, nil)
	d := newDatabase(t, namespace, "30s", "40s")
	d.class(t, nil)
	v := pod(t, namespace, "web-0", "app")
	n.publish(t, v)
	first := d.wantWorking(t, n, v)
	seen := map[credential]bool{first: true}
	eventually(t, "the credential is replaced", func() bool {
		seen[n.credential(t, v)] = true
		return len(seen) > 1
	})
	if second := d.wantWorking(t, n, v); second.user == first.user || len(seen) != 2 {
		t.Errorf("the volume has had %d revisions, want 2 with different users", len(seen))
	}
	d.wantIssued(t, 2)
	d.wantGone(t, first.user) // at its end, not before
}

// While the store cannot be reached a credential is neither given up nor
// written again, and is renewed as soon as the store is back.
func TestLease_Outage(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	namespace := tenant(t, nil)
	d := newDatabase(t, namespace, "40s", "1h")
	store := newLine(t)
	d.class(t, map[string]any{"vaultAddress": store.address})
	v := pod(t, namespace, "web-0", "app")
	n.publish(t, v)
	first := d.wantWorking(t, n, v)
	store.set(true)
	eventually(t, "a renewal fails", func() bool {
		return strings.Contains(n.Logs(), "cannot renew a lease, will try again")
	})
	store.set(false)
	d.renewals(t, 1)
	if now := d.wantWorking(t, n, v); now != first {
		t.Error("the outage has changed the volume")
	}
	d.wantIssued(t, 1)
}

// A store that has forgotten a credential is noticed at its next renewal.
func TestLease_Forgotten(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	namespace := tenant(t, nil)
	d := newDatabase(t, namespace, "20s", "1h")
	d.class(t, nil)
	v := pod(t, namespace, "web-0", "app")
	n.publish(t, v)
	first := d.wantWorking(t, n, v)
	must(t, servers.Bao.Write(t.Context(), "sys/leases/revoke-prefix/"+d.mount(), nil))
	d.wantGone(t, first.user)
	eventually(t, "the volume has another credential", func() bool { return n.credential(t, v) != first })
	d.wantWorking(t, n, v)
	d.wantIssued(t, 2)
}

// The provider is killed, or replaced by another version. The credential is the
// volume's as before: not issued again, renewed, and revoked at the end.
func TestLease_ProviderRestarts(t *testing.T) {
	t.Parallel()
	for name, restart := range map[string]func(ctx context.Context, n *node) error{
		"killed": func(ctx context.Context, n *node) error {
			n.Providers["vault"].Kill()
			return n.Providers["vault"].Restart(ctx)
		},
		"replaced": func(ctx context.Context, n *node) error { return n.Providers["vault"].Replace(ctx, "") },
		"with the gateway": func(ctx context.Context, n *node) error {
			n.Gateway.Kill()
			n.Providers["vault"].Kill()
			if err := n.Gateway.Restart(ctx); err != nil {
				return err
			}
			return n.Providers["vault"].Restart(ctx)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := startNode(t)
			namespace := tenant(t, nil)
			d := newDatabase(t, namespace, "30s", "1h")
			d.class(t, nil)
			v := pod(t, namespace, "web-0", "app")
			must(t, n.Kubelet.Publish(t.Context(), v))
			first := d.wantWorking(t, n, v)
			must(t, restart(t.Context(), n))
			// The first renewal asks whether the lease lives, the second is the
			// new process's own.
			d.renewals(t, 2)
			if now := d.wantWorking(t, n, v); now != first {
				t.Error("the restart has changed the volume")
			}
			d.wantIssued(t, 1)
			n.unpublish(t, v)
			d.wantGone(t, first.user)
		})
	}
}

// A certificate that has a lease is revoked with its volume, and with a mount
// that fails after it was issued.
func TestLease_Certificate(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	namespace := tenant(t, nil)
	ctx, bao := t.Context(), servers.Bao
	mount := namespace + "-pki"
	must(t, bao.Write(ctx, "sys/mounts/"+mount, map[string]any{"type": "pki"}))
	must(t, bao.Write(ctx, mount+"/root/generate/internal", map[string]any{"common_name": "test", "key_type": "ec"}))
	must(t, bao.Write(ctx, mount+"/roles/web", map[string]any{
		"allow_any_name": true, "key_type": "ec", "ttl": "10m", "generate_lease": true,
	}))
	must(t, bao.PutPolicy(ctx, namespace, fmt.Sprintf(`
path "%s/issue/web" { capabilities = ["update"] }
path "secret/data/%s/*" { capabilities = ["read"] }`, mount, namespace)+leaseRules))
	object := fmt.Sprintf("- {objectName: response, secretPath: %s/issue/web, method: PUT, secretArgs: {common_name: a.example}}\n", mount)
	class(t, namespace, "app", vaultSpec(namespace, map[string]any{"rotationPollInterval": "1s", "objects": object}))
	class(t, namespace, "broken", vaultSpec(namespace, map[string]any{
		"objects": object + fmt.Sprintf("- {objectName: missing, secretPath: secret/data/%s/app, secretKey: missing}\n", namespace),
	}))
	v := pod(t, namespace, "web-0", "app")
	must(t, n.Kubelet.Publish(ctx, v))
	files, err := n.Kubelet.Files(v)
	must(t, err)
	var response struct {
		LeaseID string `json:"lease_id"`
		Data    struct {
			Serial string `json:"serial_number"`
		}
	}
	must(t, json.Unmarshal([]byte(files["response"].Contents), &response))
	if revoked(t, mount, response.Data.Serial) {
		t.Error("the certificate is revoked while it is mounted")
	}
	n.refreshes(t, 10)
	n.unpublish(t, v)
	eventually(t, "the certificate is revoked", func() bool { return revoked(t, mount, response.Data.Serial) })
	eventually(t, "its lease is gone, too", func() bool {
		return bao.Write(ctx, "sys/leases/lookup", map[string]any{"lease_id": response.LeaseID}) != nil
	})
	if issued, _, _ := leaseCalls(t, namespace, mount+"/issue/web"); issued != 1 {
		t.Errorf("%d certificates for ten refreshes, want 1", issued)
	}
	if err := n.Kubelet.Publish(ctx, pod(t, namespace, "web-1", "broken")); err == nil || !strings.Contains(err.Error(), "missing") {
		t.Errorf("mounted without a key that is missing: %v", err)
	}
	if issued, _, ended := leaseCalls(t, namespace, mount+"/issue/web"); issued != ended {
		t.Errorf("%d certificates were issued and %d revoked, want as many", issued, ended)
	}
}

func revoked(t *testing.T, mount, serial string) bool {
	t.Helper()
	var answer struct {
		Data struct {
			RevocationTime int64 `json:"revocation_time"`
		}
	}
	must(t, servers.Bao.Read(t.Context(), mount+"/cert/"+serial, &answer))
	return answer.Data.RevocationTime > 0
}

// refreshes waits until the provider has been asked so often.
func (n *node) refreshes(t *testing.T, atLeast int) {
	t.Helper()
	eventually(t, fmt.Sprintf("the provider was asked %d times", atLeast), func() bool {
		page, err := n.Providers["vault"].Get(t.Context(), "/metrics")
		must(t, err)
		for line := range strings.Lines(page) {
			var count float64
			if rest, ok := strings.CutPrefix(line, "postern_provider_fetch_duration_seconds_count{"); ok && strings.Contains(rest, `reason="OK"`) {
				_, value, _ := strings.Cut(rest, "} ")
				if _, err := fmt.Sscan(value, &count); err == nil && count >= float64(atLeast) {
					return true
				}
			}
		}
		return false
	})
}
