package secretsync

import (
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	apiv1 "github.com/postern-dev/postern/driver/api/v1"
	"github.com/postern-dev/postern/driver/internal/kube"
)

// Reasons of failures, as the metric has them.
const (
	reasonOK                   = "OK"
	reasonAPIUnavailable       = "API_UNAVAILABLE"
	reasonRateLimited          = "RATE_LIMITED"
	reasonConflict             = "CONFLICT"
	reasonForbidden            = "FORBIDDEN"
	reasonRefused              = "REFUSED"
	reasonNamespaceNotOpen     = "NAMESPACE_NOT_OPEN"
	reasonNamespaceTerminating = "NAMESPACE_TERMINATING"
	reasonNotOurs              = "NOT_OURS"
	reasonImmutable            = "IMMUTABLE"
	reasonInvalidParameters    = "INVALID_PARAMETERS"
	reasonFiles                = "FILES_UNREADABLE"
)

// failure is why a Secret is not as it should be.
type failure struct {
	reason string
	// temporary: trying again soon may help, without anybody's doing.
	temporary bool
	err       error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// Temporary tells whether trying again soon may help.
func (f *failure) Temporary() bool { return f.temporary }

// Temporary tells whether an error of Sync is worth failing a mount for: the
// API server is away, overloaded or in conflict, so that trying again helps. A
// lasting one (no right, somebody else's Secret, files that make no Secret) is
// for people to end. Of several errors one that is temporary is enough, wherever
// it is: errors.As would stop at the first.
func Temporary(err error) bool {
	if f, ok := err.(interface{ Temporary() bool }); ok {
		return f.Temporary()
	}
	switch wrapper := err.(type) { //nolint:errorlint // each error of the tree is looked at
	case interface{ Unwrap() error }:
		return Temporary(wrapper.Unwrap())
	case interface{ Unwrap() []error }:
		for _, inner := range wrapper.Unwrap() {
			if Temporary(inner) {
				return true
			}
		}
	}
	return false
}

// Reason is an error of Sync in a word, such as NAMESPACE_NOT_OPEN; of several,
// the first one's.
func Reason(err error) string {
	if err == nil {
		return reasonOK
	}
	if f, ok := errors.AsType[*failure](err); ok {
		return f.reason
	}
	return reasonRefused
}

// lasting returns a failure that stays until somebody does something.
func lasting(reason, format string, args ...any) error {
	return &failure{reason: reason, err: fmt.Errorf(format, args...)}
}

// apiFailure tells what an error of the API server means. What was told before
// stays.
func apiFailure(err error) error {
	if _, told := errors.AsType[*failure](err); told || err == nil {
		return err
	}
	f := &failure{err: err}
	switch {
	case kube.IsNamespaceTerminating(err):
		f.reason = reasonNamespaceTerminating
	case apierrors.IsTooManyRequests(err):
		f.reason, f.temporary = reasonRateLimited, true
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err), apierrors.IsNotFound(err):
		f.reason, f.temporary = reasonConflict, true
	case apierrors.IsForbidden(err):
		f.reason = reasonForbidden
	case isRefusal(err):
		f.reason = reasonRefused
	default:
		f.reason, f.temporary = reasonAPIUnavailable, true
	}
	return f
}

// isOvertaken tells whether somebody else wrote in between.
func isOvertaken(err error) bool {
	if _, told := errors.AsType[*failure](err); told {
		return false
	}
	return apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) || apierrors.IsNotFound(err)
}

// isRefusal tells whether the API server would answer the same request the same
// way again. Credentials that it does not accept are not such a case: kubelet
// renews them.
func isRefusal(err error) bool {
	const firstServerError = 500
	var status apierrors.APIStatus
	if !errors.As(err, &status) || apierrors.IsUnauthorized(err) {
		return false
	}
	code := status.Status().Code
	return code != 0 && code < firstServerError
}

// inClass says which class and Secret a failure is about.
func inClass(class *apiv1.SecretProviderClass, name string, err error) error {
	f := failure{reason: Reason(err), temporary: Temporary(err)}
	f.err = fmt.Errorf("secretproviderclass %s/%s: Secret %s: %w", class.Namespace, class.Name, name, err)
	return &f
}

func notOpenError(class *apiv1.SecretProviderClass, namespace string) error {
	return lasting(reasonNamespaceNotOpen, "secretproviderclass %s/%s asks for Kubernetes Secrets (secretObjects), and namespace %s is not open "+
		"for them: add it to the Helm value driver.syncSecret.namespaces, or remove secretObjects", class.Namespace, class.Name, namespace)
}

func immutableError(err error) error {
	return lasting(reasonImmutable, "it is to change, and somebody made it immutable: delete it, to have it made anew: %w", err)
}
