package e2e_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/postern-dev/postern/test/kubelet"
	"github.com/postern-dev/postern/test/openbao"
)

// A full node starts at once: the store sees one login and one read of each
// identity, as its own audit log has it.
func TestSharing_Storm(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	namespace := tenant(t, map[string]any{"username": "bob", "password": "p4ssw0rd"})
	account(t, namespace, "worker")
	class(t, namespace, "web", vaultSpec(namespace, nil))
	class(t, namespace, "worker", vaultSpec(namespace, map[string]any{"roleName": namespace + "-worker"}))

	n.storm(t, namespace, "web", 110)
	wantCalls(t, namespace, "web", 1)
	n.storm(t, namespace, "web", 55, "worker", 55)
	// Those of web have an answer that is kept, or ask once more.
	wantCalls(t, namespace, "worker", 1)
	if logins, reads := callsOf(t, namespace, "web"); logins != 1 || reads > 2 {
		t.Errorf("web: %d logins and %d reads, want one login, and a read for each storm at most", logins, reads)
	}
}

// account makes another service account that may read what the tenant may.
func account(t *testing.T, namespace, name string) {
	t.Helper()
	must(t, servers.API.EnsureServiceAccount(t.Context(), namespace, name))
	must(t, servers.Bao.PutRole(t.Context(), openbao.Role{
		Name: namespace + "-" + name, Namespace: namespace, ServiceAccount: name, Audience: "vault", Policies: []string{namespace},
	}))
}

// storm publishes so many volumes of these service accounts, which have classes
// of their names, at once, and takes them away again.
func (n *node) storm(t *testing.T, namespace string, accounts ...any) {
	t.Helper()
	var volumes []kubelet.Volume
	for i := 0; i < len(accounts); i += 2 {
		for range accounts[i+1].(int) {
			account := accounts[i].(string)
			volumes = append(volumes, podOf(t, namespace, account, fmt.Sprintf("storm-%d", len(volumes)), account))
		}
	}
	var pods sync.WaitGroup
	for _, v := range volumes {
		pods.Go(func() {
			if err := n.Kubelet.Publish(t.Context(), v); err != nil {
				t.Errorf("publish %s: %v", v.Pod, err)
			}
		})
	}
	pods.Wait()
	for _, v := range volumes {
		n.wantFiles(t, v, map[string]string{"username": "bob", "password": "p4ssw0rd"})
		n.unpublish(t, v)
		must(t, servers.API.DeletePod(t.Context(), namespace, v.Pod))
	}
}

// callsOf is how often a service account logged in and read its secret.
func callsOf(t *testing.T, namespace, account string) (logins, reads int) {
	t.Helper()
	calls, err := servers.Bao.Calls()
	must(t, err)
	for _, call := range calls {
		switch {
		case call.Caller != "kubernetes-"+namespace+"-"+account:
		case call.Path == "auth/kubernetes/login":
			logins++
		case call.Path == "secret/data/"+namespace+"/app":
			reads++
		}
	}
	return logins, reads
}

func wantCalls(t *testing.T, namespace, account string, want int) {
	t.Helper()
	if logins, reads := callsOf(t, namespace, account); logins != want || reads != want {
		t.Errorf("%s: %d logins and %d reads, want %d of each", account, logins, reads, want)
	}
}

// What is in memory is for pods that could have fetched it.
func TestSharing_Authority(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	namespace := tenant(t, map[string]any{"username": "bob", "password": "p4ssw0rd"})
	class(t, namespace, "app", vaultSpec(namespace, map[string]any{"maxAge": "1h"}))
	first := pod(t, namespace, "first", "app")
	n.publish(t, first)
	for name, change := range map[string]struct {
		tokens func(own string) string
		code   codes.Code
		want   string
	}{
		"none":    {func(string) string { return "" }, codes.FailedPrecondition, "Helm value driver.tokenRequests"},
		"another": {func(string) string { return first.Tokens }, codes.Unauthenticated, "is not of this pod"},
		"garbage": {func(string) string {
			return `{"vault":{"token":"x.y.z","expirationTimestamp":"2099-01-01T00:00:00Z"}}`
		}, codes.Unauthenticated, "is not a service account token"},
	} {
		v := pod(t, namespace, name, "app")
		own := v.Tokens
		v.Tokens = change.tokens(own)
		err := n.Kubelet.Publish(t.Context(), v)
		if status.Code(err) != change.code || !strings.Contains(fmt.Sprint(err), change.want) {
			t.Errorf("%s: got %v, want %s that says %q", name, err, change.code, change.want)
		}
		n.wantNoMount(t, v)
		v.Tokens = own
		n.publish(t, v)
	}
	wantCalls(t, namespace, "web", 1)
}

// Who changes a secret and starts a pod gets the new one, as soon as the class
// says.
func TestSharing_MaxAge(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	namespace := tenant(t, map[string]any{"username": "bob", "password": "old"})
	for name, maxAge := range map[string]string{"long": "1h", "short": "2s", "none": "0"} {
		class(t, namespace, name, vaultSpec(namespace, map[string]any{"maxAge": maxAge}))
		n.publish(t, pod(t, namespace, "before-"+name, name))
	}
	must(t, servers.Bao.PutSecret(t.Context(), namespace+"/app", map[string]any{"username": "bob", "password": "new"}))
	password := func(class, name string) string {
		v := pod(t, namespace, name, class)
		must(t, n.Kubelet.Publish(t.Context(), v))
		defer n.unpublish(t, v)
		files, err := n.Kubelet.Files(v)
		must(t, err)
		return files["password"].Contents
	}
	if got := password("none", "after-none"); got != "new" {
		t.Errorf("without reuse a new pod gets %q", got)
	}
	if got := password("long", "after-long"); got != "old" {
		t.Errorf("within maxAge a new pod gets %q, so nothing is kept", got)
	}
	attempts := 0
	eventually(t, "a new pod gets the new secret", func() bool {
		attempts++
		return password("short", fmt.Sprintf("after-short-%d", attempts)) == "new"
	})
}

// eventually polls until condition holds; it fails the test if that takes long.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	within(t, time.Minute, what, condition)
}

// within is eventually, for what takes longer.
func within(t *testing.T, limit time.Duration, what string, condition func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited for too long until %s", what)
		}
	}
}

// Certificates that are issued are each volume's own, however many start at once.
func TestSharing_PrivateAnswers(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	namespace := tenant(t, nil)
	ctx, bao := t.Context(), servers.Bao
	must(t, bao.Write(ctx, "sys/mounts/"+namespace, map[string]any{"type": "pki"}))
	must(t, bao.Write(ctx, namespace+"/root/generate/internal", map[string]any{"common_name": "test", "key_type": "ec"}))
	must(t, bao.Write(ctx, namespace+"/roles/web", map[string]any{"allow_any_name": true, "key_type": "ec", "ttl": "10m"}))
	must(t, bao.PutPolicy(ctx, namespace, fmt.Sprintf(`path "%s/issue/web" { capabilities = ["update"] }`, namespace)))
	class(t, namespace, "app", vaultSpec(namespace, map[string]any{"objects": fmt.Sprintf(
		`- {objectName: crt, secretPath: %s/issue/web, method: PUT, secretArgs: {common_name: a.example}, secretKey: certificate}`, namespace)}))
	var pods sync.WaitGroup
	volumes := make([]kubelet.Volume, 10)
	for i := range volumes {
		volumes[i] = pod(t, namespace, fmt.Sprint(i), "app")
		pods.Go(func() {
			if err := n.Kubelet.Publish(ctx, volumes[i]); err != nil {
				t.Error(err)
			}
		})
	}
	pods.Wait()
	issued := map[string]bool{}
	for _, v := range volumes {
		files, err := n.Kubelet.Files(v)
		must(t, err)
		issued[files["crt"].Contents] = true
		n.unpublish(t, v)
	}
	if len(issued) != len(volumes) {
		t.Errorf("%d volumes have %d certificates", len(volumes), len(issued))
	}
}
