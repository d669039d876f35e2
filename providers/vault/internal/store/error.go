package store

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"
)

// Error is a request that failed. Its text may be shown to users: it holds what
// the server said, without tokens, and no content.
type Error struct {
	// Status is the HTTP status. Zero: there was no answer, see Err.
	Status int
	// Texts and Warnings are the server's.
	Texts, Warnings []string
	// RetryAfter is when to try again, if the server said so.
	RetryAfter time.Duration
	// Err is why there was no answer.
	Err error
	// Deleted says that the object is a version that was deleted.
	Deleted bool
}

// Error says what the server said.
func (e *Error) Error() string {
	switch {
	case e.Err != nil:
		return e.Err.Error()
	case e.Status == http.StatusNoContent:
		return "the store's answer is empty"
	}
	text := fmt.Sprintf("HTTP status %d", e.Status)
	if said := append(append([]string(nil), e.Texts...), e.Warnings...); len(said) > 0 {
		text += ": " + strings.Join(said, "; ")
	}
	return text
}

// Unwrap returns why there was no answer.
func (e *Error) Unwrap() error { return e.Err }

// Untrusted reports whether the server's certificate was refused.
func (e *Error) Untrusted() bool {
	_, verification := errors.AsType[*tls.CertificateVerificationError](e.Err)
	_, authority := errors.AsType[x509.UnknownAuthorityError](e.Err)
	return verification || authority
}

// Misconfigured reports whether the request could not be made at all, such as
// for a CA file that cannot be read.
func (e *Error) Misconfigured() bool { return errors.Is(e.Err, errClient) }

// Refused reports whether the server answered that it will not, which another
// attempt does not change.
func (e *Error) Refused() bool {
	return e.Status >= 400 && e.Status < 500 && !e.passing()
}

// passing reports whether the server answered that it cannot now. 412 comes
// from a standby that has not yet seen what it should know.
func (e *Error) passing() bool {
	return e.Status == http.StatusTooManyRequests || e.Status == http.StatusPreconditionFailed ||
		e.Status == 472 || e.Status == 473 || (e.Status >= 500 && e.Status != http.StatusNotImplemented)
}

// again reports whether the request may be sent again: any that only reads,
// and others if they did not reach the server.
func (e *Error) again(readOnly bool) bool {
	if e.Status != 0 {
		return e.passing()
	}
	if e.Untrusted() || e.Misconfigured() {
		return false
	}
	op, ok := errors.AsType[*net.OpError](e.Err)
	return readOnly || (ok && op.Op == "dial")
}

// Is reports whether err is a failure with this HTTP status.
func Is(err error, status int) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Status == status
}

// Refused reports whether err is an answer that another attempt does not
// change.
func Refused(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Refused()
}
