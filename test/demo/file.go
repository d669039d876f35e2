package demo

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/postern-dev/postern/test/harness"
	"github.com/postern-dev/postern/test/kubelet"
	"github.com/postern-dev/postern/test/otlp"
)

// fileClass is what the pod gets in the file demo.
const fileClass = `
apiVersion: secrets-store.csi.x-k8s.io/v1
kind: SecretProviderClass
metadata:
  name: app
  namespace: shop
spec:
  provider: file
  parameters:
    objects: |
      - objectName: db/username
        path: username
      - objectName: db/password
        path: password
        filePermission: "0400"
      - objectName: tls
`

// File is the demo without servers: the store is a directory.
func File(ctx context.Context, cfg Config) error {
	t, err := prepareNode(ctx, cfg)
	if err != nil {
		return err
	}
	return t.end(t.file(ctx))
}

func (t *tools) file(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "postern-demo-")
	if err != nil {
		return fmt.Errorf("make the demo's directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := writeStore(dir); err != nil {
		return err
	}
	traces, err := otlp.Listen(ctx)
	if err != nil {
		return err
	}
	defer traces.Close()
	t.tell.title("A SecretProviderClass says what the pods of namespace shop get")
	t.tell.quote(fileClass)
	node, err := t.startNode(ctx, harness.Config{
		Providers: map[string][]string{"file": {"--root", filepath.Join(dir, "store")}},
		SPCDir:    filepath.Join(dir, "classes"),
		Telemetry: traces.Environment(),
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, node.Close()) }()
	return t.show(ctx, mount{
		node: node, traces: traces,
		volume: kubelet.Volume{
			Namespace: "shop", Pod: "web-0", UID: podUID(), ServiceAccount: "web", Name: "secrets", SecretProviderClass: "app",
		},
		complete: func(trace otlp.Trace) bool {
			return has(trace, "postern-driver") && has(trace, "postern-provider-file")
		},
	})
}

// writeStore makes the store that the file provider serves, and the directory
// of SecretProviderClasses.
func writeStore(dir string) error {
	if err := os.Chmod(dir, 0o755); err != nil {
		return fmt.Errorf("open the demo's directory: %w", err)
	}
	for name, contents := range map[string]string{
		"store/shop/db/username": "bob",
		"store/shop/db/password": "correct horse battery staple",
		"store/shop/tls/tls.crt": "a certificate would be here",
		"store/shop/tls/tls.key": "and its key here",
		"classes/app.yaml":       strings.TrimSpace(fileClass) + "\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("write the demo's store: %w", err)
		}
		if err := os.WriteFile(path, []byte(contents), 0o644); err != nil {
			return fmt.Errorf("write the demo's store: %w", err)
		}
	}
	return nil
}

// podUID makes a uid such as Kubernetes gives a pod.
func podUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func has(trace otlp.Trace, service string) bool {
	return slices.ContainsFunc(trace.Spans, func(s otlp.Span) bool { return s.Service == service })
}

func sortedNames(files map[string]kubelet.File) []string {
	return slices.Sorted(maps.Keys(files))
}
