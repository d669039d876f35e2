// Package csi serves the Container Storage Interface's Identity and Node
// services: it checks what kubelet sends and has the publisher do it.
//
// The rules of each call are those of the CSI specification 1.12,
// https://github.com/container-storage-interface/spec/blob/master/spec.md, and
// where it leaves a choice the upstream driver's.
package csi

import (
	"context"
	"errors"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// DriverName is the name by which pods and the CSIDriver object know us.
const DriverName = "secrets-store.csi.k8s.io"

// Identity serves csi.v1.Identity.
type Identity struct {
	csi.UnimplementedIdentityServer

	version string
	check   func(context.Context) error
}

// NewIdentity returns the Identity service. check tells whether the driver can
// do its work on this node.
func NewIdentity(version string, check func(context.Context) error) (*Identity, error) {
	if version == "" || check == nil {
		return nil, errors.New("csi identity needs a version and a check")
	}
	return &Identity{version: version, check: check}, nil
}

var _ csi.IdentityServer = (*Identity)(nil)

// GetPluginInfo tells name and version.
func (i *Identity) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: DriverName, VendorVersion: i.version}, nil
}

// GetPluginCapabilities tells that there is no controller: volumes are inline.
func (i *Identity) GetPluginCapabilities(context.Context, *csi.GetPluginCapabilitiesRequest) (*csi.GetPluginCapabilitiesResponse, error) {
	return &csi.GetPluginCapabilitiesResponse{}, nil
}

// Probe fails when this process cannot mount volumes, which a restart may
// mend. A gateway or provider that is away is no reason to restart the driver:
// publishes wait for them, and readiness tells.
func (i *Identity) Probe(ctx context.Context, _ *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	if err := i.check(ctx); err != nil {
		return nil, status.Errorf(codes.FailedPrecondition, "the driver cannot mount volumes: %v", err)
	}
	return &csi.ProbeResponse{Ready: wrapperspb.Bool(true)}, nil
}
