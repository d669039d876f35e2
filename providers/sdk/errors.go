package sdk

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/postern-dev/postern/internal/rpc"
)

// Reason is why a call failed. The list is fixed: it is the ErrorReason of
// postern/secret/v1/error.proto, each value without its prefix.
type Reason string

// The reasons that a provider may give.
const (
	// ReasonObjectNotFound: the store has no such object, version or key.
	ReasonObjectNotFound Reason = rpc.ReasonObjectNotFound
	// ReasonAccessDenied: the store knows who asks and refuses.
	ReasonAccessDenied Reason = rpc.ReasonAccessDenied
	// ReasonLoginFailed: the store does not accept the pod's identity.
	ReasonLoginFailed Reason = rpc.ReasonLoginFailed
	// ReasonInvalidParameters: the class's parameters are wrong.
	ReasonInvalidParameters Reason = rpc.ReasonInvalidParameters
	// ReasonRateLimited: the store asks to slow down.
	ReasonRateLimited Reason = rpc.ReasonRateLimited
	// ReasonStoreUnavailable: the store cannot be reached or does not work.
	ReasonStoreUnavailable Reason = rpc.ReasonStoreUnavailable
	// ReasonTokenMissing: kubelet sent no token for an audience that is needed.
	ReasonTokenMissing Reason = rpc.ReasonTokenMissing
	// ReasonTokenInvalid: the token is expired or is not the pod's.
	ReasonTokenInvalid Reason = rpc.ReasonTokenInvalid
	// ReasonInvalidResponse: the answer breaks a rule of [ValidateFiles] or of
	// [Response].
	ReasonInvalidResponse Reason = rpc.ReasonInvalidResponse
	// ReasonResponseTooLarge: the answer is larger than a volume may be.
	ReasonResponseTooLarge Reason = rpc.ReasonResponseTooLarge
	// ReasonDeadlineExceeded: the deadline passed before an answer came.
	ReasonDeadlineExceeded Reason = rpc.ReasonDeadlineExceeded
	// ReasonInternal: a defect.
	ReasonInternal Reason = rpc.ReasonInternal
)

// Reasons returns all that a provider may give.
func Reasons() []Reason {
	return []Reason{
		ReasonObjectNotFound, ReasonAccessDenied, ReasonLoginFailed,
		ReasonInvalidParameters, ReasonRateLimited, ReasonStoreUnavailable,
		ReasonTokenMissing, ReasonTokenInvalid, ReasonInvalidResponse,
		ReasonResponseTooLarge, ReasonDeadlineExceeded, ReasonInternal,
	}
}

// FieldViolation is what is wrong with one field of the parameters, such as
// "objects[2].objectName".
type FieldViolation struct {
	Field       string
	Description string
}

// Error is why a Fetch failed, for people and for programs.
//
// Message says what failed and what to do about it: it is shown to users in
// events, and logged. Neither it nor anything else here may hold a token or a
// secret's content, which some libraries put into their errors: Err is for
// errors.Is and errors.As only, and its text goes nowhere, unless Message was
// made of it. An error of Fetch that is no *Error is hidden behind
// ReasonInternal, for the same cause.
//
// An error with ReasonStoreUnavailable makes callers try the whole fetch again
// at once. Do not give it after the store has issued something.
type Error struct {
	Reason Reason
	// Object is the id or name of the object concerned, if it is one. Error
	// puts it before the message, which therefore need not repeat it.
	Object  string
	Message string
	// Fields are for ReasonInvalidParameters.
	Fields []FieldViolation
	// RetryAfter is when to try again, if the store has said so.
	RetryAfter time.Duration
	// Err is the cause, if any.
	Err error
}

// Error returns the text that users see.
func (e *Error) Error() string {
	if e.Object == "" {
		return e.Message
	}
	return fmt.Sprintf("object %q: %s", e.Object, e.Message)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// WithCause returns e with its cause set, for errors.Is and errors.As; the
// message stays the same.
func (e *Error) WithCause(err error) *Error {
	c := *e
	c.Err = err
	return &c
}

// NotFound says that the store has no such object, version or key.
func NotFound(object, format string, args ...any) *Error {
	return newError(ReasonObjectNotFound, object, format, args)
}

// AccessDenied says that the store knows who asks and refuses.
func AccessDenied(object, format string, args ...any) *Error {
	return newError(ReasonAccessDenied, object, format, args)
}

// LoginFailed says that the store does not accept the pod's identity.
func LoginFailed(format string, args ...any) *Error {
	return newError(ReasonLoginFailed, "", format, args)
}

// InvalidParameters says what is wrong with the class's parameters.
func InvalidParameters(violations ...FieldViolation) *Error {
	texts := make([]string, len(violations))
	for i, v := range violations {
		texts[i] = v.Field + ": " + v.Description
	}
	return &Error{
		Reason:  ReasonInvalidParameters,
		Message: "invalid parameters: " + strings.Join(texts, "; "),
		Fields:  slices.Clone(violations),
	}
}

// RateLimited says that the store asks to slow down, for retryAfter if that is
// more than zero.
func RateLimited(object string, retryAfter time.Duration, format string, args ...any) *Error {
	e := newError(ReasonRateLimited, object, format, args)
	e.RetryAfter = retryAfter
	return e
}

// StoreUnavailable says that the store cannot be reached or does not work. See
// [Error] for when not to say it.
func StoreUnavailable(format string, args ...any) *Error {
	return newError(ReasonStoreUnavailable, "", format, args)
}

// TokenMissing says that kubelet sent no token for an audience, and what to do
// about it.
func TokenMissing(audience string) *Error {
	return newError(ReasonTokenMissing, "", "no service account token for audience %q: add the audience to the "+
		"tokenRequests of the CSIDriver object secrets-store.csi.k8s.io; with the Helm chart: add {audience: %s} to "+
		"driver.tokenRequests. The provider itself cannot request tokens", []any{audience, audience})
}

// TokenInvalid says that the token for an audience is expired or is not the
// pod's.
func TokenInvalid(audience, format string, args ...any) *Error {
	e := newError(ReasonTokenInvalid, "", format, args)
	e.Message = fmt.Sprintf("service account token for audience %q: %s", audience, e.Message)
	return e
}

// Internal says that there is a defect.
func Internal(format string, args ...any) *Error {
	return newError(ReasonInternal, "", format, args)
}

func newError(reason Reason, object, format string, args []any) *Error {
	return &Error{Reason: reason, Object: object, Message: fmt.Sprintf(format, args...)}
}
