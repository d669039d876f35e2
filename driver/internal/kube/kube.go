// Package kube is how the driver talks to the Kubernetes API server.
//
// It is a REST client for the handful of calls that the driver makes, without
// client-go's typed clients, informers and caches: on every node of a cluster
// memory counts, and a node must not hold the objects of all others.
package kube

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	apiv1 "github.com/postern-dev/postern/driver/api/v1"
)

const (
	// defaultRequestTimeout bounds one request, so that an API server which
	// does not answer costs only a part of kubelet's two minutes.
	defaultRequestTimeout = 15 * time.Second
	defaultUserAgent      = "postern-driver"
)

// Config is what New needs.
type Config struct {
	// Kubeconfig is the path of a kubeconfig file; empty: the pod's own
	// service account.
	Kubeconfig string
	// RESTConfig, if set, is used instead of Kubeconfig. It is not changed.
	RESTConfig *rest.Config
	// UserAgent tells the API server who asks. Default: postern-driver.
	UserAgent string
	// RequestTimeout bounds one request. Default: 15 s.
	RequestTimeout time.Duration
	Logger         *slog.Logger
}

// Client calls the API server.
//
// Invariants:
//  1. No call is held back on this side: the API server's own fairness, and
//     its Retry-After, say when to slow down.
//  2. Every call ends with its context, and all but watches after the request
//     timeout at the latest.
//  3. No request's body and no token is logged.
type Client struct {
	http    *http.Client
	core    *rest.RESTClient
	classes *rest.RESTClient
	// watches is classes without a limit of time, over the same connections.
	watches *rest.RESTClient
	logger  *slog.Logger
	outage  outage

	classFlights flights[*apiv1.SecretProviderClass]
	labels       nodeLabels
}

// New returns a client. It makes no call: whether the API server is there is
// seen by the first one. Tokens of the service account are read again as
// kubelet rotates them.
func New(cfg Config) (*Client, error) {
	if cfg.Logger == nil {
		return nil, errors.New("kube client needs a logger")
	}
	restConfig, err := load(cfg)
	if err != nil {
		return nil, err
	}
	httpClient, err := rest.HTTPClientFor(restConfig)
	if err != nil {
		return nil, fmt.Errorf("set up TLS to the API server %s: %w", restConfig.Host, err)
	}
	scheme := runtime.NewScheme()
	if err := errors.Join(metav1.AddMetaToScheme(scheme), apiv1.AddToScheme(scheme)); err != nil {
		return nil, fmt.Errorf("register API types: %w", err)
	}
	coreVersion := schema.GroupVersion{Version: "v1"}
	metav1.AddToGroupVersion(scheme, coreVersion)
	restConfig.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()

	core, err := restClient(restConfig, httpClient, "/api", coreVersion)
	if err != nil {
		return nil, err
	}
	classes, err := restClient(restConfig, httpClient, "/apis", apiv1.GroupVersion())
	if err != nil {
		return nil, err
	}
	unlimited := *httpClient
	unlimited.Timeout = 0
	watches, err := restClient(restConfig, &unlimited, "/apis", apiv1.GroupVersion())
	if err != nil {
		return nil, err
	}
	return &Client{http: httpClient, core: core, classes: classes, watches: watches, logger: cfg.Logger}, nil
}

// Close gives up idle connections. Calls that are under way go on.
func (c *Client) Close() { c.http.CloseIdleConnections() }

func load(cfg Config) (*rest.Config, error) {
	var loaded *rest.Config
	var err error
	switch {
	case cfg.RESTConfig != nil:
		loaded = rest.CopyConfig(cfg.RESTConfig)
	case cfg.Kubeconfig != "":
		if loaded, err = clientcmd.BuildConfigFromFlags("", cfg.Kubeconfig); err != nil {
			return nil, fmt.Errorf("read kubeconfig %s: %w", cfg.Kubeconfig, err)
		}
	default:
		if loaded, err = rest.InClusterConfig(); err != nil {
			return nil, fmt.Errorf("find the API server as a pod (outside of one, name a kubeconfig file): %w", err)
		}
	}
	loaded.UserAgent = cfg.UserAgent
	if loaded.UserAgent == "" {
		loaded.UserAgent = defaultUserAgent
	}
	loaded.Timeout = cfg.RequestTimeout
	if loaded.Timeout <= 0 {
		loaded.Timeout = defaultRequestTimeout
	}
	// Negative: client-go's throttle is off. With its default of 5 calls a
	// second, a node that starts a hundred pods makes them wait for minutes.
	loaded.QPS = -1
	loaded.WarningHandlerWithContext = warnings{cfg.Logger}
	return loaded, nil
}

// restClient returns a client for one group and version; all share the
// connections of httpClient.
func restClient(base *rest.Config, httpClient *http.Client, apiPath string, version schema.GroupVersion) (*rest.RESTClient, error) {
	config := rest.CopyConfig(base)
	config.APIPath = apiPath
	config.GroupVersion = &version
	client, err := rest.RESTClientForConfigAndClient(config, httpClient)
	if err != nil {
		return nil, fmt.Errorf("set up a client of API %s: %w", version, err)
	}
	return client, nil
}
