package provider

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/postern-dev/postern/internal/rpc"
)

// outcome observes one call, so that its failure can be told apart: never
// sent, sent and not answered, answered.
type outcome struct {
	peer    peer.Peer
	trailer metadata.MD
}

// options makes gRPC fill in what o observes.
func (o *outcome) options() []grpc.CallOption {
	return []grpc.CallOption{grpc.Peer(&o.peer), grpc.Trailer(&o.trailer)}
}

// sent reports whether the call reached a connection. gRPC names a peer only
// for calls that did.
func (o *outcome) sent() bool { return o.peer.Addr != nil }

// answered reports whether a failure is the provider's own. One comes as a
// trailer with at least a content type; one that gRPC makes up here, even half
// way through an answer, has no trailer.
func (o *outcome) answered() bool { return len(o.trailer) > 0 }

// failure turns the error of a call into what Provider promises.
func (o *outcome) failure(ctx context.Context, err error) error {
	code := status.Code(err)
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return context.Canceled
	case code == codes.DeadlineExceeded && !o.answered():
		return &rpc.Error{
			Reason:  rpc.ReasonDeadlineExceeded,
			Message: "the provider did not answer before the call's deadline: check its log and whether its store answers",
			Err:     err,
		}
	case code == codes.Unavailable && !o.sent():
		return &NotSentError{Err: err}
	case code == codes.Unavailable && !o.answered():
		return &rpc.Error{
			Reason: rpc.ReasonProviderUnavailable,
			Message: "the connection broke during the call, so the provider ended or crashed; " +
				"the call is not made again by itself because the provider may have issued credentials for it: see its log",
			Err: err,
		}
	case code == codes.ResourceExhausted && !o.ownReason(err) && strings.Contains(status.Convert(err).Message(), "larger than max"):
		// gRPC has no other mark for an answer over this side's limit.
		return &rpc.Error{
			Reason:  rpc.ReasonResponseTooLarge,
			Message: "the answer is larger than the gateway accepts: fetch fewer or smaller objects, or raise --max-response-bytes",
			Err:     err,
		}
	default:
		return answeredFailure(err)
	}
}

// ownReason reports whether a status carries one of the project's reasons.
func (*outcome) ownReason(err error) bool { return rpc.FromError(err).Reason != "" }

// answeredFailure keeps what a provider said: reason, details and text. One
// that names no reason, as no legacy provider does, gets the reason of its
// code.
func answeredFailure(err error) *rpc.Error {
	e := rpc.FromError(err)
	answer := &rpc.Error{
		Reason:          e.Reason,
		Code:            e.Code,
		Message:         e.Message,
		Metadata:        e.Metadata,
		FieldViolations: e.FieldViolations,
		RetryAfter:      e.RetryAfter,
		Err:             err,
	}
	if !mayGive(answer.Reason) {
		answer.Reason = reasonOf(answer.Code)
		answer.Code = rpc.CodeOf(answer.Reason)
	}
	if answer.Message == "" {
		answer.Message = fmt.Sprintf("the provider failed with %s and no message: see its log", e.Code)
	}
	return answer
}

// mayGive reports whether a reason can be a provider's. Those that speak for
// the driver or the gateway cannot. A reason unknown here may come from a newer
// provider and passes.
func mayGive(reason string) bool {
	switch reason {
	case "", rpc.ReasonProviderUnavailable, rpc.ReasonGatewayUnavailable, rpc.ReasonPolicyDenied,
		rpc.ReasonBudgetExhausted, rpc.ReasonSecretProviderClassNotFound, rpc.ReasonCallerRefused,
		rpc.ReasonMountFailed:
		return false
	default:
		return true
	}
}

// reasonOf is the reason of a failure that has only a code.
func reasonOf(code codes.Code) string {
	switch code {
	case codes.NotFound:
		return rpc.ReasonObjectNotFound
	case codes.PermissionDenied:
		return rpc.ReasonAccessDenied
	case codes.Unauthenticated:
		return rpc.ReasonLoginFailed
	case codes.InvalidArgument:
		return rpc.ReasonInvalidParameters
	case codes.ResourceExhausted:
		return rpc.ReasonRateLimited
	case codes.Unavailable:
		return rpc.ReasonStoreUnavailable
	case codes.DeadlineExceeded:
		return rpc.ReasonDeadlineExceeded
	default:
		return rpc.ReasonInternal
	}
}
