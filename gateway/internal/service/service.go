// Package service is the gateway's RPC edge: it checks requests, and turns what
// went wrong inside into the statuses of the contract. Nothing below it speaks
// of statuses.
package service

import (
	"context"
	"errors"
	"log/slog"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/postern-dev/postern/gateway/internal/budget"
	"github.com/postern-dev/postern/gateway/internal/cache"
	"github.com/postern-dev/postern/gateway/internal/fetch"
	"github.com/postern-dev/postern/gateway/internal/flight"
	"github.com/postern-dev/postern/gateway/internal/policy"
	"github.com/postern-dev/postern/gateway/internal/registry"
	"github.com/postern-dev/postern/internal/logkey"
	"github.com/postern-dev/postern/internal/rpc"
	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
	providerv1 "github.com/postern-dev/postern/proto/gen/go/postern/provider/v1"
)

// Fetcher does the work of Fetch and Release.
type Fetcher interface {
	Fetch(ctx context.Context, req *gatewayv1.FetchRequest) (fetch.Result, error)
	Release(ctx context.Context, volumeID string)
	Describe(ctx context.Context, name string) (fetch.Description, error)
	Fetches
}

// Fetches tells what the work has come to.
type Fetches interface {
	Usage(name string) fetch.Usage
	Flights() []flight.Flight
	Counts() fetch.Counts
}

// Providers knows who is there.
type Providers interface {
	Snapshot() []registry.ProviderStatus
}

// Budgets knows how much of them is used.
type Budgets interface {
	Status(provider string) (budget.Budget, []budget.Store)
}

// Cache knows what is kept.
type Cache interface {
	Stats() cache.Stats
}

// Policy knows which rules are in force.
type Policy interface {
	Status() policy.Status
}

var (
	_ Fetcher   = (*fetch.Fetcher)(nil)
	_ Providers = (*registry.Registry)(nil)
	_ Budgets   = (*budget.Budgets)(nil)
	_ Cache     = (*cache.Cache)(nil)
	_ Policy    = (*policy.Enforcer)(nil)
)

// Config is what a Service needs. Every field but Version is required.
type Config struct {
	Fetcher   Fetcher
	Providers Providers
	Budgets   Budgets
	Cache     Cache
	Policy    Policy
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
	if cfg.Fetcher == nil || cfg.Providers == nil || cfg.Budgets == nil || cfg.Cache == nil || cfg.Policy == nil {
		return nil, errors.New("service: fetcher, providers, budgets, cache and policy are required")
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
	// The response shares the answer's memory until it is encoded.
	rpc.AfterReply(ctx, result.Answer.Release)
	answer := result.Answer.Response()
	resp := &gatewayv1.FetchResponse{
		NotModified:  result.NotModified,
		RefreshAfter: answer.GetRefreshAfter(),
		Leases:       answer.GetLeases(),
		FetchedAt:    timestamppb.New(result.Answer.FetchedAt()),
		Source:       result.Source,
		// The answer is this volume's own if it has any.
		ProviderState: answer.GetState(),
	}
	if !result.NotModified {
		resp.Files, resp.Objects = answer.GetFiles(), answer.GetObjects()
	}
	return resp, nil
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
	description, err := s.cfg.Fetcher.Describe(ctx, req.GetProvider())
	switch {
	case err != nil:
		return nil, failure(err, req.GetProvider(), "")
	case description.Legacy:
		return &gatewayv1.DescribeResponse{Description: &providerv1.DescribeResponse{}}, nil
	default:
		return &gatewayv1.DescribeResponse{Description: description.DescribeResponse}, nil
	}
}
