package identity

import (
	"encoding/json"
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
	// OperationSTS is the exchange of a pod's token.
	OperationSTS = "sts"
	// OperationGenerateAccessToken is the impersonation of a service account.
	OperationGenerateAccessToken = "generateAccessToken"
	// OperationOAuth2 is the login with a service account's key.
	OperationOAuth2 = "oauth2"
	// OperationProvider is the login of the provider itself.
	OperationProvider = "application default credentials"
)

func operationOf(k Kind) string {
	switch k {
	case ServiceAccountKey:
		return OperationOAuth2
	case Provider:
		return OperationProvider
	case WorkloadIdentity:
	}
	return OperationSTS
}

// ErrorKind is what a failure means for who wanted a token.
type ErrorKind int

// The kinds.
const (
	// Invalid: there was nothing to ask, or nobody.
	Invalid ErrorKind = iota
	// Denied: the answer is no, and would be again.
	Denied
	// TokenExpired: the answer is no because the pod's token is too old.
	TokenExpired
	// Throttled: Google asks to slow down.
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
// Google said, without key and token.
type Error struct {
	// Operation is what was asked.
	Operation string
	Kind      ErrorKind
	// Code is OAuth's, such as invalid_grant, or Google's, such as
	// PERMISSION_DENIED. It is empty if the answer has none.
	Code string
	// Message is what the answer says.
	Message string
	// Fix is what to do, where the answer tells; "" otherwise.
	Fix string
	// Status is the HTTP status. Zero: there was no answer.
	Status int
	// RetryAfter is when to try again, if the answer said so.
	RetryAfter time.Duration
	// Err is why there was no answer.
	Err error
}

// Error says what Google said.
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
	// maxMessage is how much of a text of others a message holds, and maxClaim how
	// much of a claim.
	maxMessage = 600
	maxClaim   = 250
)

// tokens are what tokens and keys look like: a JWT, an access token of Google's, and
// a key.
var tokens = regexp.MustCompile(`eyJ[A-Za-z0-9_-]{5,}[A-Za-z0-9_.-]*|ya29\.[A-Za-z0-9_.-]+|(?s)-----BEGIN [A-Z ]+-----.*`)

// said makes a text of others fit for messages: without what the login was made
// with and without tokens, on one line and of bounded length.
func (e *exchange) said(text string, limit int) string {
	hidden := sdk.SecretString{}.String()
	for _, one := range e.secrets {
		hidden = one.String()
		for _, form := range forms(one.Reveal()) {
			text = strings.ReplaceAll(text, form, hidden)
		}
	}
	text = tokens.ReplaceAllString(text, hidden)
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }), " ")
	if runes := []rune(text); len(runes) > limit {
		text = string(runes[:limit]) + "…"
	}
	return text
}

// forms are the ways in which an answer may repeat a secret.
func forms(secret string) []string {
	all := []string{secret, url.QueryEscape(secret), url.PathEscape(secret), html.EscapeString(secret)}
	if quoted, err := json.Marshal(secret); err == nil {
		all = append(all, strings.Trim(string(quoted), `"`))
	}
	return all
}
