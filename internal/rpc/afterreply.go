package rpc

import (
	"context"
	"sync"

	"google.golang.org/grpc/stats"
)

// AfterReply has f called when the call that ctx belongs to is over: its
// response is encoded by then and not looked at any more, so that what it
// shares with others can be given back. Functions are called in their order.
// Outside of a [Server]'s call it does nothing and reports false.
func AfterReply(ctx context.Context, f func()) bool {
	r, ok := ctx.Value(repliesKey{}).(*reply)
	if !ok {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.after = append(r.after, f)
	return true
}

// repliesKey is the context's key for a call's reply.
type repliesKey struct{}

// reply holds what is to be done after one call.
type reply struct {
	mu    sync.Mutex
	after []func()
}

// replies tells each call's reply that it is out. gRPC encodes a response after
// the last interceptor has returned, so that only a stats handler sees the end.
type replies struct{}

var _ stats.Handler = replies{}

// TagRPC implements stats.Handler.
func (replies) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context {
	return context.WithValue(ctx, repliesKey{}, &reply{})
}

// HandleRPC implements stats.Handler.
func (replies) HandleRPC(ctx context.Context, s stats.RPCStats) {
	if _, ended := s.(*stats.End); !ended {
		return
	}
	r, ok := ctx.Value(repliesKey{}).(*reply)
	if !ok {
		return
	}
	r.mu.Lock()
	after := r.after
	r.after = nil
	r.mu.Unlock()
	for _, f := range after {
		f()
	}
}

// TagConn implements stats.Handler.
func (replies) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn implements stats.Handler.
func (replies) HandleConn(context.Context, stats.ConnStats) {}
