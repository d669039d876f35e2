// Package gcp is the provider for Google Cloud's Secret Manager and Parameter
// Manager.
//
// How a fetch goes: params decodes the SecretProviderClass; login.go says whose
// identity it is made with, of which identity gets an access token, or has one of
// an earlier fetch of the same identity and service account; on a refresh store is
// asked which versions there are, and if something has changed, or where that
// cannot be told, it reads; extract makes the files. Only identity and store speak
// to Google, and errors.go says in a user's words what it answered.
//
// The provider's own identity is used for no pod, but where its operator says that
// a namespace may.
package gcp

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/propagation"
	"google.golang.org/grpc"

	"github.com/postern-dev/postern/providers/gcp/internal/identity"
	"github.com/postern-dev/postern/providers/gcp/internal/params"
	"github.com/postern-dev/postern/providers/gcp/internal/store"
	"github.com/postern-dev/postern/providers/sdk"
)

// What the provider is handed of the pod's service account:
// https://cloud.google.com/kubernetes-engine/docs/how-to/workload-identity
const (
	accountAnnotation   = "iam.gke.io/gcp-service-account"
	delegatesAnnotation = "iam.gke.io/gcp-service-account-delegates"
)

// Ways to find out on a refresh whether something has changed.
const (
	checkDescribe = "describe" // ask for the versions, which moves no contents
	checkRead     = "read"     // read, which takes one permission less
)

// Definition describes the provider, under the names "gcp" and, as with GKE's
// add-on, "gke".
func Definition() sdk.Definition {
	var o options
	return sdk.Definition{
		Name:                      "gcp",
		Names:                     []string{"gcp", "gke"},
		Parameters:                params.Parameters(),
		ServiceAccountAnnotations: []string{accountAnnotation, delegatesAnnotation},
		NotModified:               true,
		Flags:                     o.declare,
		New: func(_ context.Context, env sdk.Environment) (sdk.Provider, error) {
			return newProvider(o, env)
		},
	}
}

// options are the provider's flags.
type options struct {
	federation   identity.FederationConfig
	audience     string
	allowSecret  bool
	own          []string
	refreshCheck string
	maxSessions  int
}

func (o *options) declare(flags *sdk.Flags) {
	f := &o.federation
	flags.String(&f.Project, "project", "", "project of the GKE cluster, whose pool pods' tokens are for (default PROJECT)")
	flags.String(&f.ClusterName, "cluster-name", "", "name of the GKE cluster (default CLUSTER_NAME, then the metadata server's)")
	flags.String(&f.ClusterLocation, "cluster-location", "", "location of the GKE cluster (default CLUSTER_LOCATION, then the metadata server's)")
	flags.String(&o.audience, "workload-identity-audience", "", "audience of the token exchange where it is not that of a GKE cluster: //iam.googleapis.com/projects/<number>/locations/global/workloadIdentityPools/<pool>/providers/<provider>, or identitynamespace:<pool>:<provider> (default that of the file GOOGLE_APPLICATION_CREDENTIALS, if it is an external_account)")
	flags.String(&f.TokenAudience, "token-audience", "", "audience of pods' tokens, if the workload identity provider wants another than its own name")
	flags.String(&f.TokenURL, "gaia-token-exchange-endpoint", "", "URL of the token exchange (default GAIA_TOKEN_EXCHANGE_ENDPOINT, then Google's)")
	flags.String(&f.GKEEndpoint, "gke-workload-identity-endpoint", "", "URL that the issuers of GKE clusters begin with (default GKE_WORKLOAD_IDENTITY_ENDPOINT, then "+identity.DefaultGKEEndpoint+")")
	flags.Bool(&o.allowSecret, "allow-node-publish-secret", false, "let volumes bring the key of a service account (key.json) by nodePublishSecretRef")
	flags.StringSlice(&o.own, "provider-identity-namespaces", nil, `namespaces whose pods may use the provider's own identity, by auth: provider-adc; "*" is all (default none)`)
	flags.String(&o.refreshCheck, "refresh-check", checkDescribe, "how a refresh finds out what has changed: by versions alone, which moves no contents (describe), or by reading (read)")
	flags.Int(&o.maxSessions, "max-sessions", 1000, "how many identities' access tokens to keep at most")
}

// fromEnv takes what flags do not say of the variables that the upstream provider
// has.
func (o *options) fromEnv(getenv func(string) string) {
	f := &o.federation
	for _, v := range []struct {
		to   *string
		name string
	}{
		{&f.Project, "PROJECT"},
		{&f.ClusterName, "CLUSTER_NAME"},
		{&f.ClusterLocation, "CLUSTER_LOCATION"},
		{&f.TokenURL, "GAIA_TOKEN_EXCHANGE_ENDPOINT"},
		{&f.GKEEndpoint, "GKE_WORKLOAD_IDENTITY_ENDPOINT"},
		{&f.CredentialsFile, "GOOGLE_APPLICATION_CREDENTIALS"},
		{&f.MetadataHost, "GCE_METADATA_HOST"},
	} {
		if *v.to == "" {
			*v.to = getenv(v.name)
		}
	}
	if allowed, err := strconv.ParseBool(getenv("ALLOW_NODE_PUBLISH_SECRET")); err == nil && allowed {
		o.allowSecret = true
	}
	if pool, cluster, ok := strings.Cut(strings.TrimPrefix(o.audience, "identitynamespace:"), ":https://"); ok {
		f.Pool, f.PoolProvider = pool, "https://"+cluster
	} else {
		f.PoolProvider = o.audience
	}
}

func (o *options) validate() error {
	switch {
	case o.refreshCheck != checkDescribe && o.refreshCheck != checkRead:
		return fmt.Errorf("read flags: --refresh-check is %q, and has to be %s or %s", o.refreshCheck, checkDescribe, checkRead)
	case o.maxSessions < 1:
		return fmt.Errorf("read flags: --max-sessions is %d, and has to be more than zero", o.maxSessions)
	}
	return nil
}

func newProvider(o options, env sdk.Environment) (*provider, error) {
	o.fromEnv(env.Getenv)
	if err := o.validate(); err != nil {
		return nil, err
	}
	known, err := o.federation.KnownAudiences()
	if err != nil {
		return nil, fmt.Errorf("read flags: %w", err)
	}
	local := http.DefaultTransport.(*http.Transport).Clone() //nolint:forcetypeassert // it is one unless somebody changed it
	local.Proxy = nil
	o.federation.MetadataHTTPClient = instrumented(local, env)
	return &provider{
		options:    o,
		federation: &federation{known: known, locator: identity.NewLocator(o.federation)},
		tokens: identity.New(identity.Config{
			HTTPClient: instrumented(http.DefaultTransport, env), MaxSessions: o.maxSessions, Logger: env.Logger,
		}),
		store: store.New(store.Config{Logger: env.Logger, DialOptions: []grpc.DialOption{
			grpc.WithUserAgent("postern-provider-gcp/" + env.Version),
			grpc.WithStatsHandler(otelgrpc.NewClientHandler(
				otelgrpc.WithTracerProvider(env.TracerProvider),
				otelgrpc.WithMeterProvider(env.MeterProvider),
				otelgrpc.WithPropagators(propagation.TraceContext{}),
			)),
		}}),
	}, nil
}

// instrumented makes spans and metrics of requests: of logins, whose tokens are in
// headers and bodies, which are in neither.
func instrumented(transport http.RoundTripper, env sdk.Environment) *http.Client {
	return &http.Client{
		Transport: otelhttp.NewTransport(transport,
			otelhttp.WithTracerProvider(env.TracerProvider),
			otelhttp.WithMeterProvider(env.MeterProvider),
			otelhttp.WithPropagators(propagation.TraceContext{}),
			otelhttp.WithSpanNameFormatter(func(_ string, r *http.Request) string { return "gcp login " + r.URL.Hostname() }),
		),
	}
}
