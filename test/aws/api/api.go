// Package api is what the services of the double have in common: calls that are
// verified, and the errors that AWS answers.
package api

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/postern-dev/postern/test/aws/iam"
)

// Call is a request whose signature and shape are verified.
type Call struct {
	Operation string
	Region    string
	Caller    iam.Caller
	// Input is the request as JSON.
	Input []byte
	// Failing are the items that an injected fault is for, by id.
	Failing func(item string) *Error
}

// Decode reads the input, whose shape has been checked, into v.
func (c Call) Decode(v any) error {
	if err := json.Unmarshal(c.Input, v); err != nil {
		return &Error{Status: http.StatusBadRequest, Code: "SerializationException", Message: err.Error()}
	}
	return nil
}

// Answer is a success, by the members of the output's shape.
type Answer map[string]any

// Error is AWS' answer to what it does not do.
type Error struct {
	Status        int
	Code, Message string
}

func (e *Error) Error() string { return e.Code + ": " + e.Message }

// BadRequest is an error of the caller, which AWS' JSON services all answer
// with status 400.
func BadRequest(code, message string) *Error {
	return &Error{Status: http.StatusBadRequest, Code: code, Message: message}
}

// FromError returns err as AWS answers it.
func FromError(err error) *Error {
	var e *Error
	var denied *iam.DeniedError
	switch {
	case errors.As(err, &e):
		return e
	case errors.As(err, &denied):
		return BadRequest("AccessDeniedException", denied.Error())
	default:
		return &Error{Status: http.StatusInternalServerError, Code: "InternalFailure", Message: err.Error()}
	}
}

// Timestamp writes a time as the JSON protocol has it: seconds and milliseconds.
func Timestamp(t time.Time) json.Number {
	return json.Number(strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', -1, 64))
}
