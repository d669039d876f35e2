package charts

import (
	"bytes"
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// oldest is a version whose API servers know all that is in plain manifests.
const oldest = "1.30.0"

const deployHeader = `# %s
#
# Made from charts/%s with its default values by "make deploy"; for more than trying out, use the chart.
`

// Deploy renders the plain manifests for those who use no Helm, by their names
// in deploy.
func (h Helm) Deploy(ctx context.Context) (map[string]string, error) {
	umbrella, err := load(h.Root, h.Root+"/charts/"+Umbrella)
	if err != nil {
		return nil, err
	}
	files := map[string]string{}
	add := func(name, what string, o Options, first ...*unstructured.Unstructured) error {
		o.KubeVersion = oldest
		objects, err := h.Render(ctx, o)
		if err != nil {
			return err
		}
		text, err := plain(append(first, objects...))
		files[name] = fmt.Sprintf(deployHeader, what, o.Chart) + text
		return err
	}
	if err := add("crds.yaml", "The custom resources. Apply it first.", Options{Chart: CRDs}); err != nil {
		return nil, err
	}
	// kubelet sends no token that nobody asks for: those of all providers, since
	// a plain manifest cannot know which are there.
	var audiences []any
	for _, provider := range umbrella.Providers() {
		name := "provider-" + provider
		what := "Provider " + provider + ", beside postern.yaml."
		only := fmt.Sprintf("{driver: {enabled: false}, gateway: {enabled: false}, %s: {enabled: true}}", name)
		if err := add(name+".yaml", what, Options{Chart: Umbrella, Values: []string{only}}); err != nil {
			return nil, err
		}
		rendered, err := h.Render(ctx, Options{Chart: Umbrella, Values: []string{fmt.Sprintf("{%s: {enabled: true}}", name)}})
		if err != nil {
			return nil, err
		}
		requests, _, err := unstructured.NestedSlice(rendered.Kind("CSIDriver")[0].Object, "spec", "tokenRequests")
		if err != nil {
			return nil, fmt.Errorf("token requests of %s: %w", name, err)
		}
		audiences = append(audiences, requests...)
	}
	tokens, err := yaml.Marshal(map[string]any{"driver": map[string]any{"tokenRequests": audiences}})
	if err != nil {
		return nil, fmt.Errorf("write values: %w", err)
	}
	return files, add("postern.yaml", "Driver and gateway.", Options{Chart: Umbrella, Values: []string{string(tokens)}}, namespace())
}

// namespace is what "helm install --create-namespace" would make, and lets the
// driver in where pod security is enforced.
func namespace() *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Namespace",
		"metadata": map[string]any{
			"name": Namespace, "labels": map[string]any{"pod-security.kubernetes.io/enforce": "privileged"},
		},
	}}
}

// plain writes objects as YAML, without what only Helm has a use for.
func plain(objects Objects) (string, error) {
	var text bytes.Buffer
	for _, object := range objects {
		labels := object.GetLabels()
		delete(labels, "helm.sh/chart")
		delete(labels, "app.kubernetes.io/managed-by")
		object.SetLabels(labels)
		encoded, err := yaml.Marshal(object.Object)
		if err != nil {
			return "", fmt.Errorf("write %s %s: %w", object.GetKind(), object.GetName(), err)
		}
		text.WriteString("---\n")
		text.Write(encoded)
	}
	return text.String(), nil
}
