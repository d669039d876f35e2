// Package gateway is the driver's client of its node's gateway.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"

	"github.com/postern-dev/postern/internal/rpc"
	"github.com/postern-dev/postern/internal/telemetry"
	"github.com/postern-dev/postern/internal/unixsocket"
	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
	providerv1 "github.com/postern-dev/postern/proto/gen/go/postern/provider/v1"
)

// SocketName is the gateway's socket in its directory.
const SocketName = "gateway.sock"

const (
	// maxMessageBytes bounds one answer; the gateway's own limit is lower.
	maxMessageBytes = 64 << 20
	// A gateway that restarts is back within a second or two, and a dial of a
	// unix socket costs nothing: gRPC's default of up to two minutes between
	// attempts would leave pods waiting for nothing.
	minReconnectDelay = 20 * time.Millisecond
	maxReconnectDelay = 500 * time.Millisecond
	// The first retry is made at once: mostly a newer gateway is there already.
	retryDelay = 100 * time.Millisecond
)

// Config is what New needs.
type Config struct {
	// Dir is the gateway's directory, which holds its socket. The process that
	// listens there must run as the directory's owner.
	Dir       string
	Telemetry *telemetry.Telemetry
}

// Client calls the gateway. It connects when first used, and while Run runs
// again as soon as the connection is lost; calls wait for the gateway inside
// their deadline.
//
// A gateway that is replaced tells so (GOAWAY): the calls that it has go on
// there, and all others go to whoever listens at the socket's path by then.
type Client struct {
	socket       string
	conn         *grpc.ClientConn
	api          gatewayv1.GatewayServiceClient
	descriptions descriptions
}

// New returns a client. It does not connect.
func New(cfg Config) (*Client, error) {
	switch {
	case !filepath.IsAbs(cfg.Dir):
		return nil, fmt.Errorf("gateway directory %q is not an absolute path", cfg.Dir)
	case cfg.Telemetry == nil:
		return nil, errors.New("gateway client needs telemetry")
	}
	socket := filepath.Join(cfg.Dir, SocketName)
	conn, err := unixsocket.Dial(socket, unixsocket.DialConfig{
		RequireUID: func(uid uint32) error { return requireOwner(cfg.Dir, uid) },
		Options: []grpc.DialOption{
			cfg.Telemetry.ClientOption(),
			grpc.WithConnectParams(grpc.ConnectParams{
				Backoff:           backoff.Config{BaseDelay: minReconnectDelay, Multiplier: 1.6, Jitter: 0.2, MaxDelay: maxReconnectDelay},
				MinConnectTimeout: 5 * time.Second,
			}),
			grpc.WithDefaultCallOptions(grpc.WaitForReady(true), grpc.MaxCallRecvMsgSize(maxMessageBytes), grpc.MaxCallSendMsgSize(maxMessageBytes)),
			// A call that may have reached a provider is never replayed unseen.
			grpc.WithDisableRetry(),
		},
	})
	if err != nil {
		return nil, fmt.Errorf("prepare connection to the gateway at %s: %w", socket, err)
	}
	return &Client{socket: socket, conn: conn, api: gatewayv1.NewGatewayServiceClient(conn)}, nil
}

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

// Run keeps the connection up until ctx ends.
func (c *Client) Run(ctx context.Context) error {
	for {
		state := c.conn.GetState()
		if state == connectivity.Idle {
			c.conn.Connect()
		}
		if !c.conn.WaitForStateChange(ctx, state) {
			return nil
		}
	}
}

// Connected tells whether the gateway is there now.
func (c *Client) Connected() bool { return c.conn.GetState() == connectivity.Ready }

// Check returns an error that says what is wrong unless the gateway answers.
func (c *Client) Check(ctx context.Context) error {
	_, err := c.Status(ctx)
	return err
}

// Status tells which providers are there and how they are.
func (c *Client) Status(ctx context.Context) (*gatewayv1.StatusResponse, error) {
	var response *gatewayv1.StatusResponse
	err := c.call(ctx, func(ctx context.Context) (err error) {
		response, err = c.api.Status(ctx, &gatewayv1.StatusRequest{})
		return err
	})
	return response, err
}

// Describe tells what a provider needs; it waits for the provider. What it said
// within the last second is not asked again: a node that starts many pods at
// once asks once.
func (c *Client) Describe(ctx context.Context, provider string) (*providerv1.DescribeResponse, error) {
	if known, ok := c.descriptions.recent(provider); ok {
		return known, nil
	}
	var description *providerv1.DescribeResponse
	err := c.call(ctx, func(ctx context.Context) error {
		response, err := c.api.Describe(ctx, &gatewayv1.DescribeRequest{Provider: provider})
		description = response.GetDescription()
		return err
	})
	if err == nil {
		c.descriptions.keep(provider, description)
	}
	return description, err
}

// Fetch gets the objects of a volume. A gateway that goes away during the call
// is waited for and asked again: leases are kept per volume, so that the second
// call gets what the first one made.
func (c *Client) Fetch(ctx context.Context, request *gatewayv1.FetchRequest) (*gatewayv1.FetchResponse, error) {
	var response *gatewayv1.FetchResponse
	err := c.call(ctx, func(ctx context.Context) (err error) {
		response, err = c.api.Fetch(ctx, request)
		return err
	})
	return response, err
}

// Release says that a volume is gone.
func (c *Client) Release(ctx context.Context, volumeID string) error {
	return c.call(ctx, func(ctx context.Context) error {
		_, err := c.api.Release(ctx, &gatewayv1.ReleaseRequest{VolumeId: volumeID})
		return err
	})
}

// call repeats do while the connection breaks under it, or the gateway ends,
// until ctx ends.
func (c *Client) call(ctx context.Context, do func(context.Context) error) error {
	for delay := time.Duration(0); ; delay = retryDelay {
		err := do(ctx)
		if err == nil {
			return nil
		}
		failure := rpc.FromError(err)
		switch {
		case failure.Reason != "":
			return failure
		case ctx.Err() != nil && !errors.Is(context.Cause(ctx), ctx.Err()):
			// The caller gave up for a reason of its own.
			return context.Cause(ctx)
		case failure.Code == codes.DeadlineExceeded && !c.Connected():
			return c.unavailable(failure.Message)
		case failure.Code != codes.Unavailable:
			return failure
		}
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return c.unavailable(failure.Message)
		}
	}
}

func (c *Client) unavailable(detail string) error {
	return &rpc.Error{
		Reason:  rpc.ReasonGatewayUnavailable,
		Code:    codes.Unavailable,
		Message: fmt.Sprintf("no gateway answers at %s: check that the gateway's pod runs on this node (%s)", c.socket, detail),
	}
}
