// Package service is the gateway's RPC edge: it checks requests, and turns what
// went wrong inside into the statuses of the contract. Nothing below it speaks
// of statuses.
package service

import (
	"context"
	"errors"
	"log/slog"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/postern-dev/postern/gateway/internal/fetch"
	"github.com/postern-dev/postern/gateway/internal/registry"
	"github.com/postern-dev/postern/internal/logkey"
	"github.com/postern-dev/postern/internal/rpc"
	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
	providerv1 "github.com/postern-dev/postern/proto/gen/go/postern/provider/v1"
)

// Fetcher does the work of Fetch and Release.
type Fetcher interface {
	Fetch(ctx context.Context, req *gatewayv1.FetchRequest) (*fetch.Result, error)
	Release(ctx context.Context, volumeID string)
	Usage(name string) fetch.Usage
	Acquire(ctx context.Context, name string) (*registry.Handle, error)
}

// Providers knows who is there.
type Providers interface {
	Snapshot() []registry.ProviderStatus
}

var (
	_ Fetcher   = (*fetch.Fetcher)(nil)
	_ Providers = (*registry.Registry)(nil)
)

// Config is what a Service needs. Fetcher and Providers are required.
type Config struct {
	Fetcher   Fetcher
	Providers Providers
	// Version is the gateway's own.
	Version string
}

// Service implements postern.gateway.v1.GatewayService.
type Service struct {
	gatewayv1.UnimplementedGatewayServiceServer
	cfg Config
}

var _ gatewayv1.GatewayServiceServer = (*Service)(nil)

// New returns the service.
func New(cfg Config) (*Service, error) {
	if cfg.Fetcher == nil || cfg.Providers == nil {
		return nil, errors.New("service: fetcher and providers are required")
	}
	return &Service{cfg: cfg}, nil
}

// Fetch gets all objects of one SPC for one pod.
func (s *Service) Fetch(ctx context.Context, req *gatewayv1.FetchRequest) (*gatewayv1.FetchResponse, error) {
	if err := validateFetch(req); err != nil {
		return nil, err
	}
	rpc.AddLogAttrs(ctx,
		slog.String(logkey.Provider, req.GetProvider()),
		slog.String(logkey.SecretProviderClass, req.GetSecretProviderClass()),
		slog.String(logkey.Namespace, req.GetPod().GetNamespace()),
		slog.String(logkey.Pod, req.GetPod().GetName()),
		slog.String(logkey.VolumeID, req.GetVolumeId()))
	result, err := s.cfg.Fetcher.Fetch(ctx, req)
	if err != nil {
		return nil, failure(err, req.GetProvider(), req.GetSecretProviderClass())
	}
	return &gatewayv1.FetchResponse{
		NotModified:  result.Answer.GetNotModified(),
		Files:        result.Answer.GetFiles(),
		Objects:      result.Answer.GetObjects(),
		RefreshAfter: result.Answer.GetRefreshAfter(),
		Leases:       result.Answer.GetLeases(),
		FetchedAt:    timestamppb.New(result.FetchedAt),
		Source:       result.Source,
	}, nil
}

// Release says that a volume is gone. It succeeds whether or not the volume
// was known: the provider is told as well as can be.
func (s *Service) Release(ctx context.Context, req *gatewayv1.ReleaseRequest) (*gatewayv1.ReleaseResponse, error) {
	if err := validateRelease(req); err != nil {
		return nil, err
	}
	rpc.AddLogAttrs(ctx, slog.String(logkey.VolumeID, req.GetVolumeId()))
	s.cfg.Fetcher.Release(ctx, req.GetVolumeId())
	return &gatewayv1.ReleaseResponse{}, nil
}

// Describe tells what a provider needs from Kubernetes: of a legacy one,
// nothing.
func (s *Service) Describe(ctx context.Context, req *gatewayv1.DescribeRequest) (*gatewayv1.DescribeResponse, error) {
	if err := validateDescribe(req); err != nil {
		return nil, err
	}
	rpc.AddLogAttrs(ctx, slog.String(logkey.Provider, req.GetProvider()))
	handle, err := s.cfg.Fetcher.Acquire(ctx, req.GetProvider())
	if err != nil {
		return nil, failure(err, req.GetProvider(), "")
	}
	defer handle.Done()
	if handle.Protocol() == registry.Legacy {
		return &gatewayv1.DescribeResponse{Description: &providerv1.DescribeResponse{}}, nil
	}
	return &gatewayv1.DescribeResponse{Description: handle.Description}, nil
}

// Status tells which providers are there and how they are.
func (s *Service) Status(context.Context, *gatewayv1.StatusRequest) (*gatewayv1.StatusResponse, error) {
	resp := &gatewayv1.StatusResponse{Version: s.cfg.Version}
	for _, p := range s.cfg.Providers.Snapshot() {
		usage := s.cfg.Fetcher.Usage(p.Name)
		status := &gatewayv1.ProviderStatus{Name: p.Name, InFlight: usage.InFlight, Volumes: usage.Volumes}
		for _, i := range p.Instances {
			status.Instances = append(status.Instances, instanceOf(i))
		}
		resp.Providers = append(resp.Providers, status)
	}
	return resp, nil
}

func instanceOf(i registry.InstanceStatus) *gatewayv1.Instance {
	instance := &gatewayv1.Instance{
		Socket:   i.Socket,
		Version:  i.Version,
		State:    stateOf(i.State),
		Protocol: gatewayv1.Instance_PROTOCOL_PROVIDER_V1,
		Message:  i.Message,
	}
	if i.Protocol == registry.Legacy {
		instance.Protocol = gatewayv1.Instance_PROTOCOL_CSI_V1ALPHA1
	}
	if !i.ConnectedAt.IsZero() {
		instance.ConnectedAt = timestamppb.New(i.ConnectedAt)
	}
	return instance
}

func stateOf(state registry.State) gatewayv1.Instance_State {
	switch state {
	case registry.Connecting:
		return gatewayv1.Instance_STATE_CONNECTING
	case registry.Serving:
		return gatewayv1.Instance_STATE_SERVING
	case registry.NotServing:
		return gatewayv1.Instance_STATE_NOT_SERVING
	case registry.Draining:
		return gatewayv1.Instance_STATE_DRAINING
	case registry.Refused:
		return gatewayv1.Instance_STATE_REFUSED
	default:
		return gatewayv1.Instance_STATE_UNSPECIFIED
	}
}
