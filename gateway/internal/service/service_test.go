package service_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/postern-dev/postern/gateway/internal/answer"
	"github.com/postern-dev/postern/gateway/internal/budget"
	"github.com/postern-dev/postern/gateway/internal/cache"
	"github.com/postern-dev/postern/gateway/internal/fetch"
	"github.com/postern-dev/postern/gateway/internal/flight"
	"github.com/postern-dev/postern/gateway/internal/key"
	"github.com/postern-dev/postern/gateway/internal/policy"
	"github.com/postern-dev/postern/gateway/internal/providertest"
	"github.com/postern-dev/postern/gateway/internal/registry"
	"github.com/postern-dev/postern/gateway/internal/service"
	"github.com/postern-dev/postern/internal/rpc"
	"github.com/postern-dev/postern/internal/telemetry"
	"github.com/postern-dev/postern/internal/unixsocket"
	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
	providerv1 "github.com/postern-dev/postern/proto/gen/go/postern/provider/v1"
	secretv1 "github.com/postern-dev/postern/proto/gen/go/postern/secret/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fetcher answers what it is told to.
type fetcher struct {
	result   fetch.Result
	err      error
	released chan string
	registry *registry.Registry
}

func (f *fetcher) Fetch(context.Context, *gatewayv1.FetchRequest) (fetch.Result, error) {
	return f.result, f.err
}
func (f *fetcher) Release(_ context.Context, id string) { f.released <- id }
func (f *fetcher) Usage(string) fetch.Usage             { return fetch.Usage{InFlight: 2, Volumes: 3} }

func (f *fetcher) Describe(ctx context.Context, name string) (fetch.Description, error) {
	handle, err := f.registry.Acquire(ctx, name)
	if err != nil {
		return fetch.Description{}, err
	}
	defer handle.Done()
	return fetch.Description{DescribeResponse: handle.Description, Provider: name, Legacy: handle.Protocol == registry.Legacy}, nil
}

func (*fetcher) Flights() []flight.Flight {
	return []flight.Flight{{
		Key:     key.Key{Provider: "vault", Namespace: "shop", ServiceAccount: "web", SecretProviderClass: "db", PodUID: "8a6f", VolumeID: "csi-1"},
		Waiters: 2, StartedAt: time.Unix(1000, 0),
	}}
}

func (*fetcher) Counts() fetch.Counts { return fetch.Counts{Hits: 1, Joins: 2, Misses: 3, Stale: 4} }

// figures are what the other parts report.
type figures struct{}

func (figures) Status(provider string) (budget.Budget, []budget.Store) {
	if provider != "vault" {
		return budget.Budget{MaxCalls: 64}, nil
	}
	return budget.Budget{Calls: 1, MaxCalls: 64, Queued: 2, MaxQueued: 1024, MaxRate: 20, Refused: 3}, []budget.Store{
		{Store: "vaultAddress=https://a", State: budget.Open, MaxCalls: 1, Failures: 5, Reason: "STORE_UNAVAILABLE", RetryAt: time.Unix(2000, 0)},
		{Store: "vaultAddress=https://b", State: budget.Closed, Calls: 1, MaxCalls: 16},
		{Store: "vaultAddress=https://c", State: budget.HalfOpen, MaxCalls: 1},
		{Store: "vaultAddress=https://d", State: budget.Throttled, MaxCalls: 8},
	}
}

func (figures) Stats() cache.Stats {
	return cache.Stats{Entries: 5, Bytes: 6, MaxBytes: 7, Evictions: cache.Evictions{Size: 8, Age: 9, Dropped: 10}}
}

// inForce is a policy.
type inForce struct{}

func (inForce) Status() policy.Status {
	return policy.Status{Rules: []string{"own-paths"}, LoadedAt: time.Unix(3000, 0), Error: "line 3"}
}

type edge struct {
	client gatewayv1.GatewayServiceClient
	// providers is where the registry looks.
	native, legacy string
	// stop ends the server.
	stop func()
}

// serve runs the service behind the product's own server.
func serve(t *testing.T, f *fetcher, uids ...uint32) *edge {
	t.Helper()
	dir, err := os.MkdirTemp("", "gw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	e := &edge{native: filepath.Join(dir, "n"), legacy: filepath.Join(dir, "l")}
	tel := telemetry.Discard()
	providers, err := registry.New(registry.Config{
		NativeDir: e.native, LegacyDirs: []string{e.legacy}, MaxMessageBytes: 1 << 20, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	f.registry = providers
	svc, err := service.New(service.Config{
		Fetcher: f, Providers: providers, Budgets: figures{}, Cache: figures{}, Policy: inForce{}, Version: "1.2.3",
	})
	if err != nil {
		t.Fatal(err)
	}
	server, err := rpc.NewServer(rpc.Config{Name: "gateway", Telemetry: tel, Authorize: service.Authorize(uids)})
	if err != nil {
		t.Fatal(err)
	}
	gatewayv1.RegisterGatewayServiceServer(server, svc)
	path := filepath.Join(dir, "gateway.sock")
	listener, err := unixsocket.Listen(t.Context(), unixsocket.ListenConfig{Path: path, UID: unixsocket.Unowned, GID: unixsocket.Unowned})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 2)
	go func() { done <- server.Run(ctx, listener) }()
	go func() { done <- providers.Run(ctx) }()
	conn, err := unixsocket.Dial(path, unixsocket.DialConfig{})
	if err != nil {
		t.Fatal(err)
	}
	e.stop = sync.OnceFunc(func() {
		_ = conn.Close()
		cancel()
		if err := errors.Join(<-done, <-done); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(e.stop)
	e.client = gatewayv1.NewGatewayServiceClient(conn)
	return e
}

func self() uint32 { return uint32(os.Getuid()) }

func TestFetch(t *testing.T) {
	t.Parallel()
	at := time.Unix(1234, 0)
	contents := []byte("s")
	f := &fetcher{result: fetch.Result{
		Answer: answer.New(&providerv1.FetchResponse{
			Files:        []*secretv1.File{{Path: "a", Mode: 0o600, Contents: contents}},
			Objects:      []*secretv1.ObjectVersion{{Id: "a", Version: "1"}},
			Sharing:      secretv1.Sharing_SHARING_NAMESPACE,
			FreshFor:     durationpb.New(time.Second),
			RefreshAfter: durationpb.New(time.Minute),
			Leases:       []*secretv1.Lease{{ObjectId: "a", Duration: durationpb.New(time.Hour), Renewable: true}},
			State:        []byte("state"),
		}, at),
		Source: gatewayv1.Source_SOURCE_PROVIDER,
	}}
	e := serve(t, f, self())
	got, err := e.client.Fetch(t.Context(), providertest.Request("vault"))
	if err != nil {
		t.Fatal(err)
	}
	want := &gatewayv1.FetchResponse{
		Files:        []*secretv1.File{{Path: "a", Mode: 0o600, Contents: []byte("s")}},
		Objects:      []*secretv1.ObjectVersion{{Id: "a", Version: "1"}},
		RefreshAfter: durationpb.New(time.Minute),
		Leases:       []*secretv1.Lease{{ObjectId: "a", Duration: durationpb.New(time.Hour), Renewable: true}},
		FetchedAt:    timestamppb.New(at),
		Source:       gatewayv1.Source_SOURCE_PROVIDER, ProviderState: []byte("state"),
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("answer (-want +got):\n%s", diff)
	}
	e.stop() // the calls are over, and with them what they held
	if contents[0] != 0 {
		t.Error("the contents are not overwritten")
	}
}

// What a volume holds already is not sent again.
func TestFetch_NotModified(t *testing.T) {
	t.Parallel()
	at := time.Unix(1234, 0)
	f := &fetcher{result: fetch.Result{
		Answer: answer.New(&providerv1.FetchResponse{
			Files:        []*secretv1.File{{Path: "a", Contents: []byte("s")}},
			Objects:      []*secretv1.ObjectVersion{{Id: "a", Version: "1"}},
			RefreshAfter: durationpb.New(time.Minute),
		}, at),
		NotModified: true, Source: gatewayv1.Source_SOURCE_CACHE,
	}}
	got, err := serve(t, f, self()).client.Fetch(t.Context(), providertest.Request("vault"))
	if err != nil {
		t.Fatal(err)
	}
	want := &gatewayv1.FetchResponse{
		NotModified: true, RefreshAfter: durationpb.New(time.Minute), FetchedAt: timestamppb.New(at), Source: gatewayv1.Source_SOURCE_CACHE,
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("answer (-want +got):\n%s", diff)
	}
}

func TestFetch_Validates(t *testing.T) {
	t.Parallel()
	client := serve(t, &fetcher{err: errors.New("a bad request came through")}, self()).client
	name := ` is not a provider's name: use 1 to 30 letters, digits, '_' and '-' in spec.provider`
	tests := []struct {
		field, want string
		mutate      func(*gatewayv1.FetchRequest)
	}{
		{"volume_id", "is required", func(r *gatewayv1.FetchRequest) { r.VolumeId = "" }},
		{"provider", "is required", func(r *gatewayv1.FetchRequest) { r.Provider = "" }},
		{"provider", `"../x"` + name, func(r *gatewayv1.FetchRequest) { r.Provider = "../x" }},
		{"provider", `"` + strings.Repeat("x", 60) + `…"` + name, func(r *gatewayv1.FetchRequest) { r.Provider = strings.Repeat("x", 100) }},
		{"pod.namespace", "is required", func(r *gatewayv1.FetchRequest) { r.Pod = nil }},
		{"pod.namespace", "is required", func(r *gatewayv1.FetchRequest) { r.Pod.Namespace = "" }},
		{"pod.name", "is required", func(r *gatewayv1.FetchRequest) { r.Pod.Name = "" }},
		{"pod.uid", "is required", func(r *gatewayv1.FetchRequest) { r.Pod.Uid = "" }},
		{"pod.service_account.name", "is required", func(r *gatewayv1.FetchRequest) { r.Pod.ServiceAccount = nil }},
		{"secret_provider_class", "is required", func(r *gatewayv1.FetchRequest) { r.SecretProviderClass = "" }},
		{"default_file_mode", "01000 is more than 0777", func(r *gatewayv1.FetchRequest) { r.DefaultFileMode = 0o1000 }},
		{"fetched_after", "is no time", func(r *gatewayv1.FetchRequest) { r.FetchedAfter = &timestamppb.Timestamp{Nanos: -1} }},
		{"fetched_after", "is no time", func(r *gatewayv1.FetchRequest) { r.FetchedAfter = &timestamppb.Timestamp{Seconds: 1 << 60} }},
		{"refresh_interval", "is not a duration of zero or more", func(r *gatewayv1.FetchRequest) { r.RefreshInterval = durationpb.New(-1) }},
		{"refresh_interval", "is not a duration of zero or more", func(r *gatewayv1.FetchRequest) { r.RefreshInterval = &durationpb.Duration{Seconds: 1 << 60} }},
	}
	for _, tt := range tests {
		t.Run(tt.field, func(t *testing.T) {
			t.Parallel()
			req := providertest.Request("vault")
			tt.mutate(req)
			_, err := client.Fetch(t.Context(), req)
			checkInvalid(t, err, tt.field, tt.want)
		})
	}
}

func checkInvalid(t *testing.T, err error, field, want string) {
	t.Helper()
	e := rpc.FromError(err)
	if e == nil || e.Code != codes.InvalidArgument || e.Reason != rpc.ReasonInvalidParameters {
		t.Fatalf("got %v, want an invalid argument", err)
	}
	if diff := cmp.Diff(field+": "+want, e.Message); diff != "" {
		t.Errorf("message (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]rpc.FieldViolation{{Field: field, Description: want}}, e.FieldViolations); diff != "" {
		t.Errorf("fields (-want +got):\n%s", diff)
	}
}

func TestFetch_Failures(t *testing.T) {
	t.Parallel()
	where := map[string]string{"provider": "vault", "secret_provider_class": "db"}
	tests := []struct {
		name string
		err  error
		want *rpc.Error
	}{
		{
			"the provider's, with details",
			&rpc.Error{
				Reason: rpc.ReasonRateLimited, Message: "slow down", RetryAfter: 3 * time.Second,
				Metadata:        map[string]string{"object": "o", "provider": "liar"},
				FieldViolations: []rpc.FieldViolation{{Field: "f", Description: "d"}},
			},
			&rpc.Error{
				Reason: rpc.ReasonRateLimited, Code: codes.ResourceExhausted, Message: `provider "vault": slow down`, RetryAfter: 3 * time.Second,
				Metadata:        map[string]string{"object": "o", "provider": "vault", "secret_provider_class": "db"},
				FieldViolations: []rpc.FieldViolation{{Field: "f", Description: "d"}},
			},
		},
		{
			"wrapped", fmt.Errorf("outside: %w", &rpc.Error{Reason: rpc.ReasonAccessDenied, Message: "no"}),
			&rpc.Error{Reason: rpc.ReasonAccessDenied, Code: codes.PermissionDenied, Message: `provider "vault": outside: no`, Metadata: where},
		},
		{
			"with the prefix", &rpc.Error{Reason: rpc.ReasonAccessDenied, Message: `provider "vault": no`},
			&rpc.Error{Reason: rpc.ReasonAccessDenied, Code: codes.PermissionDenied, Message: `provider "vault": no`, Metadata: where},
		},
		{
			"any", errors.New("boom"),
			&rpc.Error{Reason: rpc.ReasonInternal, Code: codes.Internal, Message: `provider "vault": boom`, Metadata: where},
		},
		{
			"deadline", context.DeadlineExceeded,
			&rpc.Error{Reason: rpc.ReasonDeadlineExceeded, Code: codes.DeadlineExceeded, Message: `provider "vault": context deadline exceeded`, Metadata: where},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := serve(t, &fetcher{err: tt.err}, self()).client.Fetch(t.Context(), providertest.Request("vault"))
			got := *rpc.FromError(err)
			got.Err = nil
			if diff := cmp.Diff(tt.want, &got); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
		})
	}
}

func TestCallerRefused(t *testing.T) {
	t.Parallel()
	client := serve(t, &fetcher{err: errors.New("a stranger came through")}, 4242, 4243).client
	_, err := client.Fetch(t.Context(), providertest.Request("vault"))
	e := rpc.FromError(err)
	want := fmt.Sprintf("caller with uid %d refused: only uids [4242 4243] may call the gateway, see --allowed-uids", self())
	if e == nil || e.Code != codes.PermissionDenied || e.Reason != rpc.ReasonCallerRefused || e.Message != want {
		t.Errorf("got %v, want %q", err, want)
	}
	for name, call := range map[string]func() error{
		"Release": func() error {
			_, err := client.Release(t.Context(), &gatewayv1.ReleaseRequest{VolumeId: "v"})
			return err
		},
		"Describe": func() error {
			_, err := client.Describe(t.Context(), &gatewayv1.DescribeRequest{Provider: "v"})
			return err
		},
		"Status": func() error { _, err := client.Status(t.Context(), &gatewayv1.StatusRequest{}); return err },
	} {
		if code := status.Code(call()); code != codes.PermissionDenied {
			t.Errorf("%s: got %s, want PermissionDenied", name, code)
		}
	}
}

func TestRelease(t *testing.T) {
	t.Parallel()
	f := &fetcher{released: make(chan string, 1)}
	client := serve(t, f, self()).client
	_, err := client.Release(t.Context(), &gatewayv1.ReleaseRequest{})
	checkInvalid(t, err, "volume_id", "is required")
	if _, err := client.Release(t.Context(), &gatewayv1.ReleaseRequest{VolumeId: "v1"}); err != nil {
		t.Fatal(err)
	}
	if got := <-f.released; got != "v1" {
		t.Errorf("released %q", got)
	}
}

func TestDescribe(t *testing.T) {
	t.Parallel()
	e := serve(t, &fetcher{}, self())
	description := &providerv1.DescribeResponse{
		Names: []string{"vault"}, Version: "2.0.0", ServiceAccountAnnotations: []string{"a/b"}, NodeLabels: []string{"c/d"},
	}
	answered := make(chan error, 1)
	go func() {
		// It waits: the provider is not there yet.
		got, err := e.client.Describe(t.Context(), &gatewayv1.DescribeRequest{Provider: "vault"})
		if diff := cmp.Diff(description, got.GetDescription(), protocmp.Transform()); err == nil && diff != "" {
			err = errors.New("description (-want +got): " + diff)
		}
		answered <- err
	}()
	(&providertest.Native{Description: description}).Start(t, filepath.Join(e.native, "vault", "a.sock"))
	new(providertest.Legacy).Start(t, filepath.Join(e.legacy, "aws.sock"))
	if err := <-answered; err != nil {
		t.Error(err)
	}

	got, err := e.client.Describe(t.Context(), &gatewayv1.DescribeRequest{Provider: "aws"})
	if err != nil {
		t.Fatal(err)
	}
	want := &gatewayv1.DescribeResponse{Description: &providerv1.DescribeResponse{}}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("legacy (-want +got):\n%s", diff)
	}

	_, err = e.client.Describe(t.Context(), &gatewayv1.DescribeRequest{})
	checkInvalid(t, err, "provider", "is required")
	_, err = e.client.Describe(t.Context(), &gatewayv1.DescribeRequest{Provider: "/"})
	checkInvalid(t, err, "provider", `"/" is not a provider's name: use 1 to 30 letters, digits, '_' and '-' in spec.provider`)

	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	_, err = e.client.Describe(ctx, &gatewayv1.DescribeRequest{Provider: "gcp"})
	failed := rpc.FromError(err)
	if failed.Reason != rpc.ReasonProviderUnavailable || failed.Metadata["provider"] != "gcp" || failed.Metadata["secret_provider_class"] != "" {
		t.Errorf("got reason %s, metadata %v", failed.Reason, failed.Metadata)
	}
}

func TestStatus(t *testing.T) {
	t.Parallel()
	e := serve(t, &fetcher{}, self())
	old := filepath.Join(e.native, "vault", "old.sock")
	fresh := filepath.Join(e.native, "vault", "fresh.sock")
	aws := filepath.Join(e.legacy, "aws.sock")
	describe := func(version string) *providertest.Native {
		return &providertest.Native{Description: &providerv1.DescribeResponse{Names: []string{"openbao"}, Version: version}}
	}
	describe("1").Start(t, old)
	awaitServing(t, e.client, "vault", old)
	describe("2").Start(t, fresh)
	awaitServing(t, e.client, "vault", fresh)
	new(providertest.Legacy).Start(t, aws)
	awaitServing(t, e.client, "aws", aws)

	got, err := e.client.Status(t.Context(), &gatewayv1.StatusRequest{}, grpc.WaitForReady(true))
	if err != nil {
		t.Fatal(err)
	}
	native := []*gatewayv1.Instance{
		{Socket: fresh, Version: "2", State: gatewayv1.Instance_STATE_SERVING, Protocol: gatewayv1.Instance_PROTOCOL_PROVIDER_V1},
		{
			Socket: old, Version: "1", State: gatewayv1.Instance_STATE_DRAINING, Protocol: gatewayv1.Instance_PROTOCOL_PROVIDER_V1,
			Message: "another instance is preferred: " + fresh,
		},
	}
	want := &gatewayv1.StatusResponse{
		Version: "1.2.3",
		Providers: []*gatewayv1.ProviderStatus{
			{
				Name: "aws", InFlight: 2, Volumes: 3,
				Instances: []*gatewayv1.Instance{{
					Socket: aws, Version: "1.2.3", State: gatewayv1.Instance_STATE_SERVING, Protocol: gatewayv1.Instance_PROTOCOL_CSI_V1ALPHA1,
				}},
				Budget: &gatewayv1.BudgetStatus{MaxCalls: 64},
			},
			{Name: "openbao", InFlight: 2, Volumes: 3, Instances: native},
			{
				Name: "vault", InFlight: 2, Volumes: 3, Instances: native,
				Budget: &gatewayv1.BudgetStatus{Calls: 1, MaxCalls: 64, Queued: 2, MaxQueued: 1024, MaxRate: 20, Refused: 3},
				Stores: []*gatewayv1.StoreStatus{
					{
						Store: "vaultAddress=https://a", State: gatewayv1.StoreStatus_STATE_OPEN, MaxCalls: 1, Failures: 5,
						Reason: "STORE_UNAVAILABLE", RetryAt: &timestamppb.Timestamp{Seconds: 2000},
					},
					{Store: "vaultAddress=https://b", State: gatewayv1.StoreStatus_STATE_CLOSED, Calls: 1, MaxCalls: 16},
					{Store: "vaultAddress=https://c", State: gatewayv1.StoreStatus_STATE_HALF_OPEN, MaxCalls: 1},
					{Store: "vaultAddress=https://d", State: gatewayv1.StoreStatus_STATE_THROTTLED, MaxCalls: 8},
				},
			},
		},
		Cache: &gatewayv1.CacheStatus{Entries: 5, Bytes: 6, MaxBytes: 7, Hits: 1, Joins: 2, Misses: 3, Stale: 4, Evictions: 8},
		Flights: []*gatewayv1.FlightStatus{{
			Provider: "vault", Namespace: "shop", ServiceAccount: "web", SecretProviderClass: "db", PodUid: "8a6f",
			Waiters: 2, StartedAt: &timestamppb.Timestamp{Seconds: 1000},
		}},
		Policy: &gatewayv1.PolicyStatus{Rules: []string{"own-paths"}, LoadedAt: &timestamppb.Timestamp{Seconds: 3000}, Error: "line 3"},
	}
	if diff := cmp.Diff(want, got, protocmp.Transform(), protocmp.IgnoreFields(&gatewayv1.Instance{}, "connected_at")); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
	if at := got.GetProviders()[0].GetInstances()[0].GetConnectedAt(); time.Since(at.AsTime()) > time.Hour {
		t.Errorf("connected at %v", at.AsTime())
	}
}

func awaitServing(t *testing.T, client gatewayv1.GatewayServiceClient, provider, socket string) {
	t.Helper()
	providertest.Eventually(t, socket+" serves", func() bool {
		got, err := client.Status(t.Context(), &gatewayv1.StatusRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range got.GetProviders() {
			if p.GetName() == provider && len(p.GetInstances()) > 0 {
				first := p.GetInstances()[0]
				return first.GetSocket() == socket && first.GetState() == gatewayv1.Instance_STATE_SERVING
			}
		}
		return false
	})
}

// The reasons of the code are those of the contract, and of the same codes.
func TestReasons_AreTheContracts(t *testing.T) {
	t.Parallel()
	for name := range secretv1.ErrorReason_value {
		reason := strings.TrimPrefix(name, "ERROR_REASON_")
		if known := rpc.CodeOf(reason) != codes.Unknown; known != (reason != "UNSPECIFIED") {
			t.Errorf("%s: known is %t", reason, known)
		}
	}
}
