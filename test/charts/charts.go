// Package charts renders the project's Helm charts with the real helm, for tests
// that look at what comes out, and makes what is generated from them: the
// charts' READMEs and schemas, and the plain manifests in deploy.
package charts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// What the documents and tests call an installation.
const (
	Release   = "postern"
	Namespace = "postern-system"
)

// Helm runs helm.
type Helm struct {
	// Path of the program; see build.Helm.
	Path string
	// Root is the repository's root.
	Root string
}

// Options of Render.
type Options struct {
	// Chart is its directory below charts.
	Chart string
	// Values are YAML documents; later ones win.
	Values []string
	// KubeVersion is the cluster's, "" for helm's own.
	KubeVersion string
	// Tests renders what "helm test" makes, too.
	Tests bool
	// notes prints what an installation tells instead; see Notes.
	notes bool
}

// Render returns the objects that an installation of a chart makes.
func (h Helm) Render(ctx context.Context, o Options) (Objects, error) {
	output, err := h.run(ctx, o)
	if err != nil {
		return nil, err
	}
	return Decode(output)
}

// Notes returns what an installation of a chart tells whoever installs it.
func (h Helm) Notes(ctx context.Context, o Options) (string, error) {
	o.notes = true
	output, err := h.run(ctx, o)
	_, notes, found := strings.Cut(string(output), "\nNOTES:\n")
	if err == nil && !found {
		err = errors.New("helm printed no notes")
	}
	return notes, err
}

func (h Helm) run(ctx context.Context, o Options) ([]byte, error) {
	args := []string{"template"}
	if o.notes {
		args = []string{"install", "--dry-run=client"}
	}
	args = append(args, Release, filepath.Join(h.Root, "charts", o.Chart), "--namespace", Namespace)
	var stdin string
	if len(o.Values) > 0 {
		merged, err := merge(o.Values)
		if err != nil {
			return nil, err
		}
		stdin, args = merged, append(args, "--values", "-")
	}
	if o.KubeVersion != "" {
		args = append(args, "--kube-version", o.KubeVersion)
	}
	if !o.Tests && !o.notes {
		args = append(args, "--skip-tests")
	}
	return h.Command(ctx, stdin, args...)
}

// Command runs helm and returns what it prints. Its error has what helm
// complains of.
func (h Helm) Command(ctx context.Context, stdin string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, h.Path, args...)
	// Neither the user's configuration nor a cluster is any business of it.
	cmd.Env = []string{"HOME=/nonexistent", "HELM_CACHE_HOME=/nonexistent", "KUBECONFIG=/nonexistent"}
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.Bytes(), fmt.Errorf("helm %s: %w: %s%s", args[0], err, stdout.String(), stderr.String())
	}
	return stdout.Bytes(), nil
}

// Objects are rendered objects.
type Objects []*unstructured.Unstructured

// Find returns the object of a kind and name, nil if there is none.
func (o Objects) Find(kind, name string) *unstructured.Unstructured {
	for _, object := range o {
		if object.GetKind() == kind && object.GetName() == name {
			return object
		}
	}
	return nil
}

// Decode decodes the object of a kind and name into a typed one.
func (o Objects) Decode(kind, name string, into any) error {
	object := o.Find(kind, name)
	if object == nil {
		return fmt.Errorf("no %s %s was rendered", kind, name)
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(object.Object, into, true); err != nil {
		return fmt.Errorf("decode %s %s: %w", kind, name, err)
	}
	return nil
}

// Kind returns the objects of a kind.
func (o Objects) Kind(kind string) Objects {
	var found Objects
	for _, object := range o {
		if object.GetKind() == kind {
			found = append(found, object)
		}
	}
	return found
}

// Decode reads the objects of a manifest.
func Decode(manifest []byte) (Objects, error) {
	var objects Objects
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(manifest), 4096)
	for {
		object := &unstructured.Unstructured{}
		err := decoder.Decode(&object.Object)
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, fmt.Errorf("decode a manifest: %w", err)
		}
		if len(object.Object) > 0 {
			objects = append(objects, object)
		}
	}
}
