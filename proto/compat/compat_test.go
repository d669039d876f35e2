// Package compat checks that the copy of the upstream protocol is wire-identical.
package compat

import (
	"fmt"
	"slices"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/postern-dev/postern/proto/gen/go/compat/v1alpha1"
)

// upstream is the protocol as sigs.k8s.io/secrets-store-csi-driver v1.6.0
// declares it: every provider made for it depends on these names and numbers.
var upstream = []string{
	"v1alpha1.CSIDriverProvider.Mount(v1alpha1.MountRequest) v1alpha1.MountResponse",
	"v1alpha1.CSIDriverProvider.Version(v1alpha1.VersionRequest) v1alpha1.VersionResponse",
	"v1alpha1.Error.code = 1 optional string",
	"v1alpha1.File.contents = 3 optional bytes",
	"v1alpha1.File.mode = 2 optional int32",
	"v1alpha1.File.path = 1 optional string",
	"v1alpha1.MountRequest.attributes = 1 optional string",
	"v1alpha1.MountRequest.current_object_version = 5 repeated v1alpha1.ObjectVersion",
	"v1alpha1.MountRequest.permission = 4 optional string",
	"v1alpha1.MountRequest.secrets = 2 optional string",
	"v1alpha1.MountRequest.target_path = 3 optional string",
	"v1alpha1.MountResponse.error = 2 optional v1alpha1.Error",
	"v1alpha1.MountResponse.files = 3 repeated v1alpha1.File",
	"v1alpha1.MountResponse.object_version = 1 repeated v1alpha1.ObjectVersion",
	"v1alpha1.ObjectVersion.id = 1 optional string",
	"v1alpha1.ObjectVersion.version = 2 optional string",
	"v1alpha1.VersionRequest.version = 1 optional string",
	"v1alpha1.VersionResponse.runtime_name = 2 optional string",
	"v1alpha1.VersionResponse.runtime_version = 3 optional string",
	"v1alpha1.VersionResponse.version = 1 optional string",
}

func TestWireIdentical(t *testing.T) {
	t.Parallel()
	var ours []string
	file := v1alpha1.File_compat_v1alpha1_provider_proto
	for i := range file.Messages().Len() {
		message := file.Messages().Get(i)
		for j := range message.Fields().Len() {
			ours = append(ours, describeField(message.Fields().Get(j)))
		}
	}
	for i := range file.Services().Len() {
		service := file.Services().Get(i)
		for j := range service.Methods().Len() {
			method := service.Methods().Get(j)
			ours = append(ours, fmt.Sprintf("%s(%s) %s", method.FullName(), method.Input().FullName(), method.Output().FullName()))
		}
	}
	slices.Sort(ours)
	for _, line := range ours {
		if !slices.Contains(upstream, line) {
			t.Errorf("not in the upstream protocol: %s", line)
		}
	}
	for _, line := range upstream {
		if !slices.Contains(ours, line) {
			t.Errorf("missing: %s", line)
		}
	}
}

func describeField(field protoreflect.FieldDescriptor) string {
	kind := field.Kind().String()
	if field.Message() != nil {
		kind = string(field.Message().FullName())
	}
	return fmt.Sprintf("%s = %d %s %s", field.FullName(), field.Number(), field.Cardinality(), kind)
}
