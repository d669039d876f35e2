package store

import (
	"context"
	"errors"
	"log/slog"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/ssm"

	"github.com/postern-dev/postern/providers/aws/internal/params"
	"github.com/postern-dev/postern/providers/sdk"
)

// caller asks one region as one identity, for the time of one call.
type caller struct {
	region   Region
	clients  *regional
	refusals *refusals
	logger   *slog.Logger
	// signing gives the same credentials for each request.
	signing aws.CredentialsProviderFunc
	// token is theirs, which no text must repeat.
	token sdk.SecretString
}

// operation is what a request does, for errors.
type operation struct {
	service params.Service
	name    string
	// object is empty where it is for several.
	object string
}

// caller returns one with the region's credentials.
func (s *Store) caller(ctx context.Context, region Region) (*caller, *Error) {
	credentials, err := region.Credentials.Retrieve(ctx)
	if err != nil {
		return nil, &Error{
			Kind: BadCredentials, Region: region.Name, Operation: "Sign",
			Message: "there are no credentials to sign requests with", Err: err,
		}
	}
	return &caller{
		region: region, clients: s.clients.of(region.Name), refusals: s.refusals, logger: s.logger,
		signing: func(context.Context) (aws.Credentials, error) { return credentials, nil },
		token:   sdk.NewSecretString(credentials.SessionToken),
	}, nil
}

// forSecrets has a request signed, and made again, as the caller wants it.
func (c *caller) forSecrets(a *attempts) func(*secretsmanager.Options) {
	return func(o *secretsmanager.Options) {
		o.Credentials = c.signing
		o.Retryer = a.of(o.Retryer)
	}
}

// forParameters is forSecrets for the other service.
func (c *caller) forParameters(a *attempts) func(*ssm.Options) {
	return func(o *ssm.Options) {
		o.Credentials = c.signing
		o.Retryer = a.of(o.Retryer)
	}
}

// read asks for refs with one request. What it does not decide has no answer; one
// ref alone always has.
func (c *caller) read(ctx context.Context, refs []Ref) map[Ref]Answer {
	switch {
	case refs[0].Service == params.ParameterStore:
		return c.getParameters(ctx, refs, true)
	case len(refs) == 1:
		return map[Ref]Answer{refs[0]: c.getSecret(ctx, refs[0])}
	default:
		return c.batchGetSecrets(ctx, refs)
	}
}

// versions asks for the versions of refs with one request, for all or none.
func (c *caller) versions(ctx context.Context, refs []Ref) (map[Ref]string, bool) {
	if refs[0].Service == params.SecretsManager {
		return c.describeSecret(ctx, refs)
	}
	answers := c.getParameters(ctx, refs, false)
	versions := make(map[Ref]string, len(refs))
	for _, ref := range refs {
		answer, ok := answers[ref]
		if missing, failed := errors.AsType[*Error](answer.Err); !ok || failed && missing.Kind != NotFound {
			return nil, false
		}
		versions[ref] = answer.Version // "" if it is not there
	}
	return versions, true
}

func (c *caller) list(ctx context.Context, service params.Service, sel *params.Select) ([]Item, *Error) {
	if service == params.ParameterStore {
		return c.listParameters(ctx, sel)
	}
	return c.listSecrets(ctx, sel)
}
