package identity

import (
	"fmt"
	"html"
	"net/url"
	"regexp"
	"strings"
	"time"
	"unicode"

	"github.com/postern-dev/postern/providers/sdk"
)

// What was asked, as messages call it.
const (
	OperationEntra           = "Entra ID"
	OperationManagedIdentity = "instance metadata service"
	OperationPodIdentity     = "NMI of AAD Pod Identity"
	OperationTokenProxy      = "token proxy of AKS"
)

func operationOf(k Kind) string {
	switch k {
	case WorkloadIdentity, ServicePrincipal:
		return OperationEntra
	case ManagedIdentity:
		return OperationManagedIdentity
	case PodIdentity:
		return OperationPodIdentity
	case IdentityBinding:
		return OperationTokenProxy
	default:
		return ""
	}
}

// ErrorKind is what a failure means for who wanted a token.
type ErrorKind int

// The kinds.
const (
	// Invalid: there was nothing to ask, or nobody.
	Invalid ErrorKind = iota
	// Denied: the answer is no, and would be again.
	Denied
	// TokenExpired: the answer is no because the pod's token is too old, or not yet
	// valid.
	TokenExpired
	// Throttled: Entra asks to slow down.
	Throttled
	// Unavailable: there was no answer, or none of use.
	Unavailable
)

func (k ErrorKind) String() string {
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
		return fmt.Sprintf("ErrorKind(%d)", int(k))
	}
}

// Error is why there is no token. Its text may be shown to users: it holds what
// Entra said, without assertion, secret and token.
type Error struct {
	// Operation is what was asked.
	Operation string
	Kind      ErrorKind
	// Code is Entra's, such as AADSTS700213, or else OAuth's, such as
	// invalid_request. It is empty if the answer has none.
	Code string
	// Message is what the answer says, with the IDs by which Microsoft's support
	// finds the request.
	Message string
	// Fix is what to do, where the code tells; "" otherwise.
	Fix string
	// Status is the HTTP status. Zero: there was no answer.
	Status int
	// RetryAfter is when to try again, if the answer said so.
	RetryAfter time.Duration
	// Err is why there was no answer.
	Err error
}

// Error says what Entra said.
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

const (
	// maxMessage is how much of a text of others a message holds, and maxIDs how
	// much of the IDs behind it.
	maxMessage = 600
	maxIDs     = 250
)

// jwt is what tokens begin with: the header of a JWT, and what follows.
var jwt = regexp.MustCompile(`eyJ[A-Za-z0-9_-]{5,}[A-Za-z0-9_.-]*`)

// said makes a text of others fit for messages: without what the login was made
// with and without tokens, on one line and of bounded length.
func said(text string, proof sdk.SecretString, limit int) string {
	if !proof.IsZero() {
		secret := proof.Reveal()
		for _, form := range []string{secret, url.QueryEscape(secret), url.PathEscape(secret), html.EscapeString(secret)} {
			text = strings.ReplaceAll(text, form, proof.String())
		}
	}
	text = jwt.ReplaceAllString(text, proof.String())
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }), " ")
	if runes := []rune(text); len(runes) > limit {
		text = string(runes[:limit]) + "…"
	}
	return text
}
