package identity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"
)

// invalid is of an exchange without a request: nobody could be asked.
func (e *exchange) invalid(err error) *Error {
	return &Error{Operation: e.operation, Kind: Invalid, Message: e.said(err.Error(), maxMessage)}
}

// failure says why there is no token, from the last answer.
func (e *exchange) failure(err error) *Error {
	a := e.last
	switch {
	case a.url == nil && errors.Is(err, context.DeadlineExceeded):
		return &Error{Operation: e.operation, Kind: Unavailable, Message: "there was no time to ask", Err: context.DeadlineExceeded}
	case a.url == nil:
		return e.unasked(err)
	case a.err != nil:
		return e.unreached()
	case a.success():
		return e.malformed()
	default:
		return e.refusal()
	}
}

// unasked is of a login without a request of the exchange's: the credentials are
// unfit, or were to be had of somebody else. The cause is not kept: it may hold what
// that one said.
func (e *exchange) unasked(err error) *Error {
	failure := e.invalid(err)
	if e.key.kind == Provider {
		failure.Kind = Unavailable
	}
	return failure
}

// unreached is of a request without an answer.
func (e *exchange) unreached() *Error {
	why := e.last.err.Error()
	if isTimeout(e.last.err) {
		why = "no answer in time"
	}
	return &Error{
		Operation: e.operation, Kind: Unavailable, Err: e.last.err, Message: e.said(e.host()+": "+why, maxMessage),
	}
}

// malformed is of an answer that is of no use. It may hold a token, and so nothing
// of it is said.
func (e *exchange) malformed() *Error {
	message := "the answer holds no access token"
	var object map[string]json.RawMessage
	if json.Unmarshal(e.last.body, &object) != nil {
		message = e.notTheirs()
	}
	return &Error{Operation: e.operation, Kind: Unavailable, Status: e.last.status, Message: message}
}

// host is who was asked last: without a request of the exchange's, the node.
func (e *exchange) host() string {
	if e.last.url == nil {
		return "the metadata server"
	}
	return e.last.url.Host
}

func (e *exchange) notTheirs() string {
	return fmt.Sprintf("what %s answers is not what is to be there: check the address, and whether a proxy is in between", e.host())
}

// words are how Google says no: as OAuth has it (RFC 6749, section 5.2), or as its
// APIs have it (https://google.aip.dev/193).
type words struct {
	code, text string
	// reason and service are of google.rpc.ErrorInfo, retry of RetryInfo.
	reason, service string
	retry           time.Duration
}

// read returns what a body says; ok is false if it is something else.
func read(body []byte) (w words, ok bool) {
	var oauth struct {
		Error       json.RawMessage `json:"error"`
		Description string          `json:"error_description"`
	}
	if json.Unmarshal(body, &oauth) != nil {
		return w, false
	}
	w.text = oauth.Description
	if json.Unmarshal(oauth.Error, &w.code) == nil {
		return w, true
	}
	var api struct {
		Message string          `json:"message"`
		Status  string          `json:"status"`
		Details json.RawMessage `json:"details"`
	}
	if json.Unmarshal(oauth.Error, &api) != nil {
		return w, false
	}
	w.code, w.text = api.Status, api.Message
	w.readDetails(api.Details)
	return w, true
}

// readDetails reads those that it knows: others may be anything.
func (w *words) readDetails(raw json.RawMessage) {
	var details []json.RawMessage
	_ = json.Unmarshal(raw, &details) // none are none
	for _, one := range details {
		var detail struct {
			Type       string            `json:"@type"`
			Reason     string            `json:"reason"`
			Metadata   map[string]string `json:"metadata"`
			RetryDelay string            `json:"retryDelay"`
		}
		if json.Unmarshal(one, &detail) != nil {
			continue
		}
		switch detail.Type {
		case "type.googleapis.com/google.rpc.ErrorInfo":
			w.reason, w.service = detail.Reason, detail.Metadata["service"]
		case "type.googleapis.com/google.rpc.RetryInfo":
			w.retry, _ = time.ParseDuration(detail.RetryDelay) // zero: nothing said
		}
	}
}

var codeWord = regexp.MustCompile(`^(?:[a-z_]{1,64}|[A-Z_]{1,64})$`)

// refusal says what the answer said.
func (e *exchange) refusal() *Error {
	failure := &Error{Operation: e.operation, Status: e.last.status, RetryAfter: e.last.retryAfter()}
	w, ok := read(e.last.body)
	if !ok {
		failure.Kind, failure.Message = Unavailable, e.notTheirs()
		if e.last.status == http.StatusTooManyRequests {
			failure.Kind, failure.Message = Throttled, "too many requests"
		}
		return failure
	}
	if code := e.said(w.code, maxClaim); codeWord.MatchString(code) {
		failure.Code = code
	}
	failure.Message = e.said(w.text, maxMessage)
	failure.RetryAfter = max(failure.RetryAfter, w.retry)
	failure.Kind = e.kindOf(w)
	failure.Fix = e.fix(w, failure.Kind)
	return failure
}

// kindOf tells what an answer means that is no success.
func (e *exchange) kindOf(w words) ErrorKind {
	status := e.last.status
	switch {
	case status == http.StatusTooManyRequests, w.code == "RESOURCE_EXHAUSTED", w.reason == "RATE_LIMIT_EXCEEDED":
		return Throttled
	case e.operation == OperationSTS && w.noIssuer():
		return Unavailable
	case e.operation == OperationSTS && w.code == "invalid_grant" && (w.stale() || e.expired()):
		return TokenExpired
	case status < http.StatusBadRequest, status >= http.StatusInternalServerError, status == http.StatusRequestTimeout,
		status == http.StatusProxyAuthRequired, w.code == "temporarily_unavailable", w.code == "server_error":
		return Unavailable
	default:
		return Denied
	}
}

// noIssuer reports whether Google could not have the issuer's keys.
func (w words) noIssuer() bool {
	return strings.Contains(w.text, "Error connecting to the given credential's issuer")
}

// stale reports whether the pod's token is too old.
func (w words) stale() bool {
	text := strings.ToLower(w.text)
	return strings.Contains(text, "is stale to sign-in") || strings.Contains(text, "expired")
}

// expired reports whether the pod's token has expired by now.
func (e *exchange) expired() bool {
	for _, one := range e.secrets {
		if exp := claimsOf(one).Expiry; exp > 0 && float64(time.Now().Unix()) >= exp {
			return true
		}
	}
	return false
}
