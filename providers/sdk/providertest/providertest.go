// Package providertest is the conformance suite of providers: what a provider
// must do, beside the types, to be safe and of use behind the gateway.
//
// A provider's tests call [Run] with a [Harness] that tells how to start the
// provider and what it must answer:
//
//	func TestConformance(t *testing.T) {
//		store := newStore(t) // a real store, or a fake with real semantics
//		providertest.Run(t, providertest.Harness{
//			Definition: example.Definition,
//			Args:       []string{"--address=" + store.Address},
//			Valid:      providertest.Case{Request: ..., Contents: ...},
//			Mutate:     store.Rotate,
//			Errors:     []providertest.ErrorCase{...},
//		})
//	}
//
// The suite starts the provider as its main would, on a unix socket, speaks
// both protocols to it, and at the end looks through all errors, logs, spans
// and metrics for tokens and contents.
package providertest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"testing"
	"time"

	"github.com/postern-dev/postern/providers/sdk"
)

// Harness is what the suite needs to know of a provider. Its functions are
// called one at a time, those of requests also concurrently.
type Harness struct {
	// Definition makes a new definition for each start of the provider.
	// Required. The store behind it outlives the provider.
	Definition func() sdk.Definition
	// Args are the provider's own flags.
	Args []string
	// Getenv is the provider's environment. May be nil.
	Getenv func(string) string
	// Valid is a request that succeeds, answers the same each time until
	// Mutate, and sets no modes unless Case.Modes says so. Required.
	Valid Case
	// Modes is a request that sets modes, and its Modes what they must be.
	// Nil: the provider has no such parameter.
	Modes *Case
	// Pods are requests of different identities with different answers. Nil:
	// identities make no difference, and Valid is asked by many at once.
	Pods []Case
	// Mutate changes the content of an object of Valid in the store. Required.
	// It is called once, after which Valid.Contents is not looked at.
	Mutate func() error
	// Errors are requests that must fail.
	Errors []ErrorCase
	// YAMLParameter is a parameter that holds YAML, "objects" if empty. "-":
	// there is none.
	YAMLParameter string
	// Hang makes the store hang. It returns a channel that is closed, or gets
	// a value, when a call has come to the store, and a function that ends it.
	// Nil: the provider's store does not hang.
	Hang func() (reached <-chan struct{}, release func())
	// WithoutV1alpha1 is why Valid cannot succeed under the upstream
	// protocol, which knows neither annotations nor labels. Empty: it can.
	WithoutV1alpha1 string
	// Canaries are texts that must never show up in errors, logs, spans and
	// metrics, beside the tokens, secrets and contents that the suite sees.
	Canaries []string
}

// Case is a request that succeeds.
type Case struct {
	// Request makes the request, anew for each call. The suite fills in what
	// is empty of volume, pod, node, class and mode.
	Request func() *sdk.Request
	// Contents are the files that must come, by path. Nil: not known.
	Contents map[string]string
	// Modes are the modes that files must have, by path. A file that is not
	// listed must have the request's default mode.
	Modes map[string]fs.FileMode
}

// ErrorCase is a request that fails.
type ErrorCase struct {
	Name string
	// Request changes a request of Valid, in one place. May be nil.
	Request func(*sdk.Request)
	// Setup breaks the store until undo is called. May be nil.
	Setup func() (undo func(), err error)
	// Reason, Object and Message are the error's: Message a part of its text.
	Reason  sdk.Reason
	Object  string
	Message string
	// Field is among the field violations, for INVALID_PARAMETERS.
	Field string
}

// checkTimeout bounds one check.
const checkTimeout = time.Minute

// errSkip wraps why a check was not made.
var errSkip = errors.New("skipped")

// check is one thing that a provider must do.
type check struct {
	name string
	run  func(ctx context.Context, s *suite) error
}

// checks returns all, in the order in which they are made: the last change
// the store, and look at what all before have left.
func checks() []check {
	return []check{
		{"describe", describe},
		{"health", health},
		{"fetch", fetchValid},
		{"default mode", defaultMode},
		{"explicit modes", explicitModes},
		{"unknown parameters", unknownParameters},
		{"malformed parameters", malformedParameters},
		{"errors", errorCases},
		{"upstream protocol", upstream},
		{"concurrent pods", concurrentPods},
		{"release", release},
		{"stable versions", stableVersions},
		{"cancellation", cancellation},
		{"changed versions", changedVersions},
		{"no leaks", noLeaks},
	}
}

// Run makes all checks, each as a subtest.
func Run(t *testing.T, h Harness) {
	t.Helper()
	s, err := newSuite(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	for _, c := range checks() {
		t.Run(c.name, func(t *testing.T) {
			err := s.make(t.Context(), c)
			switch {
			case errors.Is(err, errSkip):
				t.Skip(err)
			case err != nil:
				t.Error(err)
			}
		})
	}
}

// make makes one check.
func (s *suite) make(ctx context.Context, c check) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	return c.run(ctx, s)
}

func skipf(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errSkip, fmt.Sprintf(format, args...))
}
