package identity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"github.com/postern-dev/postern/providers/azure/internal/retryafter"
)

// invalid is of an exchange without a request: nobody could be asked.
func (e *exchange) invalid(err error) *Error {
	return &Error{Operation: e.operation, Kind: Invalid, Message: said(err.Error(), e.proof, maxMessage), Err: err}
}

// failure says why there is no token, from the last answer.
func (e *exchange) failure(err error) *Error {
	a := e.last
	switch {
	case a.url == nil && (errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)):
		return &Error{Operation: e.operation, Kind: Unavailable, Message: "there was no time to ask", Err: err}
	case a.url == nil:
		return e.invalid(errors.New(err.Error()))
	case a.err != nil:
		return e.unreached()
	case a.success():
		return e.malformed()
	default:
		return e.refusal()
	}
}

// unreached is of a request without an answer.
func (e *exchange) unreached() *Error {
	cause := e.last.err
	if sending, ok := errors.AsType[*url.Error](cause); ok {
		cause = sending.Err // the address is said here
	}
	why := cause.Error()
	if isTimeout(cause) {
		why = "no answer in time"
	}
	return &Error{
		Operation: e.operation, Kind: Unavailable, Err: cause,
		Message: said(e.host()+": "+why, e.proof, maxMessage), Fix: e.nodeFix(),
	}
}

// malformed is of an answer that the SDK cannot use. It may hold a token, and so
// nothing of it is said.
func (e *exchange) malformed() *Error {
	message := fmt.Sprintf("the answer holds no access token for %s with an expiry", e.key.cloud.VaultScope)
	var object map[string]json.RawMessage
	if json.Unmarshal(e.last.body, &object) != nil || strings.HasSuffix(e.last.url.Path, "/.well-known/openid-configuration") {
		message = e.notTheirs()
	}
	return &Error{Operation: e.operation, Kind: Unavailable, Status: e.last.status, Message: message}
}

func (e *exchange) notTheirs() string {
	return fmt.Sprintf("what %s answers is not what is to be there: check the address, and whether a proxy is in between", e.host())
}

// words are how Entra, ADFS, the instance metadata service and proxies say no
// (RFC 6749, section 5.2). Kubernetes has message instead.
type words struct {
	Error         json.RawMessage `json:"error"`
	Description   string          `json:"error_description"`
	Codes         []int           `json:"error_codes"`
	Message       string          `json:"message"`
	TraceID       string          `json:"trace_id"`
	CorrelationID string          `json:"correlation_id"`
	Timestamp     string          `json:"timestamp"`
}

// refusal says what the answer said.
func (e *exchange) refusal() *Error {
	failure := &Error{Operation: e.operation, Status: e.last.status, RetryAfter: retryafter.Of(e.last.header)}
	var w words
	mismatch, ok := errors.AsType[*json.UnmarshalTypeError](json.Unmarshal(e.last.body, &w))
	if ok && mismatch.Field == "" || !json.Valid(e.last.body) {
		return e.inText(failure)
	}
	var code string
	if json.Unmarshal(w.Error, &code) != nil {
		_ = json.Unmarshal(w.Error, &w) // an object with a message: what is none changes nothing
	}
	number, description := w.number(), w.Description
	if description == "" {
		description = w.Message
	}
	failure.Code = oauthCode(said(code, e.proof, maxIDs))
	if number != 0 {
		failure.Code = fmt.Sprintf("AADSTS%d", number)
		description = strings.TrimPrefix(strings.TrimSpace(description), failure.Code+": ")
	}
	failure.Message = e.message(description, w)
	failure.Kind = e.kindOf(number, code)
	failure.Fix = e.fix(number)
	return failure
}

// inText is of an answer that is no JSON: so the NMI says no. Elsewhere it is of
// something in between.
func (e *exchange) inText(failure *Error) *Error {
	switch {
	case e.last.status == http.StatusTooManyRequests:
		failure.Kind, failure.Message = Throttled, "too many requests"
	case e.key.kind == PodIdentity:
		failure.Kind, failure.Message = e.kindOf(0, ""), said(string(e.last.body), e.proof, maxMessage)
	default:
		failure.Kind, failure.Message = Unavailable, e.notTheirs()
	}
	failure.Fix = e.nodeFix()
	return failure
}

// aadsts is what Entra's texts begin with.
var aadsts = regexp.MustCompile(`^\s*AADSTS(\d{3,9})\b`)

// number is Entra's own code; zero: none.
func (w words) number() int {
	if found := aadsts.FindStringSubmatch(w.Description); found != nil {
		n, _ := strconv.Atoi(found[1]) // digits, of a bounded number
		return n
	}
	if len(w.Codes) > 0 {
		return w.Codes[0]
	}
	return 0
}

var oauthWord = regexp.MustCompile(`^[a-z_]{1,64}$`)

// oauthCode is the code if it is one: it is said as it is.
func oauthCode(code string) string {
	if oauthWord.MatchString(code) {
		return code
	}
	return ""
}

// message is the description, cut if need be, and then always the IDs.
func (e *exchange) message(description string, w words) string {
	head, ids := description, ""
	if i := strings.Index(description, "Trace ID:"); i >= 0 {
		head, ids = description[:i], description[i:]
	} else if w.TraceID != "" || w.CorrelationID != "" {
		ids = fmt.Sprintf("Trace ID: %s Correlation ID: %s Timestamp: %s", w.TraceID, w.CorrelationID, w.Timestamp)
	}
	return strings.TrimSpace(said(head, e.proof, maxMessage) + " " + said(ids, e.proof, maxIDs))
}

// kindOf tells what an answer means that is no success, by Entra's number, OAuth's
// code and the status.
// https://learn.microsoft.com/entra/identity-platform/reference-error-codes
func (e *exchange) kindOf(number int, code string) ErrorKind {
	switch number {
	case 90055: // too many requests of the tenant
		return Throttled
	case 700024: // the assertion is not within its valid time
		return TokenExpired
	case 50166, 501661: // the issuer's documents cannot be had
		return Unavailable
	}
	switch status := e.last.status; {
	case status == http.StatusTooManyRequests:
		return Throttled
	case code == "temporarily_unavailable" || code == "server_error":
		return Unavailable
	case status < http.StatusBadRequest || status >= http.StatusInternalServerError,
		status == http.StatusRequestTimeout, status == http.StatusGone, status == http.StatusProxyAuthRequired,
		status == http.StatusNotFound && e.key.kind == ManagedIdentity:
		return Unavailable
	default:
		return Denied
	}
}
