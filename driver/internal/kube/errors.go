package kube

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/postern-dev/postern/driver/internal/spc"
)

// explain says what failed and what to do about it. The API server's error
// stays in the chain, for the functions of k8s.io/apimachinery/pkg/api/errors.
func explain(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("%s: %w", what, err)
	case apierrors.IsForbidden(err):
		return fmt.Errorf("%s: the API server refuses it; check the driver's ClusterRole and its binding: %w", what, err)
	case apierrors.IsUnauthorized(err):
		return fmt.Errorf("%s: the API server does not accept the driver's credentials; check its service account token: %w", what, err)
	case isStatus(err):
		return fmt.Errorf("%s: %w", what, err)
	default:
		return fmt.Errorf("%s: no answer of the API server; check that this node can reach it: %w", what, err)
	}
}

// isStatus tells whether the API server itself answered.
func isStatus(err error) bool {
	status, ok := errors.AsType[*apierrors.StatusError](err)
	return ok && status.ErrStatus.Code != 0
}

// explainClass is explain for SecretProviderClasses, whose errors are those of
// package spc.
func explainClass(err error) error {
	const what = "read it from the API server"
	switch {
	case err == nil:
		return nil
	case apierrors.IsNotFound(err):
		if noSuchResource(err) {
			return fmt.Errorf("%w: the API server does not know the kind SecretProviderClass; install the CRDs: %w", spc.ErrUnavailable, err)
		}
		return fmt.Errorf("%w in the cluster", spc.ErrNotFound)
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err):
		return fmt.Errorf("%w: %w", spc.ErrForbidden, explain(what, err))
	case errors.Is(err, context.Canceled):
		return explain(what, err)
	default:
		return fmt.Errorf("%w: %w", spc.ErrUnavailable, explain(what, err))
	}
}

// noSuchResource tells a missing kind from a missing object: only the latter's
// status names the object.
func noSuchResource(err error) bool {
	status, ok := errors.AsType[*apierrors.StatusError](err)
	if !ok {
		return false
	}
	details := status.ErrStatus.Details
	return details == nil || details.Name == ""
}
