// Package startuptaint takes a taint from the driver's node once pods with
// secrets can start there. Nodes are made with the taint, so that the scheduler
// leaves them alone until then.
package startuptaint

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/postern-dev/postern/driver/internal/sleep"
	"github.com/postern-dev/postern/internal/logkey"
	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
)

const (
	// pollInterval is the time between two questions to the gateway, which is
	// on the same node: nothing waits for a taint that is gone.
	pollInterval = 500 * time.Millisecond
	// askTimeout bounds one question.
	askTimeout = 5 * time.Second
	// The API server is shared by all nodes, so it is asked again ever later.
	firstRetry = 500 * time.Millisecond
	lastRetry  = 30 * time.Second
)

// Nodes are the cluster's nodes.
type Nodes interface {
	HasNodeTaint(ctx context.Context, node, key string) (bool, error)
	// RemoveNodeTaint fails with apierrors.IsConflict if the node was changed
	// meanwhile.
	RemoveNodeTaint(ctx context.Context, node, key string) error
}

// Gateway is the node's gateway.
type Gateway interface {
	Status(ctx context.Context) (*gatewayv1.StatusResponse, error)
}

// Config is what New needs.
type Config struct {
	// Node is the name of this node, and Key that of the taint.
	Node, Key string
	// Providers are those that have to serve, besides the gateway.
	Providers []string
	Nodes     Nodes
	Gateway   Gateway
	Logger    *slog.Logger
}

// Remover removes the taint once.
type Remover struct{ cfg Config }

// New returns a Remover. It makes no call.
func New(cfg Config) (*Remover, error) {
	switch {
	case cfg.Node == "" || cfg.Key == "":
		return nil, errors.New("startup taint: node and key are required")
	case cfg.Nodes == nil || cfg.Gateway == nil || cfg.Logger == nil:
		return nil, errors.New("startup taint: nodes, gateway and logger are required")
	}
	cfg.Logger = cfg.Logger.With(slog.String(logkey.Name, cfg.Key))
	return &Remover{cfg: cfg}, nil
}

// Run removes the taint as soon as the gateway answers and the providers serve,
// and returns nil when it is gone, was never there, or ctx ends. A taint that
// comes later is left: whoever makes a node anew has its pods made anew, the
// driver's too, and whoever taints a node that works wants it so.
func (r *Remover) Run(ctx context.Context) error {
	var tainted bool
	if !r.insist(ctx, func(ctx context.Context) (err error) {
		tainted, err = r.cfg.Nodes.HasNodeTaint(ctx, r.cfg.Node, r.cfg.Key)
		return err
	}) {
		return nil
	}
	if !tainted {
		r.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "the node has no startup taint")
		return nil
	}
	if !r.awaitReady(ctx) {
		return nil
	}
	if r.insist(ctx, func(ctx context.Context) error {
		return r.cfg.Nodes.RemoveNodeTaint(ctx, r.cfg.Node, r.cfg.Key)
	}) {
		r.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "removed the startup taint: pods with secrets can start here")
	}
	return nil
}

// insist repeats a call of the API server until it succeeds, and reports false
// if ctx ends before.
func (r *Remover) insist(ctx context.Context, call func(context.Context) error) bool {
	pause := firstRetry
	for {
		err := call(ctx)
		switch {
		case err == nil:
			return true
		case ctx.Err() != nil:
			return false
		case apierrors.IsConflict(err):
			// Somebody wrote at the same time: with the next version, at once.
			if !sleep.For(ctx, firstRetry/10) {
				return false
			}
			continue
		}
		r.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "cannot remove the startup taint yet", slog.String(logkey.Error, err.Error()))
		if !sleep.For(ctx, pause) {
			return false
		}
		pause = min(2*pause, lastRetry)
	}
}

// awaitReady waits for gateway and providers, and logs what it waits for
// whenever that changes.
func (r *Remover) awaitReady(ctx context.Context) bool {
	logged := ""
	for {
		missing := r.missing(ctx)
		switch {
		case ctx.Err() != nil:
			return false
		case missing == "":
			return true
		case missing != logged:
			r.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "the startup taint stays for now", slog.String(logkey.Reason, missing))
			logged = missing
		}
		if !sleep.For(ctx, pollInterval) {
			return false
		}
	}
}

// missing says what does not answer yet, or "".
func (r *Remover) missing(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	status, err := r.cfg.Gateway.Status(ctx)
	if err != nil {
		return "the gateway does not answer"
	}
	var absent []string
	for _, name := range r.cfg.Providers {
		if !serves(status, name) {
			absent = append(absent, name)
		}
	}
	if len(absent) == 0 {
		return ""
	}
	return fmt.Sprintf("no instance serves of provider %s", strings.Join(absent, ", "))
}

func serves(status *gatewayv1.StatusResponse, name string) bool {
	return slices.ContainsFunc(status.GetProviders(), func(p *gatewayv1.ProviderStatus) bool {
		return p.GetName() == name && slices.ContainsFunc(p.GetInstances(), func(i *gatewayv1.Instance) bool {
			return i.GetState() == gatewayv1.Instance_STATE_SERVING
		})
	})
}
