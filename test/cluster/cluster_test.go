package cluster_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/postern-dev/postern/test/build"
	"github.com/postern-dev/postern/test/cluster"
	"github.com/postern-dev/postern/test/cluster/node"
)

// patience is how long the cluster may take for anything, on a slow machine.
const patience = 2 * time.Minute

// parentEnv names the directory in which the test binary starts a cluster and
// waits to be killed.
const parentEnv = "POSTERN_TEST_CLUSTER_PARENT"

func TestMain(m *testing.M) {
	if dir := os.Getenv(parentEnv); dir != "" {
		if err := parent(context.Background(), dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func parent(ctx context.Context, dir string) error {
	builder, err := build.Here(os.Getenv, os.Stderr)
	if err != nil {
		return err
	}
	c, err := cluster.Up(ctx, cluster.Config{Builder: builder, Dir: dir, Progress: os.Stderr, ExitWithParent: true})
	if err != nil {
		return err
	}
	<-ctx.Done() // it never is
	return c.Down(ctx)
}

// Three clusters at once: one that lives a whole life, one that cannot start and
// one whose parent dies. Afterwards the host is as it was.
func TestClusters(t *testing.T) {
	if missing := cluster.Missing(); len(missing) > 0 {
		t.Skipf("SKIPPED: no cluster can run here. This machine lacks\n  %s", strings.Join(missing, "\n  "))
	}
	before := lookAtHost(t)
	t.Run("at once", func(t *testing.T) {
		for name, test := range map[string]func(*testing.T){
			"a whole life": wholeLife, "cannot start": cannotStart, "the parent dies": parentDies,
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				test(t)
			})
		}
	})
	before.compare(t, lookAtHost(t))
}

func wholeLife(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cluster")
	c := up(t, dir)
	inside := lookInside(t, dir)
	t.Run("it answers", func(t *testing.T) {
		t.Run("API in the cluster", func(t *testing.T) { t.Parallel(); apiInCluster(t, c) })
		t.Run("pods and Services", func(t *testing.T) { t.Parallel(); podsAndServices(t, c) })
		t.Run("supervision", func(t *testing.T) { t.Parallel(); supervision(t, c) })
		t.Run("commands", func(t *testing.T) { t.Parallel(); commands(t, c) })
		t.Run("second cluster there", func(t *testing.T) { t.Parallel(); secondCluster(t, c) })
	})
	t.Run("reboot", func(t *testing.T) { reboot(t, c) })
	if t.Failed() {
		return // the cleanup ends it
	}
	inside = append(inside, lookInside(t, dir)...)
	if err := c.Down(t.Context()); err != nil {
		t.Fatalf("Down() = %v", err)
	}
	nothingLeft(t, dir, inside)
	if _, err := cluster.Open(dir); err == nil || !strings.Contains(err.Error(), "not running") {
		t.Errorf("Open() after Down = %v, want that it is not running", err)
	}
	if err := c.Down(t.Context()); err != nil {
		t.Errorf("Down() again = %v", err)
	}
}

// up starts a cluster that ends with the test.
func up(t *testing.T, dir string) *cluster.Cluster {
	t.Helper()
	builder, err := build.Here(os.Getenv, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	c, err := cluster.Up(t.Context(), cluster.Config{
		Builder: builder, Dir: dir, Progress: t.Output(), NodeName: "worker", ExitWithParent: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Down(context.Background()); err != nil {
			t.Errorf("Down() = %v", err)
		}
	})
	return c
}

// podsAndServices has a pod serve others, by the name of a Service, and reach
// what the test listens on. That pods reach the API server, and trust it, is
// proven by CoreDNS, which knows the Services from there.
func podsAndServices(t *testing.T, c *cluster.Cluster) {
	kubectl(t, c, "apply", "-f", "testdata/web.yaml")
	kubectl(t, c, "wait", "--for", "condition=Ready", "pod", "--all", "--timeout", patience.String())
	inClient := func(command string) string { return kubectl(t, c, "exec", "client", "--", "sh", "-c", command) }

	eventually(t, "a pod reads from a Service by its name", func() error {
		return equal(inClient("wget -q -O - http://web.default.svc.cluster.local"), "hello\n")
	})
	if got := inClient("nslookup web.default.svc.cluster.local | grep -c 10.96."); got == "0\n" {
		t.Error("nslookup of the Service finds no address of the Services'")
	}
	listener, err := c.Listen(t.Context(), "tcp", c.HostIP()+":0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{ReadHeaderTimeout: patience, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "from the test")
	})}
	t.Cleanup(func() { _ = server.Close() })
	go func() { _ = server.Serve(listener) }()
	if got := inClient("wget -q -O - http://" + listener.Addr().String()); got != "from the test" {
		t.Errorf("a pod reads %q from the test's listener", got)
	}
	if got := kubectl(t, c, "logs", "client"); got != "started\n" {
		t.Errorf("the pod's log is %q", got)
	}
}

// supervision ends a component and sees it come back.
func supervision(t *testing.T, c *cluster.Cluster) {
	find := func() node.Status {
		all, err := node.ReadStatus(c.Dir())
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range all {
			if s.Name == "kube-scheduler" {
				return s
			}
		}
		t.Fatalf("no kube-scheduler in %v", all)
		return node.Status{}
	}
	was := find()
	run(t, c, "kill", "-KILL", fmt.Sprint(was.PID))
	eventually(t, "the scheduler runs again", func() error {
		if is := find(); is.PID == 0 || is.Starts != was.Starts+1 || is.LastExit != "killed by SIGKILL" {
			return fmt.Errorf("it is %+v", is)
		}
		return nil
	})
}

// commands run in the node's namespaces and in this directory, and end with ctx.
func commands(t *testing.T, c *cluster.Cluster) {
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := run(t, c, "sh", "-c", "pwd; hostname; cat /proc/1/comm"), dir+"\nworker\npostern-node\n"; got != want {
		t.Errorf("inside: %q, want %q", got, want)
	}
	run(t, c, "sh", "-c", "echo hello > /run/greeting")
	contents, err := os.ReadFile(c.NodePath("/run/greeting"))
	if err != nil || string(contents) != "hello\n" {
		t.Errorf("NodePath leads to %q, %v", contents, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cmd := c.Command(ctx, "sh", "-c", "sleep 1001 & echo started; wait")
	output, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(output, make([]byte, len("started\n"))); err != nil {
		t.Fatal(err)
	}
	cancel()
	_ = cmd.Wait()
	eventually(t, "what the command started has ended", func() error {
		return equal(run(t, c, "sh", "-c", "pgrep -f '^sleep 1001$' | wc -l"), "0\n")
	})
	if _, err := c.Dial(t.Context(), "tcp", "localhost:6443"); err == nil || !strings.Contains(err.Error(), "IP address") {
		t.Errorf("Dial() of a name = %v, want it refused", err)
	}
}

// secondCluster is refused in the same directory, and a second handle works.
func secondCluster(t *testing.T, c *cluster.Cluster) {
	builder, err := build.Here(os.Getenv, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	_, err = cluster.Up(t.Context(), cluster.Config{Builder: builder, Dir: c.Dir(), Progress: t.Output()})
	if !errors.Is(err, cluster.ErrRunning) {
		t.Errorf("Up() in the same directory = %v, want ErrRunning", err)
	}
	again, err := cluster.Open(c.Dir())
	if err != nil {
		t.Fatal(err)
	}
	if got := again.NodeName(); got != "worker" {
		t.Errorf("Open() finds node %q", got)
	}
	if got := kubectl(t, again, "get", "nodes", "-o", "name"); got != "node/worker\n" {
		t.Errorf("nodes: %q", got)
	}
}

func kubectl(t *testing.T, c *cluster.Cluster, args ...string) string {
	t.Helper()
	return run(t, c, "kubectl", args...)
}

// run runs a command in the cluster and returns its standard output.
func run(t *testing.T, c *cluster.Cluster, name string, args ...string) string {
	t.Helper()
	output, err := c.Command(t.Context(), name, args...).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		t.Fatalf("%s %s: %v: %s%s", name, strings.Join(args, " "), err, output, exit.Stderr)
	}
	if err != nil {
		t.Fatalf("%s %s: %v", name, strings.Join(args, " "), err)
	}
	return string(output)
}

func client(t *testing.T, c *cluster.Cluster) kubernetes.Interface {
	t.Helper()
	config, err := c.RESTConfig()
	if err != nil {
		t.Fatal(err)
	}
	set, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func equal(got, want string) error {
	if got != want {
		return fmt.Errorf("got %q, want %q", got, want)
	}
	return nil
}

func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("not within %s: %s: %v", patience, what, err)
		case <-ticker.C:
		}
	}
}

// apiInCluster reaches the API server as a pod does: by the Service's address,
// trusting the certificate that pods get, with a token of a service account.
func apiInCluster(t *testing.T, c *cluster.Cluster) {
	set := client(t, c)
	root, err := set.CoreV1().ConfigMaps("default").Get(t.Context(), "kube-root-ca.crt", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	token := newToken(t, set)
	pod := podClient(t, c, []byte(root.Data["ca.crt"]), token)

	var discovery struct {
		Issuer string `json:"issuer"`
		Keys   string `json:"jwks_uri"`
	}
	get(t, pod, "https://kubernetes.default.svc/.well-known/openid-configuration", &discovery)
	if discovery.Issuer != cluster.Issuer {
		t.Errorf("the issuer is %q, want %q", discovery.Issuer, cluster.Issuer)
	}
	var keys struct {
		Keys []json.RawMessage `json:"keys"`
	}
	get(t, pod, discovery.Keys, &keys)
	if len(keys.Keys) != 1 {
		t.Errorf("%d keys at %s, want 1", len(keys.Keys), discovery.Keys)
	}
	review := reviewToken(t, set, token)
	if got, want := review.User.Username, "system:serviceaccount:default:default"; got != want || !review.Authenticated {
		t.Errorf("the token is %q's (%+v), want %q's", got, review, want)
	}
	nodes, err := set.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil || len(nodes.Items) != 1 {
		t.Fatalf("%d nodes, %v", len(nodes.Items), err)
	}
	if got := address(nodes.Items[0], corev1.NodeInternalIP); got != c.HostIP() {
		t.Errorf("the node's address is %s, want %s", got, c.HostIP())
	}
}
