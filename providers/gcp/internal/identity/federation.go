package identity

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
)

const (
	// GKETokenURL exchanges tokens of GKE's and of fleets' clusters.
	GKETokenURL = "https://securetoken.googleapis.com/v1/identitybindingtoken" //nolint:gosec // an address
	// STSTokenURL exchanges tokens of any issuer that a pool trusts.
	STSTokenURL = "https://sts.googleapis.com/v1/token" //nolint:gosec // an address
	// DefaultGKEEndpoint is what the issuers of GKE's clusters begin with.
	DefaultGKEEndpoint = "https://container.googleapis.com/v1"

	// namespacePrefix begins the audience of a pool that GKE or a fleet has made.
	namespacePrefix = "identitynamespace:"
	// resourcePrefix begins that of all others.
	resourcePrefix = "//iam.googleapis.com/"
	// poolSuffix is of the pool that each project has for GKE.
	poolSuffix = ".svc.id.goog"
)

// Federation is where pods' tokens are exchanged.
type Federation struct {
	// Audience is the exchange's: identitynamespace:<pool>:<provider>, or
	// //iam.googleapis.com/projects/<number>/locations/global/workloadIdentityPools/<pool>/providers/<provider>.
	Audience string
	// TokenAudiences are what a pod's token may be for, the usual one first.
	TokenAudiences []string
	// TokenURL is where it is sent.
	TokenURL string
}

// problem says why no token can be exchanged there.
func (f Federation) problem() string {
	if f.Audience == "" {
		return "no workload identity pool is given"
	}
	return notHTTPS("the address of the token exchange", f.TokenURL)
}

// notHTTPS says that an address is none to which a token may be sent.
func notHTTPS(what, address string) string {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
		return fmt.Sprintf("%s is no https URL: %q", what, address)
	}
	return ""
}

// Member is what a pod is in IAM's policies. With a pool of one's own that is so as
// long as its google.subject is the token's subject, as the documentation has it.
func (f Federation) Member(s Subject) string {
	if pool := f.pool(); pool != "" {
		return fmt.Sprintf("serviceAccount:%s[%s/%s]", pool, s.Namespace, s.ServiceAccount)
	}
	pool, _, _ := strings.Cut(strings.TrimPrefix(f.Audience, resourcePrefix), "/providers/")
	return fmt.Sprintf("principal:%s%s/subject/%s", resourcePrefix, pool, subjectClaim(s))
}

// subjectClaim is what a service account's tokens say of it.
func subjectClaim(s Subject) string {
	return fmt.Sprintf("system:serviceaccount:%s:%s", s.Namespace, s.ServiceAccount)
}

// pool is that of GKE or of a fleet; "" if it is one's own.
func (f Federation) pool() string {
	rest, ok := strings.CutPrefix(f.Audience, namespacePrefix)
	if !ok {
		return ""
	}
	pool, _, _ := strings.Cut(rest, ":https://") // a project's name may have a colon
	return pool
}

// FederationConfig says where pods' tokens are exchanged, or who knows.
type FederationConfig struct {
	// Pool and PoolProvider name what the operator has made. PoolProvider is either
	// projects/<number>/locations/global/workloadIdentityPools/<pool>/providers/<provider>,
	// and then there is no Pool, or the URL of a cluster in the pool of a fleet.
	Pool, PoolProvider string
	// Project, ClusterName and ClusterLocation are those of a GKE cluster. What is
	// not given is asked of the metadata server.
	Project, ClusterName, ClusterLocation string
	// GKEEndpoint begins the URL of GKE clusters; "": DefaultGKEEndpoint.
	GKEEndpoint string
	// TokenURL is where tokens are sent; "": what belongs to the pool.
	TokenURL string
	// TokenAudience is one more that pods' tokens may be for, and becomes the usual
	// one: that of a provider with allowed audiences of its own.
	TokenAudience string
	// CredentialsFile is that of GOOGLE_APPLICATION_CREDENTIALS. It says where
	// tokens are exchanged if it is of type external_account.
	CredentialsFile string
	// MetadataHTTPClient asks the metadata server, through no proxy. Nil: one of its own.
	MetadataHTTPClient *http.Client
	// MetadataHost is the metadata server, as GCE_METADATA_HOST has it; "": DefaultMetadataHost.
	MetadataHost string
}

// FindFederation finds out where pods' tokens are exchanged. What is said comes
// first, then a file of credentials, and the metadata server last: only that takes
// time.
func FindFederation(ctx context.Context, cfg FederationConfig) (Federation, error) {
	if cfg.TokenURL != "" {
		if problem := notHTTPS("the address of the token exchange", cfg.TokenURL); problem != "" {
			return Federation{}, errors.New(problem)
		}
	}
	if f, err := cfg.said(); err != nil || f.Audience != "" {
		return f, err
	}
	return cfg.ofGKE(ctx)
}

var poolProvider = regexp.MustCompile(
	`^projects/[a-z0-9.:-]{1,100}/locations/global/workloadIdentityPools/[a-z0-9.-]{1,64}/providers/[a-z0-9-]{1,64}$`)

// resourceName is that of a pool's provider, however it is written; "" if it is none.
func resourceName(name string) string {
	for _, prefix := range []string{resourcePrefix, "https:" + resourcePrefix} {
		name = strings.TrimPrefix(name, prefix)
	}
	if !poolProvider.MatchString(name) {
		return ""
	}
	return name
}

// ofResource is of a pool of one's own. Its providers take tokens for their own
// name, with or without https:, unless they have other audiences.
func (cfg FederationConfig) ofResource(name string) (Federation, error) {
	if cfg.Pool != "" {
		return Federation{}, fmt.Errorf("the workload identity provider %s says its pool: give no pool %s beside it", name, cfg.Pool)
	}
	audience := resourcePrefix + name
	return Federation{
		Audience: audience, TokenAudiences: cfg.tokenAudiences(audience, "https:"+audience), TokenURL: cmp.Or(cfg.TokenURL, STSTokenURL),
	}, nil
}

func (cfg FederationConfig) tokenAudiences(usual ...string) []string {
	if cfg.TokenAudience == "" || slices.Contains(usual, cfg.TokenAudience) {
		return usual
	}
	return append([]string{cfg.TokenAudience}, usual...)
}

// ofFleet is of a cluster's URL in a pool.
func (cfg FederationConfig) ofFleet() (Federation, error) {
	if problem := notHTTPS("the workload identity provider", cfg.PoolProvider); problem != "" {
		return Federation{}, fmt.Errorf("%s, nor is it of the form "+
			"projects/<number>/locations/global/workloadIdentityPools/<pool>/providers/<provider>", problem)
	}
	pool := cfg.Pool
	if pool == "" && cfg.Project != "" {
		pool = cfg.Project + poolSuffix
	}
	if !poolName.MatchString(pool) {
		return Federation{}, fmt.Errorf("%q is no workload identity pool: the provider %s needs one, such as my-project%s",
			pool, cfg.PoolProvider, poolSuffix)
	}
	return cfg.inNamespace(pool, cfg.PoolProvider), nil
}

var poolName = regexp.MustCompile(`^[a-z0-9.:-]{1,128}$`)

func (cfg FederationConfig) inNamespace(pool, cluster string) Federation {
	audience := namespacePrefix + pool + ":" + cluster
	return Federation{Audience: audience, TokenAudiences: cfg.tokenAudiences(pool, audience), TokenURL: cmp.Or(cfg.TokenURL, GKETokenURL)}
}

// ofFile is of a file of credentials. One of another type says nothing of pods, and
// one that is not there is said to be missing: pods should not fall back to another
// pool for that.
func (cfg FederationConfig) ofFile() (f Federation, ok bool, err error) {
	if cfg.CredentialsFile == "" {
		return f, false, nil
	}
	contents, err := os.ReadFile(cfg.CredentialsFile)
	if err != nil {
		return f, false, fmt.Errorf("credentials file: %w", err)
	}
	var file struct {
		Type     string `json:"type"`
		Audience string `json:"audience"`
		TokenURL string `json:"token_url"`
	}
	if json.Unmarshal(contents, &file) != nil {
		return f, false, fmt.Errorf("credentials file %s: it is not JSON with a type", cfg.CredentialsFile)
	}
	if file.Type != "external_account" {
		return f, false, nil
	}
	if f, err = cfg.ofAudience(file.Audience, file.TokenURL); err != nil {
		return f, false, fmt.Errorf("credentials file %s: %w", cfg.CredentialsFile, err)
	}
	return f, true, nil
}

// ofAudience is of the two fields of a file.
func (cfg FederationConfig) ofAudience(audience, tokenURL string) (Federation, error) {
	if cfg.TokenURL == "" && tokenURL != "" {
		if problem := notHTTPS("token_url", tokenURL); problem != "" {
			return Federation{}, errors.New(problem)
		}
		cfg.TokenURL = tokenURL
	}
	if name := resourceName(audience); name != "" {
		return cfg.ofResource(name)
	}
	rest, ok := strings.CutPrefix(audience, namespacePrefix)
	pool, cluster, both := strings.Cut(rest, ":https://")
	if !ok || !both || !poolName.MatchString(pool) {
		return Federation{}, fmt.Errorf("%q is no audience of a workload identity provider", audience)
	}
	return cfg.inNamespace(pool, "https://"+cluster), nil
}

// part is what a GKE cluster is made of, which becomes a part of its URL.
var part = regexp.MustCompile(`^[a-z0-9][a-z0-9.:-]{0,127}$`)

// ofGKE is of the cluster that the provider runs in.
func (cfg FederationConfig) ofGKE(ctx context.Context) (Federation, error) {
	m := newMetadataServer(cfg)
	var parts [3]string
	for i, one := range []struct{ name, said, path string }{
		{"project", cfg.Project, "project/project-id"},
		{"cluster location", cfg.ClusterLocation, "instance/attributes/cluster-location"},
		{"cluster name", cfg.ClusterName, "instance/attributes/cluster-name"},
	} {
		value := one.said
		if value == "" {
			var err error
			if value, err = m.get(ctx, one.path); err != nil {
				return Federation{}, fmt.Errorf("%s of the GKE cluster: %w", one.name, err)
			}
		}
		if !part.MatchString(value) {
			return Federation{}, fmt.Errorf("%q is no %s of a GKE cluster", value, one.name)
		}
		parts[i] = value
	}
	endpoint := strings.TrimSuffix(cmp.Or(cfg.GKEEndpoint, DefaultGKEEndpoint), "/")
	pool := cmp.Or(cfg.Pool, parts[0]+poolSuffix)
	if !poolName.MatchString(pool) {
		return Federation{}, fmt.Errorf("%q is no workload identity pool", pool)
	}
	return cfg.inNamespace(pool, fmt.Sprintf("%s/projects/%s/locations/%s/clusters/%s", endpoint, parts[0], parts[1], parts[2])), nil
}
