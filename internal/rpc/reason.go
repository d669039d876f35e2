package rpc

import "google.golang.org/grpc/codes"

// Domain is the domain of the google.rpc.ErrorInfo that an Error travels as.
const Domain = "postern"

// The reasons of errors: the values of postern.secret.v1.ErrorReason without
// their prefix. See there for what each means.
const (
	ReasonObjectNotFound              = "OBJECT_NOT_FOUND"
	ReasonAccessDenied                = "ACCESS_DENIED"
	ReasonLoginFailed                 = "LOGIN_FAILED"
	ReasonInvalidParameters           = "INVALID_PARAMETERS"
	ReasonRateLimited                 = "RATE_LIMITED"
	ReasonStoreUnavailable            = "STORE_UNAVAILABLE"
	ReasonTokenMissing                = "TOKEN_MISSING"
	ReasonTokenInvalid                = "TOKEN_INVALID"
	ReasonProviderUnavailable         = "PROVIDER_UNAVAILABLE"
	ReasonInvalidResponse             = "INVALID_RESPONSE"
	ReasonResponseTooLarge            = "RESPONSE_TOO_LARGE"
	ReasonPolicyDenied                = "POLICY_DENIED"
	ReasonBudgetExhausted             = "BUDGET_EXHAUSTED"
	ReasonDeadlineExceeded            = "DEADLINE_EXCEEDED"
	ReasonGatewayUnavailable          = "GATEWAY_UNAVAILABLE"
	ReasonSecretProviderClassNotFound = "SECRET_PROVIDER_CLASS_NOT_FOUND"
	ReasonCallerRefused               = "CALLER_REFUSED"
	ReasonMountFailed                 = "MOUNT_FAILED"
	ReasonInternal                    = "INTERNAL"
)

// Keys of an Error's metadata. MetadataTraceID is set by the server.
const (
	MetadataProvider            = "provider"
	MetadataSecretProviderClass = "secret_provider_class"
	MetadataObject              = "object"
	MetadataTraceID             = "trace_id"
)

// CodeOf returns the status code of a reason, as the comments of
// postern.secret.v1.ErrorReason have it, and Unknown for a reason that is not
// one of them.
func CodeOf(reason string) codes.Code {
	switch reason {
	case ReasonObjectNotFound, ReasonSecretProviderClassNotFound:
		return codes.NotFound
	case ReasonAccessDenied, ReasonPolicyDenied, ReasonCallerRefused:
		return codes.PermissionDenied
	case ReasonLoginFailed, ReasonTokenInvalid:
		return codes.Unauthenticated
	case ReasonInvalidParameters:
		return codes.InvalidArgument
	case ReasonRateLimited, ReasonBudgetExhausted:
		return codes.ResourceExhausted
	case ReasonStoreUnavailable, ReasonProviderUnavailable, ReasonGatewayUnavailable:
		return codes.Unavailable
	case ReasonTokenMissing:
		return codes.FailedPrecondition
	case ReasonDeadlineExceeded:
		return codes.DeadlineExceeded
	case ReasonInvalidResponse, ReasonResponseTooLarge, ReasonMountFailed, ReasonInternal:
		return codes.Internal
	default:
		return codes.Unknown
	}
}
