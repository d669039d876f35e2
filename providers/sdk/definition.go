package sdk

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/postern-dev/postern/internal/daemon"
)

// Flags declares flags, each of which can also be set by the environment
// variable POSTERN_<NAME>.
type Flags = daemon.Flags

// Env is what a process is given by its operating system.
type Env = daemon.Env

// Definition is all that the sdk knows about a provider. It is what Describe
// answers, and how the provider's process starts.
type Definition struct {
	// Name is the process' and the documentation's, such as "vault".
	Name string
	// Names are what SecretProviderClasses ask for (spec.provider), at most
	// 30 letters, digits, "_" and "-" each. Default: Name.
	Names []string
	// Version is the provider's own semantic version. Default: the build's.
	Version string
	// Audiences are the tokens that Fetch wants to be given. None: it uses no
	// tokens.
	Audiences []Audience
	// Parameters are the class parameters that Fetch knows.
	Parameters []Parameter
	// ServiceAccountAnnotations are the keys that Fetch needs of the pod's
	// service account.
	ServiceAccountAnnotations []string
	// NodeLabels are the keys that Fetch needs of the node.
	NodeLabels []string
	// NotModified says that Fetch looks at CurrentObjects and may answer
	// NotModified.
	NotModified bool
	// Leases says that Fetch may return leases.
	Leases bool
	// Flags declares the provider's own flags, beside those of [Main]. May be
	// nil.
	Flags func(*Flags)
	// New makes the provider, after the flags are parsed. It only constructs:
	// it does not reach the store and starts nothing, see [Runner].
	New func(ctx context.Context, env Environment) (Provider, error)
}

// Audience names tokens that a provider wants to be given. Exactly one of
// Value and Parameter is set.
type Audience struct {
	// Value is the audience.
	Value string
	// Parameter is the class parameter that holds the audience.
	Parameter string
	// ParameterDefault is the audience where the class does not set Parameter.
	ParameterDefault string
	// Optional says that a fetch can do without this token.
	Optional bool
}

// Parameter is a class parameter that a provider knows.
type Parameter struct {
	Name string
	// Description is a sentence.
	Description string
	Required    bool
	// LocatesStore says that it is part of where the store is or how it is
	// reached, such as its address, region or CA. The gateway keeps stores apart
	// by these, so that one which fails or asks to slow down costs the others
	// nothing.
	LocatesStore bool
}

// Environment is what a provider works with.
type Environment struct {
	// Logger adds the trace of the context to each record.
	Logger *slog.Logger
	// TracerProvider is for the clients of stores, such as otelhttp.
	TracerProvider trace.TracerProvider
	// MeterProvider's instruments are served on /metrics.
	MeterProvider metric.MeterProvider
	// Getenv reads an environment variable.
	Getenv func(string) string
	// Version is the provider's, for user agents.
	Version string
}

var providerName = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,30}$`)

// Validate tells all that is wrong with d.
func (d Definition) Validate() error {
	d = d.withDefaults()
	var problems []error
	problem := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if d.New == nil {
		problem("New is nil")
	}
	for _, name := range append([]string{d.Name}, d.Names...) {
		if !providerName.MatchString(name) {
			problem("provider name %q is not made of 1 to 30 letters, digits, _ and -", name)
		}
	}
	for i, a := range d.Audiences {
		if (a.Value == "") == (a.Parameter == "") {
			problem("audience %d has not exactly one of Value and Parameter", i)
		}
		if a.ParameterDefault != "" && a.Parameter == "" {
			problem("audience %d has a ParameterDefault without a Parameter", i)
		}
	}
	seen := make(map[string]bool, len(d.Parameters))
	for _, p := range d.Parameters {
		switch {
		case p.Name == "":
			problem("a parameter has no name")
		case p.Description == "":
			problem("parameter %q has no description", p.Name)
		case seen[p.Name]:
			problem("parameter %q is there twice", p.Name)
		}
		seen[p.Name] = true
	}
	for _, a := range d.Audiences {
		if a.Parameter != "" && !seen[a.Parameter] {
			problem("the audience's parameter %q is not among the parameters", a.Parameter)
		}
	}
	return errors.Join(problems...)
}

func (d Definition) withDefaults() Definition {
	if len(d.Names) == 0 {
		d.Names = []string{d.Name}
	}
	d.Names = slices.Clone(d.Names)
	if d.Version == "" {
		d.Version = daemon.BuildInfo().Version
	}
	return d
}

// audiencesFor returns the audiences that a class with these parameters wants.
func (d *Definition) audiencesFor(p Parameters) map[string]bool {
	wanted := make(map[string]bool, len(d.Audiences))
	for _, a := range d.Audiences {
		audience := a.Value
		if a.Parameter != "" {
			audience = p.Get(a.Parameter)
			if audience == "" {
				audience = a.ParameterDefault
			}
		}
		if audience != "" {
			wanted[audience] = true
		}
	}
	return wanted
}
