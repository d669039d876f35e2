package chaos

import (
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// errorDomain is that of the reasons.
const errorDomain = "postern"

// failure is what an error of a call says.
type failure struct {
	code codes.Code
	// reason is one of the project's, or "" if there is none.
	reason string
	// disturbed tells whether the driver was hit meanwhile, so that the error
	// may come from its socket and not from it.
	disturbed bool
}

func failureOf(err error, disturbed bool) failure {
	f := failure{code: status.Code(err), disturbed: disturbed}
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetDomain() == errorDomain {
			f.reason = info.GetReason()
		}
	}
	return f
}

// clean tells whether the error is one that a retry cures and that says why: a
// code for which kubelet tries again and keeps the target, and a reason, without
// which only a driver is that has died.
func (f failure) clean() bool {
	return retryable(f.code) && (f.reason != "" || f.disturbed)
}

// refuses tells whether the error says that the pod may not have what it asks
// for.
func (f failure) refuses() bool {
	return f.code == codes.Unauthenticated && (f.reason == "LOGIN_FAILED" || f.reason == "TOKEN_INVALID")
}

// name is what the failure is counted under.
func (f failure) name() string {
	switch {
	case f.reason != "":
		return f.reason
	case f.disturbed:
		return "the driver was away (" + f.code.String() + ")"
	default:
		return "no reason (" + f.code.String() + ")"
	}
}
