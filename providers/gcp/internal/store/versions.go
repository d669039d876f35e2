package store

import (
	"context"
	"errors"
	"log/slog"

	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"
	"google.golang.org/grpc"

	"github.com/postern-dev/postern/providers/gcp/internal/params"
)

var (
	// errUntold is that it cannot be told which version there is.
	errUntold = errors.New("the version cannot be told")
	// errUnread is that it has not been read since Google first told of it.
	errUnread = errors.New("the version has to be read first")
)

// version tells which version of a secret there is; "" if it is not there. The error
// is errUntold or errUnread. There is no second try, as reading comes next.
func (s *Store) version(ctx context.Context, as As, ref Ref) (version string, err error) {
	e, err := s.endpoints.enter(endpointKey{params.Secret, ref.Location})
	if err != nil {
		return "", errUntold
	}
	defer s.endpoints.leave(e)
	var resp *secretmanagerpb.SecretVersion
	failure := s.ask(e, as, getVersion, ref.Resource).once(ctx, func(ctx context.Context, e *endpoint, login grpc.CallOption) error {
		var err error
		resp, err = e.secrets.GetSecretVersion(ctx, &secretmanagerpb.GetSecretVersionRequest{Name: ref.Resource}, login)
		return err
	})
	if failure != nil {
		return "", s.untold(ctx, as, ref, failure)
	}
	number, ok := ref.versionIn(resp.GetName())
	if !ok || resp.GetState() != secretmanagerpb.SecretVersion_ENABLED || !resp.GetCreateTime().IsValid() {
		return "", errUntold
	}
	if version, ok = s.proofs.tell(ref.numbered(number), resp.GetCreateTime().AsTime()); !ok {
		return "", errUnread
	}
	return version, nil
}

// untold remembers why versions are not told. What is not there has none, which tells
// enough.
func (s *Store) untold(ctx context.Context, as As, ref Ref, failure *Error) error {
	switch failure.Kind {
	case NotFound:
		return nil
	case Denied:
		s.refusals.deny(as.Identity, projectOf(ref))
		s.logger.DebugContext(ctx, "an identity may not ask for versions, so that secrets are read instead",
			slog.String(keyIdentity, as.Identity), slog.String(keyReason, failure.Error()))
	case Throttled:
		s.refusals.throttle(projectOf(ref))
		s.logger.InfoContext(ctx, "a project is asked for too many versions, so that secrets are read instead",
			slog.String(keyReason, failure.Error()), slog.Duration(keyDuration, throttledFor))
	}
	return errUntold
}
