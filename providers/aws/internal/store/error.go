package store

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/postern-dev/postern/providers/aws/internal/params"
)

// maxMessage bounds what is repeated of AWS' text.
const maxMessage = 1024

// unknown is the SDK's code, and text, for an answer that has none.
const unknown = "UnknownError"

// Kind says what a failure means for whoever asked.
type Kind int

// The kinds.
const (
	// NotFound: there is no such object, version or label, or it is marked for
	// deletion.
	NotFound Kind = iota + 1
	// Denied: AWS knows who asks and refuses. That includes a KMS key that cannot
	// be used for them.
	Denied
	// BadCredentials: AWS does not take the credentials, or not any more.
	BadCredentials
	// Throttled: there were too many requests.
	Throttled
	// Unavailable: the service cannot be reached or does not work.
	Unavailable
	// Invalid: the request is not one that AWS takes.
	Invalid
)

// String returns the kind's name.
func (k Kind) String() string {
	switch k {
	case NotFound:
		return "not found"
	case Denied:
		return "denied"
	case BadCredentials:
		return "bad credentials"
	case Throttled:
		return "throttled"
	case Unavailable:
		return "unavailable"
	case Invalid:
		return "invalid"
	default:
		return "unknown"
	}
}

// Error is what AWS answered instead, or why it did not. Its text may be shown to
// users: it holds neither credentials nor contents.
type Error struct {
	Kind    Kind
	Service params.Service
	Region  string
	// Operation is the API's, such as "GetSecretValue". Of one secret of a batch
	// it is that, too, since its permission is what counts.
	Operation string
	// Object is as it was asked for. Empty where the failure is no object's.
	Object string
	// Code is AWS' own; empty if there was none.
	Code string
	// Message is never empty.
	Message string
	// Status is the HTTP status. Zero: there was no answer, or it was a part of a
	// successful one.
	Status int
	// RetryAfter is when to try again, if that is known.
	RetryAfter time.Duration
	// Err is why there was no answer, for errors.Is and errors.As.
	Err error
}

// Error says where it failed and what AWS said.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s", e.Region, e.Operation)
	if e.Object != "" {
		fmt.Fprintf(&b, " %q", e.Object)
	}
	if e.Code != "" {
		fmt.Fprintf(&b, ": %s", e.Code)
	}
	fmt.Fprintf(&b, ": %s", e.Message)
	return b.String()
}

// Unwrap returns why there was no answer.
func (e *Error) Unwrap() error { return e.Err }

// AllowsFailover reports whether another region may answer: because this one does
// not work. One that refuses, or is asked too much, is not to be got around.
func (e *Error) AllowsFailover() bool { return e.Kind == Unavailable }

// about returns the failure of a request as that of one object.
func (e *Error) about(ref Ref) *Error {
	one := *e
	one.Service, one.Object = ref.Service, ref.ID
	return &one
}

// settles reports whether the failure of a request for several objects would be
// that of each of them. Otherwise one of them may be the cause.
func (e *Error) settles() bool {
	return e.Kind == BadCredentials || e.Kind == Throttled || e.Kind == Unavailable
}

// unsupported reports whether an endpoint does not know the operation.
func (e *Error) unsupported() bool {
	switch e.Code {
	case "UnknownOperationException", "InvalidAction", "UnsupportedOperation", "UnsupportedOperationException", "NotImplemented":
		return true
	}
	return e.Status == http.StatusNotImplemented || e.Status == http.StatusMethodNotAllowed ||
		(e.Status == http.StatusNotFound && e.Kind != NotFound)
}

// kindOf classifies an answer of AWS. Zero: the code says nothing.
func kindOf(code, message string) Kind {
	if _, throttled := retry.DefaultThrottleErrorCodes[code]; throttled {
		return Throttled
	}
	switch code {
	case "ResourceNotFoundException", "ParameterNotFound", "ParameterVersionNotFound":
		return NotFound
	case "InvalidRequestException":
		if strings.Contains(message, "delet") { // "… because it was marked for deletion"
			return NotFound
		}
		return Invalid
	case "AccessDeniedException", "AccessDenied", "NotAuthorized", "UnauthorizedOperation", "OptInRequired",
		"DecryptionFailure", "InvalidKeyId":
		return Denied
	case "ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "UnrecognizedClientException",
		"InvalidSignatureException", "SignatureDoesNotMatch", "IncompleteSignature", "IncompleteSignatureException",
		"InvalidAccessKeyId", "AuthFailure", "RequestExpired",
		"MissingAuthenticationToken", "MissingAuthenticationTokenException":
		return BadCredentials
	case "InternalServiceError", "InternalServerError", "InternalFailure", "ServiceUnavailable",
		"ServiceUnavailableException", "RequestTimeout", "RequestTimeoutException":
		return Unavailable
	case "InvalidParameterException", "InvalidNextTokenException", "ValidationException", "InvalidFilterKey",
		"InvalidFilterOption", "InvalidFilterValue", "InvalidNextToken":
		return Invalid
	}
	return 0
}

// kindOfStatus classifies an answer whose code says nothing.
func kindOfStatus(status int) Kind {
	switch {
	case status >= 500, status < 400, status == http.StatusRequestTimeout:
		return Unavailable
	case status == http.StatusTooManyRequests:
		return Throttled
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return Denied
	default:
		return Invalid
	}
}

// failed makes an Error of what the SDK returned. Of the SDK's error only texts
// are kept: it holds the request and its answer.
func (c *caller) failed(did operation, a *attempts, err error) *Error {
	e := &Error{Service: did.service, Region: c.region.Name, Operation: did.name, Object: did.object}
	if answer, ok := errors.AsType[*smithyhttp.ResponseError](err); ok {
		e.Status, e.RetryAfter = answer.HTTPStatusCode(), retryAfter(err)
	}
	said, answered := errors.AsType[smithy.APIError](err)
	switch {
	case answered && said.ErrorCode() != unknown:
		e.Code, e.Message = said.ErrorCode(), strings.TrimPrefix(said.ErrorMessage(), unknown)
		if e.Kind = kindOf(e.Code, e.Message); e.Kind == 0 {
			e.Kind = kindOfStatus(e.Status)
		}
	case errors.Is(err, errPaced):
		e.Kind, e.Message = Throttled, errPaced.Error()
	case e.Status != 0:
		// Not the API's answer, and not to be repeated: it may be a proxy's page,
		// or half of a secret.
		e.Kind, e.Message = kindOfStatus(e.Status), fmt.Sprintf("the answer, of HTTP status %d, is not the API's", e.Status)
	default:
		e.unanswered(err)
	}
	if e.Kind == Throttled && e.RetryAfter == 0 {
		e.RetryAfter = a.delay
	}
	e.Message = c.clean(e.Message)
	return e
}

// unanswered is for a request that got no answer, or could not be made.
func (e *Error) unanswered(err error) {
	if op, ok := errors.AsType[*smithy.OperationError](err); ok {
		err = op.Err
	}
	e.Kind, e.Message = Invalid, err.Error()
	if sending, ok := errors.AsType[*smithyhttp.RequestSendError](err); ok {
		e.Kind, e.Message, e.Err = Unavailable, sending.Err.Error(), sending.Err
	}
}

// clean makes one line of a text of AWS, which is bounded and without the session
// token: that of a wrong signature repeats the headers that were signed.
func (c *caller) clean(text string) string {
	text, _, _ = strings.Cut(text, "The Canonical String for this request")
	if token := c.token.Reveal(); token != "" {
		text = strings.ReplaceAll(text, token, "[redacted]")
	}
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > maxMessage {
		text = strings.ToValidUTF8(text[:maxMessage], "") + "..."
	}
	if text == "" {
		return "AWS gave no reason"
	}
	return text
}
