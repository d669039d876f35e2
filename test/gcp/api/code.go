package api

import (
	"net/http"
	"strconv"

	"google.golang.org/grpc/codes"
)

// codeNames are Google's names of the codes, by number.
func codeNames() []string {
	return []string{
		"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
		"RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
	}
}

// CodeName returns Google's name of a code.
func CodeName(code codes.Code) string {
	if names := codeNames(); int(code) < len(names) {
		return names[code]
	}
	return "UNKNOWN"
}

// ParseCode reads the name of an error's code.
func ParseCode(name string) (codes.Code, bool) {
	var code codes.Code
	err := code.UnmarshalJSON([]byte(strconv.Quote(name)))
	return code, err == nil && code != codes.OK
}

// HTTPStatus is the status that goes with a code.
func HTTPStatus(code codes.Code) int {
	switch code {
	case codes.OK:
		return http.StatusOK
	case codes.InvalidArgument, codes.FailedPrecondition, codes.OutOfRange:
		return http.StatusBadRequest
	case codes.Unauthenticated:
		return http.StatusUnauthorized
	case codes.PermissionDenied:
		return http.StatusForbidden
	case codes.NotFound:
		return http.StatusNotFound
	case codes.AlreadyExists, codes.Aborted:
		return http.StatusConflict
	case codes.ResourceExhausted:
		return http.StatusTooManyRequests
	case codes.Unimplemented:
		return http.StatusNotImplemented
	case codes.Unavailable:
		return http.StatusServiceUnavailable
	case codes.DeadlineExceeded:
		return http.StatusGatewayTimeout
	default:
		return http.StatusInternalServerError
	}
}
