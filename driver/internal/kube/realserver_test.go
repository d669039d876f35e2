package kube_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	apiv1 "github.com/postern-dev/postern/driver/api/v1"
	"github.com/postern-dev/postern/driver/internal/kube"
)

// kubeEnv names a binary that is etcd or kube-apiserver, as its first argument
// says.
const kubeEnv = "POSTERN_TEST_KUBE"

// patience is for a machine that does ten other things.
const patience = time.Minute

const (
	group       = "/apis/secrets-store.csi.x-k8s.io/v1/namespaces/shop/secretproviderclasses"
	classDB     = group + "/db"
	yamlBody    = "application/yaml"
	mergePatch  = "application/merge-patch+json"
	definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
)

// realServer is an etcd and a kube-apiserver, which can be restarted.
type realServer struct {
	binary, dir, url string
	apiArgs          []string
	process          *exec.Cmd
	admin            *http.Client
}

func startRealServer(t *testing.T) *realServer {
	t.Helper()
	binary := os.Getenv(kubeEnv)
	if binary == "" {
		t.Skipf("%s is not set: `make unit/driver` builds the binary and sets it", kubeEnv)
	}
	dir := t.TempDir()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	pemKey := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	keyFile, tokens := filepath.Join(dir, "sa.key"), filepath.Join(dir, "tokens.csv")
	for path, content := range map[string][]byte{keyFile: pemKey, tokens: []byte("admin,admin,admin,system:masters\n")} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	etcd, peer, api := freeAddress(t), "http://"+freeAddress(t), freeAddress(t)
	_, port, _ := net.SplitHostPort(api)
	s := &realServer{
		binary: binary, dir: dir, url: "https://" + api,
		apiArgs: []string{
			"kube-apiserver", "--etcd-servers", "http://" + etcd, "--bind-address", "127.0.0.1", "--secure-port", port,
			"--cert-dir", dir, "--service-cluster-ip-range", "10.96.0.0/16", "--authorization-mode", "RBAC",
			"--service-account-issuer", "https://kubernetes.default.svc", "--service-account-signing-key-file", keyFile,
			"--service-account-key-file", keyFile, "--token-auth-file", tokens,
			"--endpoint-reconciler-type", "none", "--disable-admission-plugins", "ServiceAccount",
		},
		admin: &http.Client{
			Timeout:   10 * time.Second,
			Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}},
		},
	}
	t.Cleanup(s.admin.CloseIdleConnections)
	database := s.run(t, "etcd", "--data-dir", filepath.Join(dir, "etcd"), "--unsafe-no-fsync", "--log-level", "error",
		"--listen-client-urls", "http://"+etcd, "--advertise-client-urls", "http://"+etcd,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer)
	t.Cleanup(func() { kill(database) })
	s.start(t)
	t.Cleanup(func() { kill(s.process) })
	return s
}

func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close() //nolint:errcheck // only its address is wanted
	return listener.Addr().String()
}

// start starts the API server and waits until it is ready.
func (s *realServer) start(t *testing.T) {
	t.Helper()
	s.process = s.run(t, s.apiArgs...)
	s.eventually(t, "the API server is ready", func() error { return s.call(t, http.MethodGet, "/readyz", "", "") })
}

func (s *realServer) run(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	log, err := os.Create(filepath.Join(s.dir, args[0]+".log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close() //nolint:errcheck // the child has its own
	command := exec.Command(s.binary, args...)
	command.Dir, command.Stdout, command.Stderr = s.dir, log, log
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // also when a test times out
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	return command
}

func kill(command *exec.Cmd) {
	_ = command.Process.Kill()
	_ = command.Wait()
}

// call is one of the admin's.
func (s *realServer) call(t *testing.T, method, path, contentType, body string) error {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, s.url+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer admin")
	request.Header.Set("Content-Type", contentType)
	response, err := s.admin.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close() //nolint:errcheck // it was read to its end
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode >= http.StatusMultipleChoices {
		return fmt.Errorf("%s %s: %s: %s", method, path, response.Status, answer)
	}
	return nil
}

func (s *realServer) must(t *testing.T, method, path, contentType, body string) {
	t.Helper()
	if err := s.call(t, method, path, contentType, body); err != nil {
		t.Fatal(err)
	}
}

func (s *realServer) eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	tick, deadline := time.NewTicker(100*time.Millisecond), time.After(patience)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			log, _ := os.ReadFile(filepath.Join(s.dir, "kube-apiserver.log"))
			t.Fatalf("%s: not within %v: %v\nthe API server's log:\n%s", what, patience, err, log)
		}
	}
}

// create creates class shop/db with this annotation.
func (s *realServer) create(t *testing.T, refresh string) {
	t.Helper()
	s.must(t, http.MethodPost, group, yamlBody, fmt.Sprintf(`{apiVersion: %s, kind: SecretProviderClass,
metadata: {name: db, annotations: {%s: %q}}, spec: {provider: vault, parameters: {roleName: app}}}`, apiv1.GroupVersion(), apiv1.AnnotationRefresh, refresh))
}

func (s *realServer) annotate(t *testing.T, refresh string) {
	t.Helper()
	s.must(t, http.MethodPatch, classDB, mergePatch, fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, apiv1.AnnotationRefresh, refresh))
}

// The watch sees what people do to the class, on an API server that comes and
// goes.
func TestClient_WatchSecretProviderClass_RealServer(t *testing.T) {
	t.Parallel()
	server := startRealServer(t)
	definition, err := os.ReadFile("../../api/crds/secrets-store.csi.x-k8s.io_secretproviderclasses.yaml")
	if err != nil {
		t.Fatal(err)
	}
	server.must(t, http.MethodPost, definitions, yamlBody, string(definition))
	server.must(t, http.MethodPost, "/api/v1/namespaces", yamlBody, "{apiVersion: v1, kind: Namespace, metadata: {name: shop}}")
	server.eventually(t, "the kind is known", func() error { return server.call(t, http.MethodGet, group, "", "") })

	client, err := kube.New(kube.Config{
		RESTConfig: &rest.Config{
			Host: server.url, BearerToken: "admin", TLSClientConfig: rest.TLSClientConfig{CAFile: filepath.Join(server.dir, "apiserver.crt")},
		},
		Logger: slog.New(slog.NewTextHandler(&bytes.Buffer{}, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	seen := make(chan string, 100)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		client.WatchSecretProviderClass(ctx, "shop", "db", func(annotations map[string]string) { seen <- annotations[apiv1.AnnotationRefresh] })
	}()
	expect := func(want string) {
		t.Helper()
		timeout := time.After(patience)
		for {
			select {
			case got := <-seen:
				if got == want {
					return
				}
			case <-timeout:
				t.Fatalf("%q is not seen within %v", want, patience)
			}
		}
	}

	server.create(t, "created")
	expect("created")
	server.annotate(t, "annotated")
	expect("annotated")
	server.must(t, http.MethodDelete, classDB, "", "")
	server.create(t, "recreated")
	expect("recreated")
	kill(server.process)
	server.start(t)
	server.annotate(t, "after a restart")
	expect("after a restart")
	server.must(t, http.MethodPatch, classDB, mergePatch, `{"metadata":{"annotations":null}}`)
	expect("")

	cancel()
	<-ended
	client.Close()
}
