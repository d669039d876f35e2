package provider

import (
	"context"
	"slices"
	"sync/atomic"

	"google.golang.org/grpc"

	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
	providerv1 "github.com/postern-dev/postern/proto/gen/go/postern/provider/v1"
)

// Native speaks postern.provider.v1.
//
// Invariants:
//  1. A token leaves only if its audience is among those of the last Describe;
//     before the first, none does.
//  2. The same goes for the tokens that kubelet puts among the secrets.
//  3. No call is ever made twice.
type Native struct {
	client      providerv1.ProviderServiceClient
	description atomic.Pointer[providerv1.DescribeResponse]
}

var _ Provider = (*Native)(nil)

// NewNative returns the adapter for a connection, which stays the caller's.
func NewNative(conn grpc.ClientConnInterface) *Native {
	return &Native{client: providerv1.NewProviderServiceClient(conn)}
}

// Describe implements [Provider].
func (n *Native) Describe(ctx context.Context) (*providerv1.DescribeResponse, error) {
	var o outcome
	description, err := n.client.Describe(ctx, &providerv1.DescribeRequest{}, o.options()...)
	if err != nil {
		return nil, o.failure(ctx, err)
	}
	n.description.Store(description)
	return description, nil
}

// Fetch implements [Provider].
func (n *Native) Fetch(ctx context.Context, req *gatewayv1.FetchRequest) (*providerv1.FetchResponse, error) {
	tokens, err := DeclaredTokens(n.description.Load().GetAudiences(), req)
	if err != nil {
		return nil, err
	}
	var o outcome
	answer, err := n.client.Fetch(ctx, &providerv1.FetchRequest{
		VolumeId:            req.GetVolumeId(),
		Pod:                 req.GetPod(),
		Node:                req.GetNode(),
		SecretProviderClass: req.GetSecretProviderClass(),
		Parameters:          req.GetParameters(),
		Tokens:              tokens,
		Secrets:             Secrets(req),
		DefaultFileMode:     req.GetDefaultFileMode(),
		CurrentObjects:      req.GetCurrentObjects(),
		State:               req.GetProviderState(),
	}, o.options()...)
	if err != nil {
		return nil, o.failure(ctx, err)
	}
	return answer, nil
}

// Release implements [Provider]. An instance that did not declare the
// capability is not called.
func (n *Native) Release(ctx context.Context, volumeID string) error {
	if !slices.Contains(n.description.Load().GetCapabilities(), providerv1.Capability_CAPABILITY_RELEASE) {
		return nil
	}
	var o outcome
	if _, err := n.client.Release(ctx, &providerv1.ReleaseRequest{VolumeId: volumeID}, o.options()...); err != nil {
		return o.failure(ctx, err)
	}
	return nil
}
