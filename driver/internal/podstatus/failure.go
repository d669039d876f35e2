package podstatus

import (
	"errors"
	"fmt"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/postern-dev/postern/driver/internal/kube"
)

var (
	// errDrop is in the chain of an error that no further attempt can help.
	errDrop = errors.New("not tried again")
	// errRefused is in the chain of an answer that says no, which somebody has
	// to change: rights, or a CRD that is missing.
	errRefused = errors.New("refused")
)

// classify adds errDrop or errRefused to the API server's answer. Any other
// error passes by itself.
func classify(err error) error {
	switch {
	case err == nil, errors.Is(err, errDrop):
		return err
	case kube.IsNamespaceTerminating(err), apierrors.IsInvalid(err), apierrors.IsBadRequest(err), apierrors.IsRequestEntityTooLargeError(err):
		return fmt.Errorf("%w: %w", errDrop, err)
	case isRefusal(err):
		return fmt.Errorf("%w: %w", errRefused, err)
	default:
		return err
	}
}

// isRefusal tells whether the API server is likely to give the same answer for as
// long as nobody does anything. Credentials that it does not accept are not such
// a case: kubelet renews them.
func isRefusal(err error) bool {
	answer, ok := errors.AsType[*apierrors.StatusError](err)
	if !ok {
		return false
	}
	switch code := answer.ErrStatus.Code; code {
	case http.StatusUnauthorized, http.StatusRequestTimeout, http.StatusConflict, http.StatusTooManyRequests:
		return false
	default:
		return code >= http.StatusBadRequest && code < http.StatusInternalServerError
	}
}
