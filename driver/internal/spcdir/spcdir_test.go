package spcdir_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	apiv1 "github.com/postern-dev/postern/driver/api/v1"
	"github.com/postern-dev/postern/driver/internal/spc"
	"github.com/postern-dev/postern/driver/internal/spcdir"
)

const good = `# the shop's
apiVersion: secrets-store.csi.x-k8s.io/v1
kind: SecretProviderClass
metadata:
  name: db
  namespace: shop
spec:
  provider: vault
  parameters:
    roleName: app
    objects: |
      - objectName: password
  secretObjects:
    - secretName: db
      type: Opaque
      data:
        - objectName: password
          key: password
---
apiVersion: secrets-store.csi.x-k8s.io/v1alpha1
kind: SecretProviderClass
metadata:
  name: old
spec:
  provider: aws
---
apiVersion: v1
kind: Namespace
metadata:
  name: shop
---
# nothing
`

func write(t *testing.T, dir, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func source(t *testing.T, dir string) *spcdir.Source {
	t.Helper()
	s, err := spcdir.New(dir)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	return s
}

func TestSource_SecretProviderClass(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "a.yaml", good)
	write(t, dir, "notes.txt", "not: [yaml")
	if err := os.Mkdir(filepath.Join(dir, "dir.yaml"), 0o700); err != nil {
		t.Fatal(err)
	}
	s := source(t, dir)
	got, err := s.SecretProviderClass(t.Context(), "shop", "db")
	if err != nil {
		t.Fatalf("SecretProviderClass: %v", err)
	}
	want := &apiv1.SecretProviderClass{
		TypeMeta:   metav1.TypeMeta{APIVersion: "secrets-store.csi.x-k8s.io/v1", Kind: "SecretProviderClass"},
		ObjectMeta: metav1.ObjectMeta{Name: "db", Namespace: "shop"},
		Spec: apiv1.SecretProviderClassSpec{
			Provider:   "vault",
			Parameters: map[string]string{"roleName": "app", "objects": "- objectName: password\n"},
			SecretObjects: []*apiv1.SecretObject{{
				SecretName: "db", Type: "Opaque", Data: []*apiv1.SecretObjectData{{ObjectName: "password", Key: "password"}},
			}},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("class (-want +got):\n%s", diff)
	}
	got.Spec.Parameters["roleName"] = "changed"
	again, err := s.SecretProviderClass(t.Context(), "shop", "db")
	if err != nil || again.Spec.Parameters["roleName"] != "app" {
		t.Errorf("got %v, %v; a caller changed what others get", again, err)
	}
	old, err := s.SecretProviderClass(t.Context(), "default", "old")
	if err != nil || old.Spec.Provider != "aws" || old.APIVersion != "secrets-store.csi.x-k8s.io/v1" {
		t.Errorf("v1alpha1 without a namespace: got %v, %v", old, err)
	}
}

func TestSource_SecretProviderClass_Errors(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		content string // of bad.yaml, beside a good a.yaml
		class   string // in namespace shop
		want    error
		text    string // DIR stands for the directory
	}{
		{name: "not there", class: "none", want: spc.ErrNotFound, text: "no such SecretProviderClass in directory DIR"},
		{
			name:    "unknown field",
			content: "apiVersion: secrets-store.csi.x-k8s.io/v1\nkind: SecretProviderClass\nmetadata: {name: x}\nspec:\n  provider: vault\n  params: {}\n",
			class:   "x", want: spc.ErrInvalid, text: `DIR/bad.yaml:6: unknown field "params"`,
		},
		{
			name:    "unknown field in the second document of v1alpha1",
			content: "apiVersion: v1\nkind: Pod\n---\n\napiVersion: secrets-store.csi.x-k8s.io/v1alpha1\nkind: SecretProviderClass\nmetadata:\n  name: x\nspecs: {}\n",
			class:   "x", want: spc.ErrInvalid, text: `DIR/bad.yaml:9: unknown field "specs"`,
		},
		{name: "not YAML", content: "---\n# c\na: b\n c: [\n", class: "x", want: spc.ErrInvalid, text: "DIR/bad.yaml:4: "},
		{
			name:    "key twice",
			content: "apiVersion: secrets-store.csi.x-k8s.io/v1\nkind: SecretProviderClass\nmetadata: {name: x}\nspec:\n  provider: a\n  provider: b\n",
			class:   "x", want: spc.ErrInvalid, text: "DIR/bad.yaml:6: ",
		},
		{name: "no kind", content: "\nmetadata: {name: x}\n", class: "x", want: spc.ErrInvalid, text: "DIR/bad.yaml:2: apiVersion and kind must be set"},
		{name: "list", content: "apiVersion: v1\nkind: List\nitems: []\n", class: "x", want: spc.ErrInvalid, text: "write its items as documents of their own"},
		{name: "no name", content: "apiVersion: secrets-store.csi.x-k8s.io/v1\nkind: SecretProviderClass\n", class: "x", want: spc.ErrInvalid, text: "DIR/bad.yaml:1: metadata.name must be set"},
		{
			name:    "other version",
			content: "apiVersion: secrets-store.csi.x-k8s.io/v2\nkind: SecretProviderClass\nmetadata: {name: x}\n",
			class:   "x", want: spc.ErrInvalid, text: "apiVersion secrets-store.csi.x-k8s.io/v2 is not known; use secrets-store.csi.x-k8s.io/v1",
		},
		{
			name:    "other kind",
			content: "apiVersion: secrets-store.csi.x-k8s.io/v1\nkind: SecretProviderClas\nmetadata: {name: x}\n",
			class:   "x", want: spc.ErrInvalid, text: "kind SecretProviderClas cannot be used here, only SecretProviderClass",
		},
		{
			name: "twice", content: good, class: "db", want: spc.ErrInvalid,
			text: "it is defined at DIR/a.yaml:2 and at DIR/bad.yaml:2; remove one",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			write(t, dir, "a.yaml", good)
			write(t, dir, "bad.yaml", test.content)
			_, err := source(t, dir).SecretProviderClass(t.Context(), "shop", test.class)
			if !errors.Is(err, test.want) {
				t.Fatalf("got %v, want %v", err, test.want)
			}
			if text := strings.ReplaceAll(test.text, "DIR", dir); !strings.Contains(err.Error(), text) {
				t.Errorf("got %q, want %q in it", err, text)
			}
		})
	}
}

func TestSource_BrokenFileSparesOthers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "a.yaml", good)
	write(t, dir, "b.yaml", "{")
	if err := os.Symlink(filepath.Join(dir, "gone"), filepath.Join(dir, "c.yml")); err != nil {
		t.Fatal(err)
	}
	if _, err := source(t, dir).SecretProviderClass(t.Context(), "shop", "db"); err != nil {
		t.Errorf("SecretProviderClass: %v", err)
	}
}

func TestSource_SeesChanges(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := source(t, dir)
	expect := func(want error, provider string) {
		t.Helper()
		class, err := s.SecretProviderClass(t.Context(), "shop", "db")
		if !errors.Is(err, want) || err == nil && string(class.Spec.Provider) != provider {
			t.Errorf("got %v, %v; want provider %q, %v", class, err, provider, want)
		}
	}
	expect(spc.ErrNotFound, "")
	write(t, dir, "a.yaml", good)
	expect(nil, "vault")
	write(t, dir, "a.yaml", strings.Replace(good, "vault", "azure", 1))
	expect(nil, "azure")
	write(t, dir, "a.yaml", strings.Replace(good, "vault", "other", 1)) // of the same size
	later := time.Now().Add(time.Hour)
	if err := os.Chtimes(filepath.Join(dir, "a.yaml"), later, later); err != nil {
		t.Fatal(err)
	}
	expect(nil, "other")
	if err := os.Remove(filepath.Join(dir, "a.yaml")); err != nil {
		t.Fatal(err)
	}
	expect(spc.ErrNotFound, "")
}

func TestSource_Unavailable(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "d")
	if _, err := spcdir.New(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("New of a directory that is not there: got %v", err)
	}
	write(t, filepath.Dir(dir), "f", "")
	if _, err := spcdir.New(filepath.Join(filepath.Dir(dir), "f")); err == nil || !strings.Contains(err.Error(), "is not a directory") {
		t.Errorf("New of a file: got %v", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s := source(t, dir)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.SecretProviderClass(ctx, "shop", "db"); !errors.Is(err, context.Canceled) {
		t.Errorf("with a canceled context: got %v", err)
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := s.SecretProviderClass(t.Context(), "shop", "db"); !errors.Is(err, spc.ErrUnavailable) {
		t.Errorf("with the directory gone: got %v", err)
	}
}

func FuzzSource(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte("---\n---\n{"))
	f.Add([]byte("--- a: b\n...\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		dir := t.TempDir()
		write(t, dir, "a.yaml", string(content))
		class, err := source(t, dir).SecretProviderClass(t.Context(), "shop", "db")
		if (class == nil) == (err == nil) {
			t.Errorf("got %v, %v; want one of them", class, err)
		}
	})
}
