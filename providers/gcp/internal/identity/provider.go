package identity

import (
	"context"
	"errors"
	"net/http"

	"cloud.google.com/go/auth/credentials"
	"cloud.google.com/go/compute/metadata"
)

// ownCredentials logs in as the provider itself. The credentials are looked for with
// each login, so that a new file of them is used.
func (e *exchange) ownCredentials(ctx context.Context) (access, error) {
	found, err := credentials.DetectDefault(&credentials.DetectOptions{
		Scopes: []string{cloudScope}, Client: e.client(), Logger: silent(), DisableAsyncRefresh: true,
	})
	if err != nil {
		failure := e.invalid(err)
		failure.Fix = ownFix
		return access{}, failure
	}
	token, err := found.Token(ctx)
	if err == nil {
		return e.checked(token.Value, token.Type, token.Expiry)
	}
	// The metadata server is asked by a client of Google's own.
	if refusal, ok := errors.AsType[*metadata.Error](err); ok {
		return access{}, e.ofMetadata(refusal.Code, refusal.Message)
	}
	if _, ok := errors.AsType[metadata.NotDefinedError](err); ok {
		return access{}, e.ofMetadata(http.StatusNotFound, "the node has no service account")
	}
	failure := e.failure(err)
	switch {
	case failure.Kind == Denied:
		failure.Fix = "Check the provider's own credentials: the file that GOOGLE_APPLICATION_CREDENTIALS names"
	case e.last.url == nil:
		failure.Fix = ownFix
	}
	return access{}, failure
}

const ownFix = "Give the provider an identity: annotate its own Kubernetes service account with iam.gke.io/gcp-service-account, or set " +
	"GOOGLE_APPLICATION_CREDENTIALS to a file that is mounted into its pods"

// ofMetadata is of an answer of the metadata server that is no success.
func (e *exchange) ofMetadata(status int, text string) *Error {
	failure := &Error{
		Operation: e.operation, Kind: Denied, Status: status, Message: e.said("metadata server: "+text, maxMessage), Fix: ownFix,
	}
	switch {
	case status == http.StatusTooManyRequests:
		failure.Kind, failure.Fix = Throttled, ""
	case status >= http.StatusInternalServerError:
		failure.Kind, failure.Fix = Unavailable, ""
	}
	return failure
}
