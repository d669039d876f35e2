package identity

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode"

	"github.com/aws/aws-sdk-go-v2/aws/retry"

	"github.com/postern-dev/postern/providers/sdk"
)

// What was asked, as messages call it.
const (
	OperationAssumeRole  = "sts:AssumeRoleWithWebIdentity"
	OperationPodIdentity = "EKS Pod Identity agent"
)

// Kind is what a failure means for who wanted credentials.
type Kind int

// The kinds.
const (
	// Invalid: there was nothing to ask, or nobody.
	Invalid Kind = iota
	// Denied: the answer is no, and would be again.
	Denied
	// TokenExpired: the answer is no because the pod's token is too old.
	TokenExpired
	// Throttled: AWS asks to slow down.
	Throttled
	// Unavailable: there was no answer, or none of use.
	Unavailable
)

func (k Kind) String() string {
	switch k {
	case Invalid:
		return "Invalid"
	case Denied:
		return "Denied"
	case TokenExpired:
		return "TokenExpired"
	case Throttled:
		return "Throttled"
	case Unavailable:
		return "Unavailable"
	default:
		return fmt.Sprintf("Kind(%d)", int(k))
	}
}

// Error is why there are no credentials. Its text may be shown to users: it holds
// what AWS said, without the token, and nothing of credentials.
type Error struct {
	// Operation is what was asked.
	Operation string
	Kind      Kind
	// Code and Message are AWS' own. Code is empty if the answer has none.
	Code, Message string
	// Status is the HTTP status. Zero: there was no answer.
	Status int
	// RetryAfter is when to try again, if the answer said so.
	RetryAfter time.Duration
	// Err is why there was no answer.
	Err error
}

// Error says what AWS said.
func (e *Error) Error() string {
	text := e.Operation
	for _, part := range []string{e.Code, e.Message} {
		if part != "" {
			text += ": " + part
		}
	}
	if e.Status != 0 {
		text += fmt.Sprintf(" (HTTP status %d)", e.Status)
	}
	return text
}

// Unwrap returns why there was no answer.
func (e *Error) Unwrap() error { return e.Err }

// AllowsFailover reports whether the STS of another region may do better: this
// one does not work. The agent is the same for all regions.
func (e *Error) AllowsFailover() bool {
	return e.Operation == OperationAssumeRole && e.Kind == Unavailable && (e.Status < 400 || e.Status >= 500)
}

// refused reports whether the answer was no, to the token or to the identity.
func refused(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && (e.Kind == Denied || e.Kind == TokenExpired)
}

// passing reports whether a later login may succeed.
func passing(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && (e.Kind == Throttled || e.Kind == Unavailable)
}

// kindOf tells what an answer means that is no success.
func kindOf(code string, status int) Kind {
	_, throttled := retry.DefaultThrottleErrorCodes[code]
	switch {
	case throttled || status == http.StatusTooManyRequests:
		return Throttled
	case status < 400 || status >= 500 || code == "IDPCommunicationError":
		return Unavailable
	case code == "ExpiredTokenException" || code == "ExpiredToken":
		return TokenExpired
	default:
		return Denied
	}
}

// maxMessage is how much of a text of others a message holds.
const maxMessage = 500

// said makes a text of others fit for messages: without the token, on one line
// and of bounded length.
func said(text string, token sdk.SecretString) string {
	if !token.IsZero() {
		text = strings.ReplaceAll(text, token.Reveal(), token.String())
	}
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }), " ")
	if runes := []rune(text); len(runes) > maxMessage {
		text = string(runes[:maxMessage]) + "…"
	}
	return text
}
