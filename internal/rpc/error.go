package rpc

import (
	"context"
	"errors"
	"maps"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"
)

// maxTextBytes bounds a status's message and each text in its details: they
// travel in HTTP/2 headers, which peers limit.
const maxTextBytes = 4096

// Error is a failure on its way to, or from, a gRPC edge. No text in it may hold
// a token or a secret's content.
type Error struct {
	// Reason is one of the Reason constants, or "" for an error that came from
	// a peer that has none.
	Reason string
	// Code is the status code. OK, the zero value, means CodeOf(Reason).
	Code codes.Code
	// Message says what failed, for which object, and what to do.
	Message string
	// Metadata holds what is known of the Metadata keys.
	Metadata map[string]string
	// FieldViolations say which parameters are wrong.
	FieldViolations []FieldViolation
	// RetryAfter is how long to wait before the next try; 0 says nothing.
	RetryAfter time.Duration
	// Err is the cause, for errors.Is and errors.As. Its text goes nowhere,
	// unless the author put it into Message.
	Err error
}

// FieldViolation says what is wrong with one field of the input.
type FieldViolation struct {
	// Field is the field's or the parameter's name.
	Field string
	// Description says what is wrong and what would be right.
	Description string
}

// Error implements error.
func (e *Error) Error() string {
	switch {
	case e.Message != "":
		return e.Message
	case e.Reason != "":
		return strings.ToLower(strings.ReplaceAll(e.Reason, "_", " "))
	default:
		return e.code().String()
	}
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

func (e *Error) code() codes.Code {
	if e.Code == codes.OK {
		return CodeOf(e.Reason)
	}
	return e.Code
}

// GRPCStatus returns the error as it travels: ErrorInfo, and where there is
// something to say BadRequest and RetryInfo. It lets the package status convert
// an Error, also one that is wrapped.
func (e *Error) GRPCStatus() *status.Status {
	s := status.New(e.code(), clip(e.Error()))
	var details []protoadapt.MessageV1
	if e.Reason != "" {
		info := &errdetails.ErrorInfo{Domain: Domain, Reason: e.Reason}
		for k, v := range e.Metadata {
			if info.Metadata == nil {
				info.Metadata = make(map[string]string, len(e.Metadata))
			}
			info.Metadata[clip(k)] = clip(v)
		}
		details = append(details, info)
	}
	if len(e.FieldViolations) > 0 {
		bad := new(errdetails.BadRequest)
		for _, v := range e.FieldViolations {
			bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{
				Field: clip(v.Field), Description: clip(v.Description),
			})
		}
		details = append(details, bad)
	}
	if e.RetryAfter > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(e.RetryAfter)})
	}
	if len(details) == 0 {
		return s
	}
	detailed, err := s.WithDetails(details...)
	if err != nil {
		return s // all text is valid UTF-8, so only a code of OK could be
	}
	return detailed
}

// FromError returns what err says, and nil for nil. An *Error in err's chain is
// returned as it is, or as a copy with the whole text if it is wrapped. Else a
// status is read, such as one that came from a server. Else a context's error is
// DEADLINE_EXCEEDED or Canceled, and all others are Unknown without a reason.
// The result's chain contains err.
func FromError(err error) *Error {
	if err == nil {
		return nil
	}
	if direct, ok := err.(*Error); ok { //nolint:errorlint // asks whether it is not wrapped
		return direct
	}
	if wrapped, ok := errors.AsType[*Error](err); ok {
		c := *wrapped
		c.Message, c.Err = err.Error(), err
		return &c
	}
	if s, ok := status.FromError(err); ok {
		return fromStatus(s, err)
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return &Error{Reason: ReasonDeadlineExceeded, Code: codes.DeadlineExceeded, Message: err.Error(), Err: err}
	case errors.Is(err, context.Canceled):
		return &Error{Code: codes.Canceled, Message: err.Error(), Err: err}
	default:
		return &Error{Code: codes.Unknown, Message: err.Error(), Err: err}
	}
}

func fromStatus(s *status.Status, err error) *Error {
	e := &Error{Code: s.Code(), Message: s.Message(), Err: err}
	for _, detail := range s.Details() {
		switch d := detail.(type) {
		case *errdetails.ErrorInfo:
			if d.GetDomain() == Domain {
				e.Reason, e.Metadata = d.GetReason(), maps.Clone(d.GetMetadata())
			}
		case *errdetails.BadRequest:
			for _, v := range d.GetFieldViolations() {
				e.FieldViolations = append(e.FieldViolations, FieldViolation{Field: v.GetField(), Description: v.GetDescription()})
			}
		case *errdetails.RetryInfo:
			e.RetryAfter = max(0, d.GetRetryDelay().AsDuration())
		}
	}
	return e
}

// clip makes s fit for a header: valid UTF-8 of at most maxTextBytes.
func clip(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= maxTextBytes {
		return s
	}
	const mark = "..."
	cut := maxTextBytes - len(mark)
	for !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + mark
}
