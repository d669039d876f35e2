package kube_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/klog/v2"

	apiv1 "github.com/postern-dev/postern/driver/api/v1"
	"github.com/postern-dev/postern/driver/internal/kube"
	"github.com/postern-dev/postern/driver/internal/kube/kubetest"
)

// Not parallel: the libraries have one logger for the whole process.
func TestRouteLibraryLogs(t *testing.T) {
	var log bytes.Buffer
	kube.RouteLibraryLogs(slog.New(slog.NewTextHandler(&log, nil)))
	defer klog.ClearLogger()
	klog.InfoS("from a library", "key", "value")
	klog.V(4).InfoS("too much detail")
	if got := log.String(); !strings.Contains(got, `level=INFO msg="from a library" component=kubernetes key=value`) || strings.Contains(got, "detail") {
		t.Errorf("log is %q", got)
	}
}

// A client as in production: from a file, over a connection, with a token.
func TestClient_Kubeconfig(t *testing.T) {
	t.Parallel()
	cluster := kubetest.New()
	put(t, cluster, apiv1.ResourceSecretProviderClasses, "shop", class("db"))
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer the-token" || r.UserAgent() != "postern-driver/v1" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.Header().Set("Warning", `299 - "this version is deprecated"`)
		cluster.ServeHTTP(w, r)
	}))
	defer server.Close()

	path := filepath.Join(t.TempDir(), "kubeconfig")
	config := fmt.Sprintf(`{"apiVersion":"v1","kind":"Config","current-context":"x",
		"clusters":[{"name":"c","cluster":{"server":%q,"insecure-skip-tls-verify":true}}],
		"users":[{"name":"u","user":{"token":"the-token"}}],
		"contexts":[{"name":"x","context":{"cluster":"c","user":"u"}}]}`, server.URL)
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	client, err := kube.New(kube.Config{
		Kubeconfig: path, UserAgent: "postern-driver/v1",
		Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	defer client.Close()
	if _, err := client.SecretProviderClass(t.Context(), "shop", "db"); err != nil {
		t.Errorf("SecretProviderClass: %v", err)
	}
	if got := log.String(); !strings.Contains(got, `level=WARN msg="the API server warns" reason="this version is deprecated"`) {
		t.Errorf("log lacks the server's warning:\n%s", got)
	}
	if strings.Contains(log.String(), "the-token") {
		t.Errorf("the log holds the token:\n%s", &log)
	}
}
