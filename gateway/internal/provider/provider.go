// Package provider calls one instance of a provider, over whichever of the two
// protocols it speaks: postern.provider.v1 ([Native]) or the upstream driver's
// v1alpha1.CSIDriverProvider ([Legacy]).
//
// An adapter decides what of a request a provider gets to see, and it alone: a
// native provider is given the tokens of the audiences that it declared and no
// other. A legacy provider has no way to declare any, so it is given what the
// upstream driver would give it: every token that kubelet sent.
package provider

import (
	"context"
	"maps"
	"regexp"
	"strings"

	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
	providerv1 "github.com/postern-dev/postern/proto/gen/go/postern/provider/v1"
)

// Provider is one instance of a provider. Its methods are safe for concurrent
// use. Errors are [*rpc.Error], except for [*NotSentError] and, where the
// caller's context ended, that context's error.
type Provider interface {
	// Describe asks the instance what it is and needs, and keeps the answer for
	// later fetches.
	Describe(ctx context.Context) (*providerv1.DescribeResponse, error)
	// Fetch gets the objects of one volume. The answer is as the provider gave
	// it: nothing in it is checked yet.
	Fetch(ctx context.Context, req *gatewayv1.FetchRequest) (*providerv1.FetchResponse, error)
	// Release tells the instance that a volume is gone. It is idempotent, and
	// does nothing where the instance has no use for it.
	Release(ctx context.Context, volumeID string) error
}

// NotSentError says that a call never left this process, because the
// instance's connection is down. It can be made again, of any instance,
// without a risk: nothing was issued for it.
type NotSentError struct {
	// Err is what the connection failed with.
	Err error
}

// Error implements error.
func (e *NotSentError) Error() string { return "call was not sent: " + e.Err.Error() }

// Unwrap returns the connection's failure.
func (e *NotSentError) Unwrap() error { return e.Err }

// namePattern is upstream's rule for names of providers, which are also names
// of sockets and of directories; upstream lets the empty name through as well.
var namePattern = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,30}$`)

// ValidName reports whether a provider can have this name.
func ValidName(name string) bool { return namePattern.MatchString(name) }

// kubeletPrefix starts the keys that kubelet, and nobody else, sets in a
// volume's context and secrets.
const kubeletPrefix = "csi.storage.k8s.io/"

// Secrets are the nodePublishSecretRef's data without the tokens that kubelet
// puts beside it where the CSIDriver says serviceAccountTokenInSecrets. They
// are passed on as tokens, to whom they concern.
func Secrets(req *gatewayv1.FetchRequest) map[string]string {
	secrets := req.GetSecrets()
	for key := range secrets {
		if strings.HasPrefix(key, kubeletPrefix) {
			secrets = maps.Clone(secrets)
			maps.DeleteFunc(secrets, func(key, _ string) bool { return strings.HasPrefix(key, kubeletPrefix) })
			break
		}
	}
	return secrets
}
