package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/postern-dev/postern/internal/rpc"
)

var errCause = errors.New("cause")

func full() *rpc.Error {
	return &rpc.Error{
		Reason:   rpc.ReasonInvalidParameters,
		Code:     codes.InvalidArgument,
		Message:  `parameters of SecretProviderClass "db" are wrong: set roleName`,
		Metadata: map[string]string{rpc.MetadataProvider: "vault", rpc.MetadataObject: "db"},
		FieldViolations: []rpc.FieldViolation{
			{Field: "roleName", Description: "is required"},
			{Field: "objects", Description: "is not YAML"},
		},
		RetryAfter: 1500 * time.Millisecond,
		Err:        errCause,
	}
}

// overTheWire is what a client sees of err.
func overTheWire(err error) error { return status.FromProto(status.Convert(err).Proto()).Err() }

func TestError_RoundTrip(t *testing.T) {
	t.Parallel()
	for name, mutate := range map[string]func(*rpc.Error){
		"full":          func(*rpc.Error) {},
		"no reason":     func(e *rpc.Error) { e.Reason, e.Metadata = "", nil },
		"no metadata":   func(e *rpc.Error) { e.Metadata = nil },
		"no violations": func(e *rpc.Error) { e.FieldViolations = nil },
		"no retry":      func(e *rpc.Error) { e.RetryAfter = 0 },
		"nothing but a code": func(e *rpc.Error) {
			*e = rpc.Error{Code: codes.Aborted, Message: "Aborted"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want := full()
			mutate(want)
			got := rpc.FromError(overTheWire(want))
			if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(rpc.Error{}, "Err")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestError_Wire fixes what other languages see.
func TestError_Wire(t *testing.T) {
	t.Parallel()
	s := full().GRPCStatus()
	if s.Code() != codes.InvalidArgument || s.Message() != full().Message {
		t.Errorf("status = %v", s)
	}
	if n := len(s.Details()); n != 3 {
		t.Fatalf("%d details, want 3", n)
	}
	info, ok := s.Details()[0].(*errdetails.ErrorInfo)
	if !ok || info.GetDomain() != "postern" || info.GetReason() != "INVALID_PARAMETERS" || info.GetMetadata()["object"] != "db" {
		t.Errorf("first detail = %v", s.Details()[0])
	}
	bad, ok := s.Details()[1].(*errdetails.BadRequest)
	if !ok || len(bad.GetFieldViolations()) != 2 || bad.GetFieldViolations()[1].GetField() != "objects" {
		t.Errorf("second detail = %v", s.Details()[1])
	}
	retry, ok := s.Details()[2].(*errdetails.RetryInfo)
	if !ok || retry.GetRetryDelay().AsDuration() != 1500*time.Millisecond {
		t.Errorf("third detail = %v", s.Details()[2])
	}
	if strings.Contains(fmt.Sprint(s.Proto()), errCause.Error()) {
		t.Errorf("the cause is in the status: %v", s.Proto())
	}
}

func TestError_CodeFromReason(t *testing.T) {
	t.Parallel()
	if got := status.Code(&rpc.Error{Reason: rpc.ReasonAccessDenied}); got != codes.PermissionDenied {
		t.Errorf("code = %v", got)
	}
	if got := status.Code(&rpc.Error{Reason: "SOMETHING_NEW"}); got != codes.Unknown {
		t.Errorf("code of an unknown reason = %v", got)
	}
	if got := status.Code(&rpc.Error{Reason: rpc.ReasonAccessDenied, Code: codes.Aborted}); got != codes.Aborted {
		t.Errorf("explicit code = %v", got)
	}
}

func TestError_Text(t *testing.T) {
	t.Parallel()
	for want, e := range map[string]*rpc.Error{
		"message":          {Message: "message", Reason: rpc.ReasonInternal, Err: errCause},
		"object not found": {Reason: rpc.ReasonObjectNotFound, Err: errCause},
		"Unknown":          {Err: errCause},
	} {
		if got := e.Error(); got != want {
			t.Errorf("Error() = %q, want %q", got, want)
		}
		if !errors.Is(e, errCause) {
			t.Errorf("%q does not unwrap to its cause", want)
		}
	}
}

func TestFromError(t *testing.T) {
	t.Parallel()
	direct := full()
	for name, tt := range map[string]struct {
		err  error
		want *rpc.Error
	}{
		"nil":    {nil, nil},
		"direct": {direct, direct},
		"wrapped": {
			fmt.Errorf("provider(vault): %w", &rpc.Error{Reason: rpc.ReasonRateLimited, Message: "slow down", RetryAfter: time.Second}),
			&rpc.Error{Reason: rpc.ReasonRateLimited, Message: "provider(vault): slow down", RetryAfter: time.Second},
		},
		"status":         {status.Error(codes.NotFound, "no such"), &rpc.Error{Code: codes.NotFound, Message: "no such"}},
		"wrapped status": {fmt.Errorf("x: %w", status.Error(codes.NotFound, "no such")), &rpc.Error{Code: codes.NotFound, Message: "x: rpc error: code = NotFound desc = no such"}},
		"foreign domain": {
			withDetail(t, &errdetails.ErrorInfo{Domain: "googleapis.com", Reason: "OTHER"}),
			&rpc.Error{Code: codes.Aborted, Message: "m"},
		},
		"deadline": {
			fmt.Errorf("wait: %w", context.DeadlineExceeded),
			&rpc.Error{Reason: rpc.ReasonDeadlineExceeded, Code: codes.DeadlineExceeded, Message: "wait: context deadline exceeded"},
		},
		"canceled": {context.Canceled, &rpc.Error{Code: codes.Canceled, Message: "context canceled"}},
		"other":    {errCause, &rpc.Error{Code: codes.Unknown, Message: "cause"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := rpc.FromError(tt.err)
			if diff := cmp.Diff(tt.want, got, cmpopts.IgnoreFields(rpc.Error{}, "Err")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if tt.err != nil && !errors.Is(got, tt.err) {
				t.Error("the result's chain lost the error")
			}
		})
	}
}

func withDetail(t *testing.T, info *errdetails.ErrorInfo) error {
	t.Helper()
	s, err := status.New(codes.Aborted, "m").WithDetails(info)
	if err != nil {
		t.Fatal(err)
	}
	return s.Err()
}

// TestError_FitsHeaders: what does not fit, or is not text, must not lose the
// error.
func TestError_FitsHeaders(t *testing.T) {
	t.Parallel()
	e := full()
	e.Message = strings.Repeat("é", 10_000)
	e.Metadata[rpc.MetadataObject] = "bad \xff utf-8"
	got := rpc.FromError(overTheWire(e))
	if len(got.Message) > 4096 || !utf8.ValidString(got.Message) || !strings.HasSuffix(got.Message, "é...") {
		t.Errorf("message has %d bytes, valid %t", len(got.Message), utf8.ValidString(got.Message))
	}
	if got.Reason != rpc.ReasonInvalidParameters || got.Metadata[rpc.MetadataObject] != "bad \uFFFD utf-8" {
		t.Errorf("details = %q %q", got.Reason, got.Metadata)
	}
}

// TestCodeOf is the table of the comments in postern.secret.v1.ErrorReason.
func TestCodeOf(t *testing.T) {
	t.Parallel()
	for reason, want := range map[string]codes.Code{
		"OBJECT_NOT_FOUND":                codes.NotFound,
		"ACCESS_DENIED":                   codes.PermissionDenied,
		"LOGIN_FAILED":                    codes.Unauthenticated,
		"INVALID_PARAMETERS":              codes.InvalidArgument,
		"RATE_LIMITED":                    codes.ResourceExhausted,
		"STORE_UNAVAILABLE":               codes.Unavailable,
		"TOKEN_MISSING":                   codes.FailedPrecondition,
		"TOKEN_INVALID":                   codes.Unauthenticated,
		"PROVIDER_UNAVAILABLE":            codes.Unavailable,
		"INVALID_RESPONSE":                codes.Internal,
		"RESPONSE_TOO_LARGE":              codes.Internal,
		"POLICY_DENIED":                   codes.PermissionDenied,
		"BUDGET_EXHAUSTED":                codes.ResourceExhausted,
		"DEADLINE_EXCEEDED":               codes.DeadlineExceeded,
		"GATEWAY_UNAVAILABLE":             codes.Unavailable,
		"SECRET_PROVIDER_CLASS_NOT_FOUND": codes.NotFound,
		"CALLER_REFUSED":                  codes.PermissionDenied,
		"MOUNT_FAILED":                    codes.Internal,
		"INTERNAL":                        codes.Internal,
		"UNSPECIFIED":                     codes.Unknown,
		"":                                codes.Unknown,
	} {
		if got := rpc.CodeOf(reason); got != want {
			t.Errorf("CodeOf(%q) = %v, want %v", reason, got, want)
		}
	}
}
