package service

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/postern-dev/postern/gateway/internal/budget"
	"github.com/postern-dev/postern/gateway/internal/registry"
	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
)

// Status tells which providers are there and how they are, and what the
// gateway is doing. It names no object, and holds no value and no token.
func (s *Service) Status(ctx context.Context, _ *gatewayv1.StatusRequest) (*gatewayv1.StatusResponse, error) {
	return s.Report(ctx)
}

// Report is what Status answers.
func (s *Service) Report(context.Context) (*gatewayv1.StatusResponse, error) {
	resp := &gatewayv1.StatusResponse{
		Version: s.cfg.Version,
		Cache:   s.cacheStatus(),
		Flights: s.flights(),
		Policy:  s.policyStatus(),
	}
	for _, p := range s.cfg.Providers.Snapshot() {
		resp.Providers = append(resp.Providers, s.providerStatus(p))
	}
	return resp, nil
}

func (s *Service) providerStatus(p registry.ProviderStatus) *gatewayv1.ProviderStatus {
	usage := s.cfg.Fetcher.Usage(p.Name)
	status := &gatewayv1.ProviderStatus{Name: p.Name, InFlight: usage.InFlight, Volumes: usage.Volumes}
	for _, i := range p.Instances {
		status.Instances = append(status.Instances, instanceOf(i))
	}
	if p.Alias {
		return status // the budget is that of the name which it stands for
	}
	b, stores := s.cfg.Budgets.Status(p.Name)
	status.Budget = &gatewayv1.BudgetStatus{
		Calls:     b.Calls,
		MaxCalls:  b.MaxCalls,
		Queued:    b.Queued,
		MaxQueued: b.MaxQueued,
		MaxRate:   b.MaxRate,
		Refused:   b.Refused,
	}
	for _, store := range stores {
		status.Stores = append(status.Stores, &gatewayv1.StoreStatus{
			Store:    store.Store,
			State:    storeStateOf(store.State),
			Calls:    store.Calls,
			MaxCalls: store.MaxCalls,
			Failures: store.Failures,
			Reason:   store.Reason,
			RetryAt:  timestampOf(store.RetryAt),
		})
	}
	return status
}

func (s *Service) cacheStatus() *gatewayv1.CacheStatus {
	stats, counts := s.cfg.Cache.Stats(), s.cfg.Fetcher.Counts()
	return &gatewayv1.CacheStatus{
		Entries:   uint32(stats.Entries),
		Bytes:     uint64(stats.Bytes),
		MaxBytes:  uint64(stats.MaxBytes),
		Hits:      counts.Hits,
		Joins:     counts.Joins,
		Misses:    counts.Misses,
		Stale:     counts.Stale,
		Evictions: stats.Evictions.Size,
	}
}

func (s *Service) flights() []*gatewayv1.FlightStatus {
	var flights []*gatewayv1.FlightStatus
	for _, f := range s.cfg.Fetcher.Flights() {
		flights = append(flights, &gatewayv1.FlightStatus{
			Provider:            f.Key.Provider,
			Namespace:           f.Key.Namespace,
			ServiceAccount:      f.Key.ServiceAccount,
			SecretProviderClass: f.Key.SecretProviderClass,
			PodUid:              f.Key.PodUID,
			Waiters:             uint32(f.Waiters),
			StartedAt:           timestampOf(f.StartedAt),
		})
	}
	return flights
}

func (s *Service) policyStatus() *gatewayv1.PolicyStatus {
	status := s.cfg.Policy.Status()
	return &gatewayv1.PolicyStatus{Rules: status.Rules, LoadedAt: timestampOf(status.LoadedAt), Error: status.Error}
}

// timestampOf is nil for the zero time.
func timestampOf(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func storeStateOf(state budget.State) gatewayv1.StoreStatus_State {
	switch state {
	case budget.Closed:
		return gatewayv1.StoreStatus_STATE_CLOSED
	case budget.Open:
		return gatewayv1.StoreStatus_STATE_OPEN
	case budget.HalfOpen:
		return gatewayv1.StoreStatus_STATE_HALF_OPEN
	case budget.Throttled:
		return gatewayv1.StoreStatus_STATE_THROTTLED
	default:
		return gatewayv1.StoreStatus_STATE_UNSPECIFIED
	}
}

func instanceOf(i registry.InstanceStatus) *gatewayv1.Instance {
	instance := &gatewayv1.Instance{
		Socket:      i.Socket,
		Version:     i.Version,
		State:       stateOf(i.State),
		Protocol:    gatewayv1.Instance_PROTOCOL_PROVIDER_V1,
		ConnectedAt: timestampOf(i.ConnectedAt),
		Message:     i.Message,
	}
	if i.Protocol == registry.Legacy {
		instance.Protocol = gatewayv1.Instance_PROTOCOL_CSI_V1ALPHA1
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
