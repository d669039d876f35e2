// Package vault is the provider for HashiCorp Vault and OpenBao.
//
// How a fetch goes: params decodes the SecretProviderClass; token.go checks that
// the pod's service account token is the pod's; session logs in with it, or has
// a login of the same identity; fetch.go reads each path once, or finds a
// credential that lease keeps for the volume; extract makes the files and
// version their versions. store is the only package that speaks to a server, and
// errors.go says in a user's words what it answered.
package vault

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/hashicorp/vault/api"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/propagation"

	"github.com/postern-dev/postern/providers/sdk"
	"github.com/postern-dev/postern/providers/vault/internal/params"
	"github.com/postern-dev/postern/providers/vault/internal/store"
)

// Definition describes the provider, under the names "vault" and "openbao".
func Definition() sdk.Definition {
	var o options
	return sdk.Definition{
		Name:       "vault",
		Names:      []string{"vault", "openbao"},
		Audiences:  []sdk.Audience{{Parameter: params.Audience, ParameterDefault: params.DefaultAudience}},
		Parameters: parameters(),
		// An answer whose contents are lost can still be confirmed.
		NotModified: true,
		Leases:      true,
		Flags:       o.declare,
		New: func(_ context.Context, env sdk.Environment) (sdk.Provider, error) {
			return newProvider(o, env)
		},
	}
}

// parameters are the class parameters, each "vault..." also as "bao...".
func parameters() []sdk.Parameter {
	list := []sdk.Parameter{
		{Name: params.Role, Description: "Role of the auth method to log in with.", Required: true},
		{Name: params.Objects, Description: "YAML list of what to read, one file each.", Required: true},
		{Name: params.Audience, Description: "Audience of the service account token to log in with; default vault."},
		{Name: params.Address, Description: "URL of the server.", LocatesStore: true},
		{Name: params.Namespace, Description: "Namespace of the server."},
		{Name: params.AuthMount, Description: "Path of the kubernetes or jwt auth method; default kubernetes."},
		{Name: params.KubernetesMount, Description: "Older name of vaultAuthMountPath."},
		{Name: params.SkipVerify, Description: "Do not verify the server's certificate.", LocatesStore: true},
		{Name: params.CACert, Description: "File of the provider's pod with the CA certificates to trust.", LocatesStore: true},
		{Name: params.CADirectory, Description: "Directory of the provider's pod with CA certificates to trust.", LocatesStore: true},
		{Name: params.ServerName, Description: "Name to expect in the server's certificate.", LocatesStore: true},
		{Name: params.ClientCert, Description: "File of the provider's pod with the client certificate.", LocatesStore: true},
		{Name: params.ClientKey, Description: "File of the provider's pod with the client certificate's key.", LocatesStore: true},
		{Name: params.PerPod, Description: "Log in for each pod, not once for each service account."},
	}
	for _, p := range list {
		if name := params.OpenBao(p.Name); name != "" {
			list = append(list, sdk.Parameter{Name: name, Description: "Same as " + p.Name + ".", LocatesStore: p.LocatesStore})
		}
	}
	return list
}

// options are the provider's flags.
type options struct {
	address     string
	mount       string
	namespace   string
	tls         store.TLS
	tlsDirs     []string
	maxSessions int
	idle        time.Duration
}

func (o *options) declare(flags *sdk.Flags) {
	flags.String(&o.address, "vault-addr", "", "URL of the server, unless a class says otherwise (default VAULT_AGENT_ADDR or VAULT_ADDR)")
	flags.String(&o.mount, "vault-mount", "kubernetes", "path of the auth method, unless a class says otherwise")
	flags.String(&o.namespace, "vault-namespace", "", "namespace of the server, unless a class says otherwise (default VAULT_NAMESPACE)")
	flags.String(&o.tls.CACert, "vault-tls-ca-cert", "", "file with the CA certificates to trust (default VAULT_CACERT)")
	flags.String(&o.tls.CADirectory, "vault-tls-ca-directory", "", "directory with CA certificates to trust (default VAULT_CAPATH)")
	flags.String(&o.tls.ServerName, "vault-tls-server-name", "", "name to expect in the server's certificate (default VAULT_TLS_SERVER_NAME)")
	flags.String(&o.tls.ClientCert, "vault-tls-client-cert", "", "file with the client certificate (default VAULT_CLIENT_CERT)")
	flags.String(&o.tls.ClientKey, "vault-tls-client-key", "", "file with the client certificate's key (default VAULT_CLIENT_KEY)")
	flags.Bool(&o.tls.SkipVerify, "vault-tls-skip-verify", false, "do not verify the server's certificate (default VAULT_SKIP_VERIFY)")
	flags.StringSlice(&o.tlsDirs, "vault-tls-dirs", nil, "directories in which the TLS files that a class names must be (default anywhere)")
	flags.Int(&o.maxSessions, "max-sessions", 1000, "how many logins to keep at most")
	flags.Duration(&o.idle, "session-idle-timeout", 2*time.Hour, "after how long without a fetch a login is not renewed any more")
}

// defaults resolves flags and environment into what classes need not say.
func (o *options) defaults(env sdk.Environment) (params.Defaults, error) {
	cfg := api.DefaultConfig() // reads the environment
	if cfg.Error != nil {
		return params.Defaults{}, fmt.Errorf("read the VAULT_ variables of the environment: %w", cfg.Error)
	}
	if o.maxSessions < 1 || o.idle <= 0 {
		return params.Defaults{}, fmt.Errorf("read flags: --max-sessions and --session-idle-timeout must be more than zero")
	}
	if (o.tls.ClientCert == "") != (o.tls.ClientKey == "") {
		return params.Defaults{}, fmt.Errorf("read flags: both client cert and client key must be provided")
	}
	return params.Defaults{
		Endpoint: store.Endpoint{
			Address:   first(o.address, cfg.AgentAddress, cfg.Address),
			Namespace: first(o.namespace, env.Getenv(api.EnvVaultNamespace)),
			TLS:       o.tls,
		},
		AuthMount: first(o.mount, "kubernetes"),
		TLSDirs:   o.tlsDirs,
	}, nil
}

func first(texts ...string) string {
	for _, text := range texts {
		if text != "" {
			return text
		}
	}
	return ""
}

// instrument makes spans and metrics of the requests to stores. Their paths and
// queries are in them, as they are in the class; headers and bodies are not.
func instrument(env sdk.Environment) func(http.RoundTripper) http.RoundTripper {
	return func(rt http.RoundTripper) http.RoundTripper {
		return otelhttp.NewTransport(rt,
			otelhttp.WithTracerProvider(env.TracerProvider),
			otelhttp.WithMeterProvider(env.MeterProvider),
			otelhttp.WithPropagators(propagation.TraceContext{}),
			otelhttp.WithSpanNameFormatter(func(_ string, r *http.Request) string { return "vault " + r.Method }),
		)
	}
}
