package rpc_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/postern-dev/postern/internal/rpc"
)

func noEcho(context.Context, string) (string, error) { return "", nil }

// expect reads the next status of a Watch.
func expect(t *testing.T, watch grpc.ServerStreamingClient[healthpb.HealthCheckResponse], want healthpb.HealthCheckResponse_ServingStatus) {
	t.Helper()
	got, err := watch.Recv()
	if err != nil || got.GetStatus() != want {
		t.Fatalf("Watch = %v, %v, want %v", got.GetStatus(), err, want)
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	var storeDown atomic.Bool
	r := run(t, noEcho, func(cfg *rpc.Config) {
		cfg.Health = map[string]func(context.Context) error{
			"store": func(context.Context) error {
				if storeDown.Load() {
					return errors.New("no route to host")
				}
				return nil
			},
			"cache": func(context.Context) error { return nil },
		}
	})
	client := healthpb.NewHealthClient(r.conn)
	statuses := func() map[string]string {
		t.Helper()
		list, err := client.List(t.Context(), &healthpb.HealthListRequest{}, grpc.WaitForReady(true))
		if err != nil {
			t.Fatal(err)
		}
		got := make(map[string]string)
		for _, name := range slices.Sorted(maps.Keys(list.GetStatuses())) {
			got[name] = list.GetStatuses()[name].GetStatus().String()
			check, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{Service: name})
			if err != nil || check.GetStatus().String() != got[name] {
				t.Errorf("Check(%q) = %v, %v, but List says %s", name, check.GetStatus(), err, got[name])
			}
		}
		return got
	}
	up := map[string]string{"": "SERVING", "test.Echo": "SERVING", "store": "SERVING", "cache": "SERVING"}
	if diff := cmp.Diff(up, statuses()); diff != "" {
		t.Errorf("all is well (-want +got):\n%s", diff)
	}
	storeDown.Store(true)
	down := map[string]string{"": "NOT_SERVING", "test.Echo": "NOT_SERVING", "store": "NOT_SERVING", "cache": "SERVING"}
	if diff := cmp.Diff(down, statuses()); diff != "" {
		t.Errorf("the store is down (-want +got):\n%s", diff)
	}
	if err := r.server.Ready(t.Context()); err == nil || err.Error() != "store: no route to host" {
		t.Errorf("Ready = %v", err)
	}
	storeDown.Store(false)
	if diff := cmp.Diff(up, statuses()); diff != "" {
		t.Errorf("all is well again (-want +got):\n%s", diff)
	}
	if _, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{Service: "other"}); rpc.FromError(err).Code != codes.NotFound {
		t.Errorf("unknown service: %v, want NotFound", err)
	}
	// Many questions, but one line for each change, and none for the calls.
	if n := len(r.log.lines("health check fails", "name=store", "no route to host")); n != 1 {
		t.Errorf("%d lines say that the store is down", n)
	}
	if n := len(r.log.lines("health check passes again", "name=store")); n != 1 {
		t.Errorf("%d lines say that the store is up", n)
	}
	if lines := r.log.lines("call handled"); len(lines) != 0 {
		t.Errorf("health calls are in the log: %s", lines)
	}
}

func TestHealth_Watch(t *testing.T) {
	t.Parallel()
	var down atomic.Bool
	r := run(t, noEcho, func(cfg *rpc.Config) {
		cfg.Health = map[string]func(context.Context) error{"store": func(context.Context) error {
			if down.Load() {
				return errors.New("down")
			}
			return nil
		}}
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	client := healthpb.NewHealthClient(r.conn)
	unknown, err := client.Watch(ctx, &healthpb.HealthCheckRequest{Service: "other"}, grpc.WaitForReady(true))
	if err != nil {
		t.Fatal(err)
	}
	expect(t, unknown, healthpb.HealthCheckResponse_SERVICE_UNKNOWN)
	watch, err := client.Watch(ctx, &healthpb.HealthCheckRequest{Service: "store"})
	if err != nil {
		t.Fatal(err)
	}
	expect(t, watch, healthpb.HealthCheckResponse_SERVING)
	down.Store(true)
	expect(t, watch, healthpb.HealthCheckResponse_NOT_SERVING)
	// With two open watches the server still ends, without waiting for them.
}
