package store

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	// maxMessage bounds what is repeated of Google's text.
	maxMessage = 1024
	// maxRetryAfter bounds what is believed of a delay.
	maxRetryAfter = 24 * time.Hour
)

// Kind says what a failure means for whoever asked.
type Kind int

// The kinds.
const (
	// NotFound: there is no such secret, parameter or version.
	NotFound Kind = iota + 1
	// Disabled: the version is there, but is disabled or destroyed, or depends on
	// something that is. Nobody may have it.
	Disabled
	// Denied: Google knows who asks and refuses, or says that it may not be there.
	Denied
	// BadCredentials: Google does not take the token, or not any more.
	BadCredentials
	// Throttled: there were too many requests.
	Throttled
	// Unavailable: the service cannot be reached or does not work.
	Unavailable
	// Invalid: the request is not one that Google takes.
	Invalid
	// Corrupted: the answer is not what was asked for, or not as it was sent.
	Corrupted
)

// String returns the kind's name.
func (k Kind) String() string {
	switch k {
	case NotFound:
		return "not found"
	case Disabled:
		return "disabled"
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
	case Corrupted:
		return "corrupted"
	default:
		return "unknown"
	}
}

// Error is what Google answered instead, or why it did not. Its text may be shown to
// users: it holds neither credentials nor contents.
type Error struct {
	Kind Kind
	// Endpoint is the host's name; empty if there is none.
	Endpoint string
	// Operation is the IAM permission that it takes, such as
	// "secretmanager.versions.access".
	Operation string
	// Resource is as it was asked for: of a version or, for a list, of where it is.
	Resource string
	// Code is that of gRPC. OK: the failure was found here.
	Code codes.Code
	// Reason is of the ErrorInfo, such as "IAM_PERMISSION_DENIED". Often empty.
	Reason string
	// Message is never empty.
	Message string
	// RetryAfter is when to try again, if that is known.
	RetryAfter time.Duration
	// Err is why no request was made, for errors.Is and errors.As.
	Err error
}

// Error says where it failed and what Google said.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Endpoint != "" {
		b.WriteString(e.Endpoint + ": ")
	}
	b.WriteString(e.Operation + " " + e.Resource + ": ")
	if e.Code != codes.OK {
		b.WriteString(e.Code.String())
		if e.Reason != "" {
			b.WriteString(" (" + e.Reason + ")")
		}
		b.WriteString(": ")
	}
	b.WriteString(e.Message)
	return b.String()
}

// Unwrap returns why no request was made.
func (e *Error) Unwrap() error { return e.Err }

// corruptedError is why an answer is not given to anybody.
type corruptedError string

func (e corruptedError) Error() string { return string(e) }

// kindOf classifies an answer.
func kindOf(code codes.Code) Kind {
	switch code {
	case codes.NotFound:
		return NotFound
	case codes.FailedPrecondition:
		return Disabled
	case codes.PermissionDenied:
		return Denied
	case codes.Unauthenticated:
		return BadCredentials
	case codes.ResourceExhausted:
		return Throttled
	case codes.InvalidArgument, codes.OutOfRange, codes.AlreadyExists, codes.Unimplemented:
		return Invalid
	default:
		return Unavailable
	}
}

// refused is a request that is not made.
func (r *request) refused(err error) *Error {
	return &Error{Kind: Invalid, Operation: r.permission, Resource: r.resource, Message: err.Error(), Err: err}
}

// failed makes an Error of what a request ended with. Of the status only texts are
// kept.
func (r *request) failed(l *login, err error) *Error {
	e := &Error{Endpoint: r.endpoint.host, Operation: r.permission, Resource: r.resource}
	wrong, corrupted := errors.AsType[corruptedError](err)
	switch {
	case corrupted:
		e.Kind, e.Message = Corrupted, wrong.Error()
	case l.err != nil:
		e.Kind, e.Message, e.Err = BadCredentials, "there are no credentials to ask with: "+l.err.Error(), l.err
	default:
		e.answered(status.Convert(err))
	}
	e.Message = clean(e.Message, l)
	return e
}

// answered is for a status, of the service or of gRPC itself.
func (e *Error) answered(said *status.Status) {
	e.Kind, e.Code, e.Message = kindOf(said.Code()), said.Code(), said.Message()
	for _, detail := range said.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			if reasonSyntax.MatchString(detail.GetReason()) {
				e.Reason = detail.GetReason()
			}
		case *errdetails.RetryInfo:
			if d := detail.GetRetryDelay().AsDuration(); d > 0 {
				e.RetryAfter = min(d, maxRetryAfter)
			}
		}
	}
	if foreign := httpStatus.FindStringSubmatch(e.Message); foreign != nil {
		// Not to be repeated: it may be a proxy's page. Its status says nothing of
		// what was asked for.
		e.Kind, e.Message = Unavailable, fmt.Sprintf("the answer, of HTTP status %s, is not the API's", foreign[1])
	} else if refused := proxyStatus.FindStringSubmatch(e.Message); refused != nil {
		e.Message = fmt.Sprintf("the proxy does not connect to it (%s): there may be no such location, or the proxy may not let it be reached", refused[1])
	}
	if e.Kind == Throttled && tooLarge.MatchString(e.Message) {
		e.Kind, e.Message = Invalid, fmt.Sprintf("the answer is larger than %d MiB, which no volume takes", maxAnswer>>20)
	}
}

var (
	// reasonSyntax is what an ErrorInfo's reason looks like.
	reasonSyntax = regexp.MustCompile(`^[A-Z][A-Z0-9_]{0,62}$`)
	// httpStatus is gRPC's own text for what is not of gRPC.
	httpStatus = regexp.MustCompile(`^unexpected HTTP status code received from server: (\d{3}) `)
	// proxyStatus is gRPC's own text for a proxy's refusal, whose page follows.
	proxyStatus = regexp.MustCompile(`failed to do connect handshake, response: \\*"HTTP/1\.[01] (\d{3}[A-Za-z -]*)`)
	// tooLarge is gRPC's own text, under a code that means something else.
	tooLarge = regexp.MustCompile(`^grpc: (received )?message .*larger than max`)
)

// clean makes one line of a text, which is bounded and without the token.
func clean(text string, l *login) string {
	for _, token := range l.tokens {
		text = strings.ReplaceAll(text, token.Reveal(), "[redacted]")
	}
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > maxMessage {
		text = strings.ToValidUTF8(text[:maxMessage], "") + "..."
	}
	if text == "" {
		return "Google gave no reason"
	}
	return text
}
