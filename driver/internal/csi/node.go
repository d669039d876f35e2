package csi

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/postern-dev/postern/driver/internal/publish"
	"github.com/postern-dev/postern/internal/rpc"
)

// Publisher publishes and unpublishes volumes.
type Publisher interface {
	Publish(ctx context.Context, request publish.Request) error
	Unpublish(ctx context.Context, volumeID, target string) error
}

// NodeConfig is what NewNode needs.
type NodeConfig struct {
	// NodeID is the node's name in Kubernetes.
	NodeID string
	// KubeletRoot is the directory below which targets lie.
	KubeletRoot string
	Publisher   Publisher
}

// Node serves csi.v1.Node.
type Node struct {
	csi.UnimplementedNodeServer

	cfg NodeConfig
}

var _ csi.NodeServer = (*Node)(nil)

// NewNode returns the Node service.
func NewNode(cfg NodeConfig) (*Node, error) {
	switch {
	case cfg.NodeID == "":
		return nil, errors.New("csi node needs a node id")
	case !filepath.IsAbs(cfg.KubeletRoot):
		return nil, fmt.Errorf("kubelet root %q is not an absolute path", cfg.KubeletRoot)
	case cfg.Publisher == nil:
		return nil, errors.New("csi node needs a publisher")
	}
	cfg.KubeletRoot = filepath.Clean(cfg.KubeletRoot)
	return &Node{cfg: cfg}, nil
}

// NodeGetInfo tells the node's id. Inline volumes have no topology and no limit.
func (n *Node) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: n.cfg.NodeID}, nil
}

// NodeGetCapabilities tells that the driver applies the pod's fsGroup itself.
func (n *Node) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	return &csi.NodeGetCapabilitiesResponse{Capabilities: []*csi.NodeServiceCapability{{
		Type: &csi.NodeServiceCapability_Rpc{
			Rpc: &csi.NodeServiceCapability_RPC{Type: csi.NodeServiceCapability_RPC_VOLUME_MOUNT_GROUP},
		},
	}}}, nil
}

// NodePublishVolume mounts a pod's secrets. It answers InvalidArgument to a
// request that can never work, and otherwise with the code of the reason.
func (n *Node) NodePublishVolume(ctx context.Context, r *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	if err := n.validatePublish(r); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	request := publish.Request{
		VolumeID:       r.GetVolumeId(),
		Target:         r.GetTargetPath(),
		SELinuxContext: selinuxContext(r.GetVolumeCapability().GetMount().GetMountFlags()),
	}
	var err error
	if request.Group, err = mountGroup(r.GetVolumeCapability()); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if err := request.ParseContext(r.GetVolumeContext(), r.GetSecrets()); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	describeSpan(ctx, "csi.NodePublishVolume", request)
	if err := n.cfg.Publisher.Publish(ctx, request); err != nil {
		return nil, withTrace(ctx, err)
	}
	return &csi.NodePublishVolumeResponse{}, nil
}

// NodeUnpublishVolume takes the volume away. It needs nobody's help for it and
// answers OK when there is nothing.
func (n *Node) NodeUnpublishVolume(ctx context.Context, r *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	switch {
	case r.GetVolumeId() == "":
		return nil, status.Error(codes.InvalidArgument, "volume id missing in request")
	case r.GetTargetPath() == "":
		return nil, status.Error(codes.InvalidArgument, "target path missing in request")
	}
	if err := n.validateTarget(r.GetTargetPath()); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	trace.SpanFromContext(ctx).SetName("csi.NodeUnpublishVolume")
	if err := n.cfg.Publisher.Unpublish(ctx, r.GetVolumeId(), r.GetTargetPath()); err != nil {
		return nil, withTrace(ctx, err)
	}
	return &csi.NodeUnpublishVolumeResponse{}, nil
}

func (n *Node) validatePublish(r *csi.NodePublishVolumeRequest) error {
	switch {
	case r.GetVolumeCapability() == nil:
		return errors.New("volume capability missing in request")
	case r.GetVolumeCapability().GetBlock() != nil:
		return errors.New("block volumes are not supported: the volume is a directory of files")
	case r.GetVolumeId() == "":
		return errors.New("volume id missing in request")
	case r.GetTargetPath() == "":
		return errors.New("target path missing in request")
	case len(r.GetVolumeContext()) == 0:
		return errors.New("volume attributes missing in request")
	case !r.GetReadonly():
		return errors.New("readonly is not set to true in request: set csi.readOnly: true in the pod's volume")
	}
	return n.validateTarget(r.GetTargetPath())
}

// validateTarget keeps whoever reaches the socket from mounting over, or
// removing, what is not a volume of kubelet's.
func (n *Node) validateTarget(target string) error {
	switch {
	case !filepath.IsAbs(target) || slices.Contains(strings.Split(filepath.ToSlash(target), "/"), ".."):
		return fmt.Errorf("target path %q is not an absolute path without %q", target, "..")
	case !strings.HasPrefix(filepath.Clean(target), strings.TrimSuffix(n.cfg.KubeletRoot, string(filepath.Separator))+string(filepath.Separator)):
		return fmt.Errorf("target path %q is not below the kubelet's directory %s: set --kubelet-root if kubelet runs with another --root-dir", target, n.cfg.KubeletRoot)
	}
	return nil
}

// mountGroup is the pod's fsGroup, which kubelet sends as a number in text.
func mountGroup(capability *csi.VolumeCapability) (*int64, error) {
	group := capability.GetMount().GetVolumeMountGroup()
	if group == "" {
		return nil, nil //nolint:nilnil // no group is a valid answer
	}
	gid, err := strconv.ParseInt(group, 10, 64)
	if err != nil || gid < 0 {
		return nil, fmt.Errorf("volume mount group %q is not a group id", group)
	}
	return &gid, nil
}

// selinuxContext is what kubelet adds to the mount flags for drivers whose
// CSIDriver object says seLinuxMount.
func selinuxContext(flags []string) string {
	for _, flag := range flags {
		if context, ok := strings.CutPrefix(flag, "context="); ok {
			return strings.Trim(context, `"`)
		}
	}
	return ""
}

func describeSpan(ctx context.Context, name string, request publish.Request) {
	span := trace.SpanFromContext(ctx)
	span.SetName(name)
	span.SetAttributes(
		attribute.String("k8s.namespace.name", request.Pod.Namespace),
		attribute.String("k8s.pod.name", request.Pod.Name),
		attribute.String("k8s.pod.uid", request.Pod.UID),
		attribute.String("postern.secret_provider_class", request.SecretProviderClass),
		attribute.String("postern.volume_id", request.VolumeID),
	)
}

// withTrace adds the trace to what kubelet shows in the pod's events.
func withTrace(ctx context.Context, err error) error {
	span := trace.SpanContextFromContext(ctx)
	if !span.IsSampled() {
		return err
	}
	failure := *rpc.FromError(err)
	failure.Message += fmt.Sprintf(" (trace %s)", span.TraceID())
	return &failure
}
