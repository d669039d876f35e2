package publish

import (
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"

	apiv1 "github.com/postern-dev/postern/driver/api/v1"
	"github.com/postern-dev/postern/driver/internal/spc"
	"github.com/postern-dev/postern/internal/rpc"
)

// Values of the metric label error_type, as dashboards made for the upstream
// driver know them.
const (
	errorTypeMountPoint       = "FailedToEnsureMountPoint"
	errorTypeMount            = "FailedToMount"
	errorTypeClassNotFound    = "SecretProviderClassNotFound"
	errorTypeProvider         = "GRPCProviderError"
	errorTypeFileWrite        = "FileWriteError"
	errorTypeProviderNotFound = "FailedToLookupProviderGRPCClient"
)

// stepError is a failure of one step of a publish, with its metric label.
type stepError struct {
	errorType string
	err       *rpc.Error
}

func (e *stepError) Error() string { return e.err.Error() }
func (e *stepError) Unwrap() error { return e.err }

func errorType(err error) string {
	if step, ok := errors.AsType[*stepError](err); ok {
		return step.errorType
	}
	switch failure := rpc.FromError(err); failure.Reason {
	case rpc.ReasonProviderUnavailable, rpc.ReasonGatewayUnavailable:
		return errorTypeProviderNotFound
	default:
		return errorTypeProvider
	}
}

func mountPointError(target string, err error) error {
	return &stepError{errorTypeMountPoint, &rpc.Error{
		Reason:  rpc.ReasonMountFailed,
		Code:    codes.Internal,
		Message: fmt.Sprintf("failed to look at the mount point %s: %v", target, err),
		Err:     err,
	}}
}

func mountError(target string, err error) error {
	return &stepError{errorTypeFileWrite, &rpc.Error{
		Reason:  rpc.ReasonMountFailed,
		Code:    codes.Internal,
		Message: fmt.Sprintf("failed to put the volume at %s: %v", target, err),
		Err:     err,
	}}
}

func unpublishError(target string, err error) error {
	return &stepError{errorTypeMount, &rpc.Error{
		Reason:  rpc.ReasonMountFailed,
		Code:    codes.Internal,
		Message: fmt.Sprintf("failed to clean and unmount target path %s: %v", target, err),
		Err:     err,
	}}
}

func busyError(target string) error {
	return &stepError{errorTypeMount, &rpc.Error{
		Code:    codes.Aborted,
		Message: fmt.Sprintf("another call on %s is under way", target),
	}}
}

func classError(namespace, name string, err error) error {
	message := fmt.Sprintf("failed to get secretproviderclass %s/%s: %v", namespace, name, err)
	if errors.Is(err, spc.ErrNotFound) {
		return &stepError{errorTypeClassNotFound, &rpc.Error{
			Reason:  rpc.ReasonSecretProviderClassNotFound,
			Code:    codes.NotFound,
			Message: message + ": create it in the pod's namespace",
			Err:     err,
		}}
	}
	code := codes.Unavailable // kubelet tries again soon
	switch {
	case errors.Is(err, spc.ErrForbidden):
		code = codes.PermissionDenied
	case errors.Is(err, spc.ErrInvalid):
		code = codes.InvalidArgument
	}
	return &stepError{errorTypeClassNotFound, &rpc.Error{Code: code, Message: message, Err: err}}
}

func validateClass(class *apiv1.SecretProviderClass) error {
	var field, problem string
	switch {
	case class.Spec.Provider == "":
		field, problem = "spec.provider", "provider is not set: name the provider, such as vault"
	case len(class.Spec.Parameters) == 0:
		field, problem = "spec.parameters", "parameters are not set: the provider needs to know what to fetch"
	default:
		return nil
	}
	return &stepError{errorTypeMount, &rpc.Error{
		Reason:          rpc.ReasonInvalidParameters,
		Code:            codes.InvalidArgument,
		Message:         fmt.Sprintf("secretproviderclass %s/%s: %s", class.Namespace, class.Name, problem),
		FieldViolations: []rpc.FieldViolation{{Field: field, Description: problem}},
	}}
}

func clusterError(what string, err error) error {
	return &stepError{errorTypeMount, &rpc.Error{
		Code:    codes.Unavailable,
		Message: fmt.Sprintf("failed to %s: %v", what, err),
		Err:     err,
	}}
}

// annotate says for whom a call of the gateway failed.
func (t *transaction) annotate(err error) error {
	if _, ok := errors.AsType[*stepError](err); ok {
		return err
	}
	if errors.Is(err, errPodGone) {
		return &stepError{errorTypeMount, &rpc.Error{
			Code:    codes.Aborted,
			Message: fmt.Sprintf("gave up waiting: pod %s/%s is gone", t.request.Pod.Namespace, t.request.Pod.Name),
			Err:     err,
		}}
	}
	did := "mount"
	if t.volume != nil {
		did = "refresh"
	}
	failure := *rpc.FromError(err)
	failure.Message = fmt.Sprintf("failed to %s secrets store objects for pod %s/%s, secretproviderclass %s: %s",
		did, t.request.Pod.Namespace, t.request.Pod.Name, t.request.SecretProviderClass, failure.Message)
	return &stepError{errorType(err), &failure}
}
