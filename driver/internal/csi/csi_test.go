package csi_test

import (
	"context"
	"errors"
	"maps"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	csiserver "github.com/postern-dev/postern/driver/internal/csi"
	"github.com/postern-dev/postern/driver/internal/publish"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const target = "/var/lib/kubelet/pods/uid-1/volumes/kubernetes.io~csi/secrets/mount"

// recordingPublisher keeps the last request.
type recordingPublisher struct {
	request     publish.Request
	unpublished string
	err         error
}

func (p *recordingPublisher) Publish(_ context.Context, request publish.Request) error {
	p.request = request
	return p.err
}

func (p *recordingPublisher) Unpublish(_ context.Context, volumeID, target string) error {
	p.unpublished = volumeID + " " + target
	return p.err
}

func newNode(t *testing.T, publisher csiserver.Publisher) *csiserver.Node {
	t.Helper()
	node, err := csiserver.NewNode(csiserver.NodeConfig{NodeID: "node-1", KubeletRoot: "/var/lib/kubelet", Publisher: publisher})
	if err != nil {
		t.Fatal(err)
	}
	return node
}

func validPublish() *csi.NodePublishVolumeRequest {
	return &csi.NodePublishVolumeRequest{
		VolumeId:   "csi-1",
		TargetPath: target,
		Readonly:   true,
		VolumeCapability: &csi.VolumeCapability{
			AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{
				VolumeMountGroup: "2000",
				MountFlags:       []string{`context="system_u:object_r:container_file_t:s0:c1,c2"`},
			}},
		},
		VolumeContext: map[string]string{
			"secretProviderClass":              "database",
			"csi.storage.k8s.io/pod.name":      "web",
			"csi.storage.k8s.io/pod.namespace": "shop",
			"csi.storage.k8s.io/pod.uid":       "uid-1",
		},
	}
}

func TestNodePublishVolume(t *testing.T) {
	t.Parallel()
	publisher := &recordingPublisher{}
	if _, err := newNode(t, publisher).NodePublishVolume(t.Context(), validPublish()); err != nil {
		t.Fatal(err)
	}
	got := publisher.request
	if got.VolumeID != "csi-1" || got.Target != target || got.SecretProviderClass != "database" || got.Pod.Name != "web" {
		t.Errorf("request: %+v", got)
	}
	if got.Group == nil || *got.Group != 2000 {
		t.Errorf("group: %v", got.Group)
	}
	if got.SELinuxContext != "system_u:object_r:container_file_t:s0:c1,c2" {
		t.Errorf("SELinux context: %q", got.SELinuxContext)
	}
}

func TestNodePublishVolume_InvalidArgument(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		change func(*csi.NodePublishVolumeRequest)
		want   string
	}{
		"no capability": {
			func(r *csi.NodePublishVolumeRequest) { r.VolumeCapability = nil },
			"volume capability missing in request",
		},
		"block": {
			func(r *csi.NodePublishVolumeRequest) {
				r.VolumeCapability = &csi.VolumeCapability{AccessType: &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}}}
			},
			"block volumes are not supported: the volume is a directory of files",
		},
		"no volume id": {
			func(r *csi.NodePublishVolumeRequest) { r.VolumeId = "" },
			"volume id missing in request",
		},
		"no target": {
			func(r *csi.NodePublishVolumeRequest) { r.TargetPath = "" },
			"target path missing in request",
		},
		"no attributes": {
			func(r *csi.NodePublishVolumeRequest) { r.VolumeContext = nil },
			"volume attributes missing in request",
		},
		"no class": {
			func(r *csi.NodePublishVolumeRequest) { delete(r.VolumeContext, "secretProviderClass") },
			"volumeAttributes has no secretProviderClass: name the SecretProviderClass to mount",
		},
		"not read-only": {
			func(r *csi.NodePublishVolumeRequest) { r.Readonly = false },
			"readonly is not set to true in request: set csi.readOnly: true in the pod's volume",
		},
		"relative target": {
			func(r *csi.NodePublishVolumeRequest) { r.TargetPath = "pods/mount" },
			`target path "pods/mount" is not an absolute path without ".."`,
		},
		"target that climbs": {
			func(r *csi.NodePublishVolumeRequest) { r.TargetPath = "/var/lib/kubelet/../../etc" },
			`target path "/var/lib/kubelet/../../etc" is not an absolute path without ".."`,
		},
		"target elsewhere": {
			func(r *csi.NodePublishVolumeRequest) { r.TargetPath = "/var/lib/kubelet2/mount" },
			`target path "/var/lib/kubelet2/mount" is not below the kubelet's directory /var/lib/kubelet: set --kubelet-root if kubelet runs with another --root-dir`,
		},
		"the root itself": {
			func(r *csi.NodePublishVolumeRequest) { r.TargetPath = "/var/lib/kubelet" },
			`target path "/var/lib/kubelet" is not below the kubelet's directory /var/lib/kubelet: set --kubelet-root if kubelet runs with another --root-dir`,
		},
		"bad group": {
			func(r *csi.NodePublishVolumeRequest) { r.VolumeCapability.GetMount().VolumeMountGroup = "wheel" },
			`volume mount group "wheel" is not a group id`,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			publisher := &recordingPublisher{}
			request, ok := proto.Clone(validPublish()).(*csi.NodePublishVolumeRequest)
			if !ok {
				t.Fatal("clone")
			}
			test.change(request)
			_, err := newNode(t, publisher).NodePublishVolume(t.Context(), request)
			if status.Code(err) != codes.InvalidArgument || status.Convert(err).Message() != test.want {
				t.Errorf("got  %v\nwant %s", err, test.want)
			}
			if publisher.request.VolumeID != "" {
				t.Error("the publisher was called")
			}
		})
	}
}

func TestNodeUnpublishVolume(t *testing.T) {
	t.Parallel()
	publisher := &recordingPublisher{}
	valid := map[string]string{"id": "csi-1", "target": target}
	call := func(change string, value string) error {
		fields := maps.Clone(valid)
		fields[change] = value
		_, err := newNode(t, publisher).NodeUnpublishVolume(t.Context(), &csi.NodeUnpublishVolumeRequest{VolumeId: fields["id"], TargetPath: fields["target"]})
		return err
	}
	if err := call("id", "csi-1"); err != nil || publisher.unpublished != "csi-1 "+target {
		t.Errorf("unpublished %q, %v", publisher.unpublished, err)
	}
	for _, bad := range [][3]string{
		{"id", "", "volume id missing in request"},
		{"target", "", "target path missing in request"},
		{"target", "/etc", `target path "/etc" is not below the kubelet's directory /var/lib/kubelet: set --kubelet-root if kubelet runs with another --root-dir`},
	} {
		if err := call(bad[0], bad[1]); status.Code(err) != codes.InvalidArgument || status.Convert(err).Message() != bad[2] {
			t.Errorf("%s %q: %v", bad[0], bad[1], err)
		}
	}
}

func TestNode_TellsWhatItCan(t *testing.T) {
	t.Parallel()
	node := newNode(t, &recordingPublisher{})
	info, err := node.NodeGetInfo(t.Context(), &csi.NodeGetInfoRequest{})
	if err != nil || info.GetNodeId() != "node-1" {
		t.Errorf("info: %v, %v", info, err)
	}
	capabilities, err := node.NodeGetCapabilities(t.Context(), &csi.NodeGetCapabilitiesRequest{})
	if err != nil || len(capabilities.GetCapabilities()) != 1 ||
		capabilities.GetCapabilities()[0].GetRpc().GetType() != csi.NodeServiceCapability_RPC_VOLUME_MOUNT_GROUP {
		t.Errorf("capabilities: %v, %v", capabilities, err)
	}
}

func TestIdentity(t *testing.T) {
	t.Parallel()
	broken := errors.New("operation not permitted")
	var check error
	identity, err := csiserver.NewIdentity("v1.2.3", func(context.Context) error { return check })
	if err != nil {
		t.Fatal(err)
	}
	info, err := identity.GetPluginInfo(t.Context(), &csi.GetPluginInfoRequest{})
	if err != nil || info.GetName() != "secrets-store.csi.k8s.io" || info.GetVendorVersion() != "v1.2.3" {
		t.Errorf("info: %v, %v", info, err)
	}
	probe, err := identity.Probe(t.Context(), &csi.ProbeRequest{})
	if err != nil || !probe.GetReady().GetValue() {
		t.Errorf("probe: %v, %v", probe, err)
	}
	check = broken
	if _, err := identity.Probe(t.Context(), &csi.ProbeRequest{}); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("probe of a broken driver: %v", err)
	}
}
