// Package api is what the services of the double have in common: calls, what they
// are answered, and errors as Google tells them.
package api

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/postern-dev/postern/test/gcp/control"
)

// Domains of an ErrorInfo.
const (
	IAMDomain    = "iam.googleapis.com"
	GoogleDomain = "googleapis.com"
)

// Call is a request on its way to an answer.
type Call struct {
	// Request is what is recorded of it.
	control.Request

	HTTP *http.Request
	Body []byte
	// Damage is Corrupt or NoChecksum: what a fault does to the answer.
	Damage string
	// Violations are the rules that it breaks.
	Violations []control.Violation
}

// Violate notes that the request breaks a rule.
func (c *Call) Violate(problem string) {
	c.Violations = append(c.Violations, control.Violation{
		Service: c.Service, Operation: c.Operation, Path: c.HTTP.Host + c.HTTP.URL.Path, Problem: problem,
	})
}

// callKey is where the context of a gRPC request has its call.
type callKey struct{}

// With returns a context that has a call.
func With(ctx context.Context, c *Call) context.Context { return context.WithValue(ctx, callKey{}, c) }

// Of returns the call of a context.
func Of(ctx context.Context) (*Call, bool) {
	c, ok := ctx.Value(callKey{}).(*Call)
	return c, ok
}

// Bearer returns the access token of a request; "" if it has none.
func Bearer(r *http.Request) string {
	kind, raw, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(kind, "Bearer") {
		return ""
	}
	return raw
}

// Answer is what a call gets over HTTP. Code is that of an error.
type Answer struct {
	Status       int
	Code, Reason string
	Header       http.Header
	ContentType  string
	Body         []byte
}

// JSON answers a document, which can be encoded.
func JSON(httpStatus int, document any) Answer {
	body, err := json.Marshal(document)
	if err != nil {
		return Answer{Status: http.StatusInternalServerError, Code: "INTERNAL", ContentType: "text/plain", Body: []byte(err.Error())}
	}
	return Answer{Status: httpStatus, ContentType: "application/json; charset=UTF-8", Body: body}
}

// Refusal is an error that a service answers, of gRPC or of Google's JSON.
type Refusal struct {
	Code    codes.Code
	Message string
	// Reason, Domain and Metadata are of the ErrorInfo; there is none without a reason.
	Reason, Domain string
	Metadata       map[string]string
	// RetryAfter is of the RetryInfo; 0 for none.
	RetryAfter time.Duration
}

func (r *Refusal) Error() string { return CodeName(r.Code) + ": " + r.Message }

// GRPCStatus is how gRPC tells it.
func (r *Refusal) GRPCStatus() *status.Status {
	told := status.New(r.Code, r.Message)
	var details []protoadapt.MessageV1
	if r.Reason != "" {
		details = append(details, &errdetails.ErrorInfo{Reason: r.Reason, Domain: r.Domain, Metadata: r.Metadata})
	}
	if r.RetryAfter > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(r.RetryAfter)})
	}
	if with, err := told.WithDetails(details...); err == nil {
		return with
	}
	return told
}

// Answer is how Google's JSON tells it.
func (r *Refusal) Answer() Answer {
	body := map[string]any{"code": HTTPStatus(r.Code), "message": r.Message, "status": CodeName(r.Code)}
	if r.Reason != "" {
		body["details"] = []any{map[string]any{
			"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": r.Reason, "domain": r.Domain, "metadata": r.Metadata,
		}}
	}
	a := JSON(HTTPStatus(r.Code), map[string]any{"error": body})
	a.Code, a.Reason = CodeName(r.Code), r.Reason
	return a
}

// Refused is the refusal of an error, which else is INTERNAL.
func Refused(err error) *Refusal {
	if refused, ok := errors.AsType[*Refusal](err); ok {
		return refused
	}
	return &Refusal{Code: codes.Internal, Message: err.Error()}
}

// Denied is the refusal of a principal that has no permission.
func Denied(permission, resource string) *Refusal {
	return &Refusal{
		Code: codes.PermissionDenied, Message: "Permission '" + permission + "' denied for resource '" + resource + "' (or it may not exist).",
		Reason: "IAM_PERMISSION_DENIED", Domain: IAMDomain, Metadata: map[string]string{"permission": permission, "resource": resource},
	}
}

// Invalid is the refusal of a request of the wrong form.
func Invalid(message string) *Refusal {
	return &Refusal{Code: codes.InvalidArgument, Message: message}
}

// Injected is the refusal that a fault brings about.
func Injected(f control.Fault) *Refusal {
	r := &Refusal{Message: f.Message, Reason: f.Reason, Domain: GoogleDomain, RetryAfter: time.Duration(f.RetryAfter) * time.Second}
	switch f.Kind {
	case control.Throttle:
		r.Code, r.Message, r.Reason = codes.ResourceExhausted, cmp.Or(r.Message, "Quota exceeded for quota metric 'Access requests'."), cmp.Or(r.Reason, "RATE_LIMIT_EXCEEDED")
	case control.Unavailable:
		r.Code, r.Message = codes.Unavailable, cmp.Or(r.Message, "The service is currently unavailable.")
	default:
		r.Code, _ = ParseCode(f.Code)
	}
	return r
}

// OAuthError is an error as the token services tell it.
func OAuthError(httpStatus int, code, description string) Answer {
	a := JSON(httpStatus, map[string]string{"error": code, "error_description": description})
	a.Code = code
	return a
}
