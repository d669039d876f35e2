package v1_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/runtime"

	v1 "github.com/postern-dev/postern/driver/api/v1"
	"github.com/postern-dev/postern/driver/api/v1alpha1" //nolint:staticcheck // deprecated for users, served all the same
)

const (
	// Objects as made for the upstream driver, with every field that it has.
	classJSON = `{"kind":"SecretProviderClass","apiVersion":"secrets-store.csi.x-k8s.io/v1",
		"metadata":{"name":"a","namespace":"b"},
		"spec":{"provider":"vault","parameters":{"k":"v"},"secretObjects":[{"secretName":"s","type":"Opaque",
			"labels":{"l":"1"},"annotations":{"a":"1"},"data":[{"objectName":"o","key":"k"}]}]},
		"status":{}}`
	statusJSON = `{"kind":"SecretProviderClassPodStatus","apiVersion":"secrets-store.csi.x-k8s.io/v1",
		"metadata":{"name":"a","namespace":"b"},
		"status":{"podName":"p","secretProviderClassName":"c","mounted":true,"targetPath":"/t","objects":[{"id":"i","version":"1"}]}}`
)

func TestTypes_KeepUpstreamFields(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, json string
		object     any
	}{
		{name: "class", json: classJSON, object: &v1.SecretProviderClass{}},
		{name: "status", json: statusJSON, object: &v1.SecretProviderClassPodStatus{}},
		{name: "v1alpha1 class", json: strings.Replace(classJSON, `"status":{}`, `"status":{"byPod":[{"id":"i","namespace":"n"}]}`, 1), object: &v1alpha1.SecretProviderClass{}},
		{name: "v1alpha1 status", json: statusJSON, object: &v1alpha1.SecretProviderClassPodStatus{}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			decoder := json.NewDecoder(strings.NewReader(test.json))
			decoder.DisallowUnknownFields()
			if err := decoder.Decode(test.object); err != nil {
				t.Fatalf("Decode: %v", err)
			}
			encoded, err := json.Marshal(test.object)
			if err != nil {
				t.Fatalf("Marshal: %v", err)
			}
			if diff := cmp.Diff(untyped(t, []byte(test.json)), untyped(t, encoded)); diff != "" {
				t.Errorf("after a round trip (-want +got):\n%s", diff)
			}
		})
	}
}

func untyped(t *testing.T, encoded []byte) map[string]any {
	t.Helper()
	var decoded map[string]any
	if err := json.Unmarshal(encoded, &decoded); err != nil {
		t.Fatalf("Unmarshal: %v", err)
	}
	return decoded
}

func TestAddToScheme(t *testing.T) {
	t.Parallel()
	scheme := runtime.NewScheme()
	if err := v1.AddToScheme(scheme); err != nil {
		t.Fatalf("AddToScheme: %v", err)
	}
	for _, kind := range []string{v1.KindSecretProviderClass, v1.KindSecretProviderClassPodStatus} {
		if !scheme.Recognizes(v1.GroupVersion().WithKind(kind)) || !scheme.Recognizes(v1.GroupVersion().WithKind(kind+"List")) {
			t.Errorf("%s or its list is not known", kind)
		}
	}
}
