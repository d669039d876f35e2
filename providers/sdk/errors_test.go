package sdk

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"

	"github.com/postern-dev/postern/internal/rpc"
	secretv1 "github.com/postern-dev/postern/proto/gen/go/postern/secret/v1"
)

// The reasons are those of the contract, and their codes are the contract's.
func TestReasons_MatchProto(t *testing.T) {
	t.Parallel()
	const prefix = "ERROR_REASON_"
	notOurs := map[string]bool{ // the gateway's and the driver's
		"UNSPECIFIED": true, "PROVIDER_UNAVAILABLE": true, "POLICY_DENIED": true, "BUDGET_EXHAUSTED": true,
		"GATEWAY_UNAVAILABLE": true, "SECRET_PROVIDER_CLASS_NOT_FOUND": true, "CALLER_REFUSED": true, "MOUNT_FAILED": true,
	}
	var want []Reason
	for i := range len(secretv1.ErrorReason_name) {
		name := strings.TrimPrefix(secretv1.ErrorReason_name[int32(i)], prefix)
		if !notOurs[name] {
			want = append(want, Reason(name))
		}
	}
	if diff := cmp.Diff(want, Reasons()); diff != "" {
		t.Errorf("reasons (-proto +sdk):\n%s", diff)
	}
	codes := map[Reason]string{
		ReasonObjectNotFound: "NotFound", ReasonAccessDenied: "PermissionDenied", ReasonLoginFailed: "Unauthenticated",
		ReasonInvalidParameters: "InvalidArgument", ReasonRateLimited: "ResourceExhausted", ReasonStoreUnavailable: "Unavailable",
		ReasonTokenMissing: "FailedPrecondition", ReasonTokenInvalid: "Unauthenticated", ReasonInvalidResponse: "Internal",
		ReasonResponseTooLarge: "Internal", ReasonDeadlineExceeded: "DeadlineExceeded", ReasonInternal: "Internal",
	}
	for _, reason := range Reasons() {
		if got := rpc.CodeOf(string(reason)).String(); got != codes[reason] {
			t.Errorf("code of %s is %s, want %s as error.proto says", reason, got, codes[reason])
		}
	}
}

func TestError_Constructors(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err    *Error
		reason Reason
		object string
		text   string
	}{
		{NotFound("db", "no version %d", 3), ReasonObjectNotFound, "db", `object "db": no version 3`},
		{AccessDenied("db", "refused"), ReasonAccessDenied, "db", `object "db": refused`},
		{LoginFailed("role %q", "r"), ReasonLoginFailed, "", `role "r"`},
		{RateLimited("", time.Second, "wait"), ReasonRateLimited, "", "wait"},
		{StoreUnavailable("down"), ReasonStoreUnavailable, "", "down"},
		{TokenMissing("vault"), ReasonTokenMissing, "", `no service account token for audience "vault": add the audience to the ` +
			`tokenRequests of the CSIDriver object secrets-store.csi.k8s.io; with the Helm chart: add {audience: vault} to ` +
			`driver.tokenRequests. The provider itself cannot request tokens`},
		{TokenInvalid("vault", "expired"), ReasonTokenInvalid, "", `service account token for audience "vault": expired`},
		{Internal("odd"), ReasonInternal, "", "odd"},
	} {
		if tt.err.Reason != tt.reason || tt.err.Object != tt.object || tt.err.Error() != tt.text {
			t.Errorf("got %s, object %q, %s\nwant %s, object %q, %s",
				tt.err.Reason, tt.err.Object, tt.err, tt.reason, tt.object, tt.text)
		}
	}
	cause := errors.New("cause")
	plain := NotFound("x", "y")
	if caused := plain.WithCause(cause); !errors.Is(caused, cause) || errors.Is(plain, cause) || caused.Error() != plain.Error() {
		t.Errorf("WithCause: %v", caused)
	}
}

func TestTyped(t *testing.T) {
	t.Parallel()
	const canary = "canary-0123456789"
	_, number := strconv.Atoi(canary) // quotes what it cannot parse
	left, cancel := context.WithCancel(t.Context())
	cancel()
	for _, tt := range []struct {
		name   string
		ctx    context.Context //nolint:containedctx // a test's table
		err    error
		reason Reason
		text   string
	}{
		{"typed", t.Context(), NotFound("x", "gone"), ReasonObjectNotFound, `object "x": gone`},
		{"wrapped", t.Context(), fmt.Errorf("read: %w", NotFound("x", "gone")), ReasonObjectNotFound, `object "x": gone`},
		{"typed, caller left", left, NotFound("x", "gone"), ReasonObjectNotFound, `object "x": gone`},
		{
			"own deadline", t.Context(), fmt.Errorf("get: %w", context.DeadlineExceeded), ReasonDeadlineExceeded,
			"the deadline passed before the store answered",
		},
		{"made up", t.Context(), &Error{Reason: "SOMETHING", Message: "text"}, ReasonInternal, "text"},
		{"gateway's", t.Context(), &Error{Reason: rpc.ReasonPolicyDenied, Message: "text"}, ReasonInternal, "text"},
		{
			"foreign", t.Context(), fmt.Errorf("parse: %w", number), ReasonInternal,
			"the provider failed with an error that it does not explain (*fmt.wrapError: *strconv.NumError: *errors.errorString): " +
				"report this to the provider's authors",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := typed(tt.ctx, tt.err)
			if got.Reason != tt.reason || got.Error() != tt.text {
				t.Errorf("typed() = %s: %s\nwant %s: %s", got.Reason, got, tt.reason, tt.text)
			}
		})
	}
}

// A call whose caller left is nobody's failure, and no deadline passed.
func TestToRPC_CallerLeft(t *testing.T) {
	t.Parallel()
	s := &service{def: &Definition{Name: "example"}}
	left, cancel := context.WithCancel(t.Context())
	cancel()
	for _, tt := range []struct {
		name   string
		err    error
		code   codes.Code
		reason string
	}{
		{"context's error", context.Canceled, codes.Canceled, reasonCanceled},
		{"of a library", fmt.Errorf("get: %w", context.Canceled), codes.Canceled, reasonCanceled},
		{"explained", NotFound("x", "gone"), codes.NotFound, "OBJECT_NOT_FOUND"},
	} {
		if got := rpc.FromError(s.toRPC(left, completeRequest(), tt.err)).Code; got != tt.code {
			t.Errorf("%s: code %s, want %s", tt.name, got, tt.code)
		}
		if got := reasonOf(left, tt.err); got != tt.reason {
			t.Errorf("%s: reason %s, want %s", tt.name, got, tt.reason)
		}
	}
}

func TestToRPC(t *testing.T) {
	t.Parallel()
	s := &service{def: &Definition{Name: "example"}}
	req := completeRequest()
	req.SecretProviderClass = "class"
	req.Tokens = Tokens{{Audience: "a", Token: NewSecretString("token-0123456789")}}
	req.Secrets = map[string]SecretString{"password": NewSecretString("hunter22"), "short": NewSecretString("a")}
	err := s.toRPC(t.Context(), req, &Error{
		Reason: ReasonInvalidParameters, Object: "db", Message: "token-0123456789 and hunter22 are bad",
		Fields: []FieldViolation{{"field", "is hunter22"}}, RetryAfter: time.Second,
	})
	got, ok := errors.AsType[*rpc.Error](err)
	if !ok {
		t.Fatalf("toRPC() = %T", err)
	}
	want := &rpc.Error{
		Reason: "INVALID_PARAMETERS", Code: rpc.CodeOf("INVALID_PARAMETERS"),
		Message:         `object "db": [redacted] and [redacted] are bad`,
		Metadata:        map[string]string{"provider": "example", "secret_provider_class": "class", "object": "db"},
		FieldViolations: []rpc.FieldViolation{{Field: "field", Description: "is [redacted]"}},
		RetryAfter:      time.Second,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("error (-want +got):\n%s", diff)
	}
}

func TestDefinition_Validate(t *testing.T) {
	t.Parallel()
	newProvider := func(context.Context, Environment) (Provider, error) { return nil, errors.New("not called") }
	for _, tt := range []struct {
		name   string
		mutate func(*Definition)
		want   string
	}{
		{"valid", func(*Definition) {}, ""},
		{"no name", func(d *Definition) { d.Name = "" }, `provider name "" is not made of 1 to 30 letters, digits, _ and -`},
		{"bad name", func(d *Definition) { d.Names = []string{"a/b"} }, `provider name "a/b"`},
		{"no constructor", func(d *Definition) { d.New = nil }, "New is nil"},
		{"audience of nothing", func(d *Definition) { d.Audiences = []Audience{{}} }, "audience 0 has not exactly one of Value and Parameter"},
		{"audience of both", func(d *Definition) { d.Audiences = []Audience{{Value: "a", Parameter: "p"}} }, "audience 0 has not exactly one"},
		{
			"default of a value", func(d *Definition) { d.Audiences = []Audience{{Value: "a", ParameterDefault: "b"}} },
			"audience 0 has a ParameterDefault without a Parameter",
		},
		{"unknown parameter", func(d *Definition) { d.Audiences = []Audience{{Parameter: "q"}} }, `the audience's parameter "q"`},
		{"parameter twice", func(d *Definition) { d.Parameters = append(d.Parameters, d.Parameters[0]) }, `parameter "p" is there twice`},
		{"undescribed parameter", func(d *Definition) { d.Parameters[0].Description = "" }, `parameter "p" has no description`},
		{"nameless parameter", func(d *Definition) { d.Parameters[0].Name = "" }, "a parameter has no name"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := Definition{
				Name: "x", Parameters: []Parameter{{Name: "p", Description: "A parameter."}}, New: newProvider,
			}
			tt.mutate(&d)
			err := d.Validate()
			if tt.want == "" {
				if err != nil {
					t.Errorf("Validate() = %v", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Validate() = %v, want %q in it", err, tt.want)
			}
		})
	}
}
