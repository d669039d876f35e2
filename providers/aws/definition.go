// Package aws is the provider for AWS Secrets Manager and the SSM Parameter
// Store.
//
// How a fetch goes: params decodes the SecretProviderClass; login.go says whose
// credentials it is made with, which identity gets, or has of an earlier fetch of
// the same role and service account; fetch.go has store read each object, or on a
// refresh ask for the versions alone, and where the first region fails the
// failover region; extract makes the files. Only identity and store speak to AWS,
// and errors.go says in a user's words what it answered.
//
// The provider has no identity of its own: nothing reads AWS' chain of default
// credentials, whatever is in the process' environment.
package aws

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/propagation"

	"github.com/postern-dev/postern/providers/aws/internal/identity"
	"github.com/postern-dev/postern/providers/aws/internal/params"
	"github.com/postern-dev/postern/providers/aws/internal/store"
	"github.com/postern-dev/postern/providers/sdk"
)

// What the provider is handed of Kubernetes objects.
const (
	roleAnnotation = "eks.amazonaws.com/role-arn"
	regionLabel    = "topology.kubernetes.io/region"
)

// The audiences of the pods' tokens.
const (
	audienceSTS         = "sts.amazonaws.com"
	audiencePodIdentity = "pods.eks.amazonaws.com"
)

// Ways to find out on a refresh whether something has changed.
const (
	checkDescribe = "describe" // ask for the versions, which moves no contents
	checkRead     = "read"     // read, which is fewer calls
)

// Definition describes the provider, under the name "aws".
func Definition() sdk.Definition {
	var o options
	return sdk.Definition{
		Name: "aws",
		// Which of them a fetch needs is said by usePodIdentity.
		Audiences: []sdk.Audience{
			{Value: audienceSTS, Optional: true},
			{Value: audiencePodIdentity, Optional: true},
		},
		Parameters:                params.Parameters(),
		ServiceAccountAnnotations: []string{roleAnnotation},
		NodeLabels:                []string{regionLabel},
		NotModified:               true,
		Flags:                     o.declare,
		New: func(ctx context.Context, env sdk.Environment) (sdk.Provider, error) {
			return newProvider(ctx, o, env)
		},
	}
}

// options are the provider's flags.
type options struct {
	region       string
	agentTimeout time.Duration
	agent        identity.AgentEndpoints
	refreshCheck string
	maxSessions  int
}

func (o *options) declare(flags *sdk.Flags) {
	flags.String(&o.region, "aws-region", "", "region of classes that do not say one (default AWS_REGION, then the node's label "+regionLabel+")")
	flags.Duration(&o.agentTimeout, "pod-identity-http-timeout", identity.DefaultAgentTimeout, "how long one request to the EKS Pod Identity agent may take")
	flags.String(&o.agent.IPv4, "pod-identity-ipv4-endpoint", "", "URL of the EKS Pod Identity agent by IPv4 (default "+identity.AgentIPv4+")")
	flags.String(&o.agent.IPv6, "pod-identity-ipv6-endpoint", "", "URL of the EKS Pod Identity agent by IPv6 (default "+identity.AgentIPv6+")")
	flags.String(&o.refreshCheck, "refresh-check", checkDescribe, "how a refresh finds out what has changed: by versions alone, which moves no contents (describe), or by reading, which is fewer calls (read)")
	flags.Int(&o.maxSessions, "max-sessions", 1000, "how many identities' credentials to keep at most")
}

func (o *options) validate() error {
	switch {
	case o.refreshCheck != checkDescribe && o.refreshCheck != checkRead:
		return fmt.Errorf("read flags: --refresh-check is %q, and has to be %s or %s", o.refreshCheck, checkDescribe, checkRead)
	case o.maxSessions < 1:
		return fmt.Errorf("read flags: --max-sessions is %d, and has to be more than zero", o.maxSessions)
	case o.agentTimeout <= 0:
		return fmt.Errorf("read flags: --pod-identity-http-timeout is %s, and has to be more than zero", o.agentTimeout)
	}
	return nil
}

func newProvider(ctx context.Context, o options, env sdk.Environment) (*provider, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	cfg, err := loadConfig(ctx, env)
	if err != nil {
		return nil, err
	}
	if o.region == "" {
		o.region = env.Getenv("AWS_REGION")
	}
	return &provider{
		region:   o.region,
		describe: o.refreshCheck == checkDescribe,
		sessions: identity.New(identity.Config{
			AWS: cfg, AgentEndpoints: o.agent, AgentTimeout: o.agentTimeout,
			AgentHTTPClient: agentClient(env), MaxSessions: o.maxSessions, Logger: env.Logger,
		}),
		store: store.New(store.Config{AWS: cfg, Logger: env.Logger}),
	}, nil
}

// loadConfig is what the SDK takes from the environment (endpoints, FIPS, CA
// bundle, proxy), without credentials.
func loadConfig(ctx context.Context, env sdk.Environment) (aws.Config, error) {
	cfg, err := config.LoadDefaultConfig(ctx,
		config.WithCredentialsProvider(aws.AnonymousCredentials{}),
		config.WithAppID("postern-provider-aws-"+env.Version),
	)
	if err != nil {
		return aws.Config{}, fmt.Errorf("read the AWS_ variables of the environment: %w", err)
	}
	client, ok := cfg.HTTPClient.(*awshttp.BuildableClient)
	if !ok {
		client = awshttp.NewBuildableClient()
	}
	cfg.HTTPClient = instrumented(client.GetTransport(), env)
	return cfg, nil
}

// agentClient is for an address of the node itself: no proxy.
func agentClient(env sdk.Environment) *http.Client {
	transport := awshttp.NewBuildableClient().GetTransport()
	transport.Proxy = nil
	return instrumented(transport, env)
}

// instrumented makes spans and metrics of requests. Their URLs are in them; what
// they ask for and what is answered is in their bodies, which are not.
func instrumented(transport http.RoundTripper, env sdk.Environment) *http.Client {
	return &http.Client{
		Transport: otelhttp.NewTransport(transport,
			otelhttp.WithTracerProvider(env.TracerProvider),
			otelhttp.WithMeterProvider(env.MeterProvider),
			otelhttp.WithPropagators(propagation.TraceContext{}),
			otelhttp.WithSpanNameFormatter(func(_ string, r *http.Request) string { return "aws " + operation(r) }),
		),
		// A redirect would take signed requests elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// operation names what a request asks for: by its target, such as
// "secretsmanager.GetSecretValue", or else by its method.
func operation(r *http.Request) string {
	target := r.Header.Get("X-Amz-Target")
	if _, name, ok := strings.Cut(target, "."); ok {
		return name
	}
	return r.Method
}
