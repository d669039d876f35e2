// Package azure is the provider for Azure Key Vault.
//
// How a fetch goes: params decodes the SecretProviderClass; login.go says whose
// identity it is made with, of which identity gets an access token, or has one of
// an earlier fetch of the same identity and service account; keyvault reads the
// secrets, keys and certificates of the vault; content makes the files. Only
// identity and keyvault speak to Azure, and errors.go says in a user's words what
// it answered.
//
// The provider's own identity, and that of its node, is used for no pod, but where
// its operator says that a namespace may: nothing reads credentials of the
// process' environment.
package azure

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/propagation"

	"github.com/postern-dev/postern/providers/azure/internal/content"
	"github.com/postern-dev/postern/providers/azure/internal/identity"
	"github.com/postern-dev/postern/providers/azure/internal/keyvault"
	"github.com/postern-dev/postern/providers/azure/internal/params"
	"github.com/postern-dev/postern/providers/sdk"
)

// What the provider is handed of the pod's service account:
// https://azure.github.io/azure-workload-identity/docs/topics/service-account-labels-and-annotations.html
const (
	clientAnnotation = "azure.workload.identity/client-id"
	tenantAnnotation = "azure.workload.identity/tenant-id"
)

// The audiences of the pods' tokens.
const (
	audienceExchange = "api://AzureADTokenExchange"
	audienceBinding  = "api://AKSIdentityBinding"
)

// Definition describes the provider, under the name "azure".
func Definition() sdk.Definition {
	var o options
	return sdk.Definition{
		Name: "azure",
		// Which of them a fetch needs, if any, is said by the identity mode.
		Audiences: []sdk.Audience{
			{Value: audienceExchange, Optional: true},
			{Value: audienceBinding, Optional: true},
		},
		Parameters:                params.Parameters(),
		ServiceAccountAnnotations: []string{clientAnnotation, tenantAnnotation},
		NotModified:               true,
		Flags:                     o.declare,
		New: func(_ context.Context, env sdk.Environment) (sdk.Provider, error) {
			return newProvider(o, env)
		},
	}
}

// options are the provider's flags.
type options struct {
	cloudName        string
	cloudDir         string
	content          content.Options
	inclusiveHistory bool
	tokenProxy       identity.TokenProxy
	nmiEndpoint      string
	nodeIdentity     []string
	maxSessions      int
}

func (o *options) declare(flags *sdk.Flags) {
	flags.String(&o.cloudName, "cloud-name", params.PublicCloud, "cloud of classes that do not say one")
	flags.String(&o.cloudDir, "cloud-environment-dir", "", "directory of JSON files with the environments of other clouds, which classes name by cloudEnvFileName")
	flags.Bool(&o.content.ConstructPEMChain, "construct-pem-chain", true, "put the certificates of a PFX into the order of their chain: leaf, intermediates, root")
	flags.Bool(&o.content.SeparateFiles, "write-cert-and-key-in-separate-files", false, "write a certificate and its key to files with .crt and .key behind their names, too")
	flags.Bool(&o.inclusiveHistory, "object-version-history-inclusive", false, "mount one version more than objectVersionHistory says where there are more, as the upstream provider does")
	flags.String(&o.tokenProxy.URL, "token-proxy-url", "", "URL of the proxy to Entra for classes with useAzureTokenProxy (default "+identity.DefaultTokenProxyURL+", which needs --sni-name)")
	flags.String(&o.tokenProxy.SNIName, "sni-name", "", "server name of the proxy to Entra, which tells it the cluster")
	flags.String(&o.tokenProxy.CAFile, "token-proxy-ca-file", "", "file of certificates to trust the proxy to Entra by")
	flags.String(&o.nmiEndpoint, "nmi-endpoint", identity.DefaultNMIEndpoint, "URL of the node managed identity server of AAD Pod Identity")
	flags.StringSlice(&o.nodeIdentity, "provider-identity-namespaces", nil, `namespaces whose pods may use what the node is, by useVMManagedIdentity or usePodIdentity; "*" is all (default none)`)
	flags.Int(&o.maxSessions, "max-sessions", 1000, "how many identities' access tokens to keep at most")
}

func (o *options) validate() error {
	if o.maxSessions < 1 {
		return fmt.Errorf("read flags: --max-sessions is %d, and has to be more than zero", o.maxSessions)
	}
	if o.tokenProxy != (identity.TokenProxy{}) {
		if err := o.tokenProxy.Validate(); err != nil {
			return fmt.Errorf("read flags: %w", err)
		}
	}
	return nil
}

// loadClouds reads the operator's clouds, and checks that the default is one. Which
// AzureStackCloud it is, each class says.
func (o *options) loadClouds() (*params.Clouds, error) {
	clouds, err := params.NewClouds(o.cloudDir)
	if err != nil {
		return nil, fmt.Errorf("read the files of --cloud-environment-dir: %w", err)
	}
	if strings.EqualFold(o.cloudName, params.StackCloud) {
		return clouds, nil
	}
	if _, err := clouds.Lookup(o.cloudName, ""); err != nil {
		return nil, fmt.Errorf("read flags: --cloud-name: %w", err)
	}
	return clouds, nil
}

func newProvider(o options, env sdk.Environment) (*provider, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	clouds, err := o.loadClouds()
	if err != nil {
		return nil, err
	}
	client := azcore.ClientOptions{
		Transport: instrumented(transport(), env),
		Telemetry: policy.TelemetryOptions{ApplicationID: applicationID(env.Version)},
	}
	local := transport()
	local.Proxy = nil
	return &provider{
		options: o,
		clouds:  clouds,
		logger:  env.Logger,
		tokens: identity.New(identity.Config{
			ClientOptions: client, LocalHTTPClient: instrumented(local, env),
			NMIEndpoint: o.nmiEndpoint, TokenProxy: o.tokenProxy, MaxSessions: o.maxSessions, Logger: env.Logger,
		}),
		store: keyvault.New(keyvault.Config{
			ClientOptions: client, InclusiveHistory: o.inclusiveHistory, MaxClients: o.maxSessions, Logger: env.Logger,
		}),
	}, nil
}

// applicationID is how Azure's logs name the provider. It takes 24 characters.
func applicationID(version string) string {
	id := "postern-" + version
	return id[:min(len(id), 24)]
}

// transport is Go's own, with a proxy by the variables of the environment.
func transport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone() //nolint:forcetypeassert // it is one unless somebody changed it
	t.MaxIdleConnsPerHost = 8
	return t
}

// instrumented makes spans and metrics of requests. Names of objects are in their
// URLs, and so in spans, but not in metrics; contents and tokens are in neither.
func instrumented(transport http.RoundTripper, env sdk.Environment) *http.Client {
	return &http.Client{
		Transport: otelhttp.NewTransport(transport,
			otelhttp.WithTracerProvider(env.TracerProvider),
			otelhttp.WithMeterProvider(env.MeterProvider),
			otelhttp.WithPropagators(propagation.TraceContext{}),
			otelhttp.WithSpanNameFormatter(func(_ string, r *http.Request) string { return "azure " + operation(r) }),
		),
		// A redirect would take tokens elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// operation names what a request asks for: the kind of object of a vault, or a
// part of a login.
func operation(r *http.Request) string {
	first, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	switch first {
	case "secrets", "keys", "certificates":
		if rest == "" || strings.HasSuffix(rest, "/versions") {
			return "list " + first
		}
		return "get " + first
	default:
		return "login"
	}
}
