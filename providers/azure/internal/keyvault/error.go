package keyvault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"

	"github.com/postern-dev/postern/providers/azure/internal/params"
)

// maxMessage bounds what is repeated of the vault's text.
const maxMessage = 1024

// errorCode is what a vault's codes look like.
var errorCode = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.]{0,63}$`)

// Kind says what a failure means for whoever asked.
type Kind int

// The kinds.
const (
	// NotFound: there is no such object or version, or it is deleted.
	NotFound Kind = iota + 1
	// Disabled: the object is there, and nobody may have it.
	Disabled
	// Denied: the vault knows who asks and refuses. Or it belongs to a tenant or a
	// cloud that the identity has no token for.
	Denied
	// BadCredentials: the vault does not take the token, or not any more.
	BadCredentials
	// Throttled: there were too many requests.
	Throttled
	// Unavailable: the vault cannot be reached, does not work, or is none.
	Unavailable
	// Invalid: the request is not one that vaults take.
	Invalid
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
	default:
		return "unknown"
	}
}

// Error is what a vault answered instead, or why it did not. Its text may be shown
// to users: it holds neither tokens nor contents.
type Error struct {
	Kind Kind
	// Vault is its URL.
	Vault string
	// Operation is the permission that it takes, such as "secrets/get".
	Operation string
	// Object is the name as it was asked for. Empty for a list of objects.
	Object string
	// Code and InnerCode are the vault's own, such as Forbidden and ForbiddenByRbac;
	// empty if there was none.
	Code, InnerCode string
	// Message is never empty.
	Message string
	// Status is the HTTP status. Zero: there was no answer.
	Status int
	// RetryAfter is when to try again, if that is known.
	RetryAfter time.Duration
	// Err is why there was no answer, for errors.Is and errors.As.
	Err error
}

// Error says where it failed and what the vault said.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Vault + ": " + e.Operation)
	if e.Object != "" {
		b.WriteString(" " + e.Object)
	}
	b.WriteString(": ")
	if e.Code != "" {
		b.WriteString(e.Code)
		if e.InnerCode != "" {
			b.WriteString(" (" + e.InnerCode + ")")
		}
		b.WriteString(": ")
	}
	b.WriteString(e.Message)
	return b.String()
}

// Unwrap returns why there was no answer.
func (e *Error) Unwrap() error { return e.Err }

// operation is what a request does, for errors and logs.
type operation struct {
	kind params.ObjectType
	verb string
	// object is empty where it is for all.
	object string
}

// String is the permission that the operation takes.
func (o operation) String() string { return collection(o.kind) + "/" + o.verb }

// noun is what texts call an object of a type.
func noun(kind params.ObjectType) string {
	if kind == params.Certificate {
		return "certificate"
	}
	return string(kind)
}

// of is the same failure, of another operation that waited for the failed one.
func (e *Error) of(did operation) *Error {
	one := *e
	one.Operation, one.Object = did.String(), did.object
	return &one
}

// whileListed is a failure to read a version that the vault had just listed. That it
// is gone by now is a reason to look again: the object itself is there.
func (e *Error) whileListed(version string) *Error {
	if e.Kind != NotFound && e.Kind != Disabled {
		return e
	}
	one := *e
	one.Kind = Unavailable
	one.Message = fmt.Sprintf("version %s was listed, and could not be read a moment later: %s", version, e.Message)
	return &one
}

// refused is an operation that no request is made for.
func (o operation) refused(vault string, err error) *Error {
	return &Error{Kind: Invalid, Vault: vault, Operation: o.String(), Object: o.object, Message: err.Error(), Err: err}
}

// ended is an operation whose context has ended.
func (o operation) ended(vault string, err error) *Error {
	return &Error{
		Kind: Unavailable, Vault: vault, Operation: o.String(), Object: o.object,
		Message: "there was no time left for an answer", Err: err,
	}
}

// failed makes an Error of what the SDK returned. Of the vault's answer only texts
// are kept: the SDK's error holds the request and its token.
func (o operation) failed(vault string, a *attempts, err error) *Error {
	e := &Error{Vault: vault, Operation: o.String(), Object: o.object}
	if a != nil {
		e.Status = a.status
	}
	if said, ok := errors.AsType[*azcore.ResponseError](err); ok {
		e.answered(said)
	} else {
		e.unanswered(err)
	}
	if e.Kind == Throttled && e.RetryAfter == 0 && a != nil {
		e.RetryAfter = a.delay
	}
	e.Message = clean(e.Message, a)
	return e
}

// answered is for an answer that is an error.
func (e *Error) answered(said *azcore.ResponseError) {
	e.Status = said.StatusCode
	e.RetryAfter = retryAfter(said.RawResponse)
	e.Code, e.InnerCode, e.Message = texts(said)
	e.Kind = kindOf(e.Status, e.Code, e.InnerCode)
	switch {
	case e.Code != "":
	case e.Status == http.StatusUnauthorized:
		e.Message = "the vault does not take the token"
	default:
		// Not the API's answer, and not to be repeated: it may be a proxy's page.
		e.Message = fmt.Sprintf("the answer, of HTTP status %d, is not a vault's", e.Status)
	}
}

// texts are what a vault says of an error: its codes and its message.
func texts(said *azcore.ResponseError) (code, inner, message string) {
	var body struct {
		Error struct {
			Code, Message string
			InnerError    struct{ Code string }
		}
	}
	if said.RawResponse != nil {
		if data, err := runtime.Payload(said.RawResponse); err == nil {
			_ = json.Unmarshal(data, &body) // what is not JSON has no texts
		}
	}
	if body.Error.Code == "" {
		body.Error.Code = said.ErrorCode // of a header
	}
	if !errorCode.MatchString(body.Error.Code) {
		return "", "", ""
	}
	if inner = body.Error.InnerError.Code; !errorCode.MatchString(inner) {
		inner = ""
	}
	return body.Error.Code, inner, body.Error.Message
}

// kindOf classifies an answer. That an object is not there has to be said by the
// vault: what another server does not have says nothing.
func kindOf(status int, code, inner string) Kind {
	switch {
	case status == http.StatusTooManyRequests:
		return Throttled
	case status >= 500, status < 400, status == http.StatusRequestTimeout:
		return Unavailable
	case status == http.StatusUnauthorized:
		return BadCredentials
	case code == "":
		return Unavailable
	case status == http.StatusForbidden && strings.HasSuffix(inner, "Disabled"):
		return Disabled
	case status == http.StatusForbidden:
		return Denied
	case code == "SecretNotFound", code == "KeyNotFound", code == "CertificateNotFound":
		return NotFound
	default:
		return Invalid
	}
}

// unanswered is for a request that got no answer, one that is no vault's, or that
// could not be made.
func (e *Error) unanswered(err error) {
	e.Kind, e.Message = Unavailable, err.Error()
	if refused, ok := errors.AsType[*tokenError](err); ok {
		e.Kind, e.Err = Denied, refused.error
		e.Message = refused.Error()
		return
	}
	if sending, ok := errors.AsType[*transportError](err); ok {
		e.Err = sending.error
		e.Message = whyUnreachable(e.Vault, sending.error)
		if addressed, ok := errors.AsType[*url.Error](e.Err); ok {
			e.Err = addressed.Err // without the address, which the Error has
		}
		return
	}
	if _, ok := errors.AsType[*incompleteError](err); ok || errors.Is(err, errElsewhere) || errors.Is(err, errNoChallenge) {
		return
	}
	switch {
	case e.Status == http.StatusUnauthorized:
		// The SDK's own refusal, of a resource that is not the host's domain.
		e.Kind = Denied
		e.Message = "the host asks for a token of another domain than its own, so it gets none: is it a vault of this cloud?"
	case e.Status != 0:
		// The decoder's error may repeat what it could not read.
		e.Message = fmt.Sprintf("the answer, of HTTP status %d, is not a vault's", e.Status)
	default:
		e.Kind = Invalid
	}
}

// whyUnreachable says why a host cannot be reached.
func whyUnreachable(vault string, err error) string {
	text := err.Error()
	if sending, ok := errors.AsType[*url.Error](err); ok {
		text = sending.Err.Error()
	}
	if status, ok := refusedByProxy(err); ok {
		return fmt.Sprintf("the proxy does not connect to it (%s): the vault may not exist in this cloud, or the proxy may not let it be reached", status)
	}
	address, _ := url.Parse(vault)
	lookup, ok := errors.AsType[*net.DNSError](err)
	switch {
	case ok && lookup.IsNotFound && address != nil && strings.EqualFold(strings.TrimSuffix(lookup.Name, "."), address.Hostname()):
		return fmt.Sprintf("the name %s does not resolve: the vault may not exist in this cloud, or its name may be known in a private network alone", address.Hostname())
	case untrusted(err):
		return text + ": if a proxy ends TLS, its authority has to be among those that the provider trusts"
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprintf("there was no answer within %s", tryTimeout)
	default:
		return text
	}
}

// clean makes one line of a text, which is bounded and without the token.
func clean(text string, a *attempts) string {
	if a != nil && a.token != "" {
		text = strings.ReplaceAll(text, strings.TrimPrefix(a.token, "Bearer "), "[redacted]")
	}
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > maxMessage {
		text = strings.ToValidUTF8(text[:maxMessage], "") + "..."
	}
	if text == "" {
		return "the vault gave no reason"
	}
	return text
}
