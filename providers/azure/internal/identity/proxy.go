package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
)

const (
	// DefaultTokenProxyURL is where a cluster of AKS has its token proxy: at the
	// address of the API server, by another name in TLS.
	DefaultTokenProxyURL = "https://kubernetes.default.svc.cluster.local" //nolint:gosec // an address, no token
	// clusterCAFile is what a pod knows the API server by.
	clusterCAFile = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"
)

// TokenProxy is the token proxy of AKS, which exchanges pods' tokens for identity
// bindings.
type TokenProxy struct {
	// URL is where it is; "": DefaultTokenProxyURL. A path stands before those of
	// the requests.
	URL string
	// SNIName is its name in TLS, which tells it from the API server. It may be
	// empty only with a URL of its own.
	SNIName string
	// CAFile holds the certificates that it is trusted by, as PEM. "": those of the
	// cluster for the default URL, of the system for others. It is read for each
	// login: it may change.
	CAFile string
}

// Validate checks what does not change.
func (p TokenProxy) Validate() error {
	_, err := p.parse()
	return err
}

func (p TokenProxy) parse() (*url.URL, error) {
	if p.URL == "" {
		p.URL = DefaultTokenProxyURL
		if p.SNIName == "" {
			return nil, errors.New("the token proxy's name in TLS is not known: set --sni-name")
		}
	}
	to, err := url.Parse(p.URL)
	switch {
	case err != nil:
		return nil, errors.New("the token proxy's URL is none: check --token-proxy-url")
	case to.Scheme != "https" || to.Host == "" || to.User != nil || to.RawQuery != "" || to.Fragment != "":
		return nil, errors.New("the token proxy's URL has to be https:// with a host and perhaps a path: check --token-proxy-url")
	}
	return to, nil
}

// transport returns the way to the proxy, for one login.
func (p TokenProxy) transport() (*elsewhere, error) {
	to, err := p.parse()
	if err != nil {
		return nil, err
	}
	ca := p.CAFile
	if ca == "" && p.URL == "" {
		ca = clusterCAFile
	}
	cfg := &tls.Config{ServerName: p.SNIName, MinVersion: tls.VersionTLS12}
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, fmt.Errorf("certificates of the token proxy: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("certificates of the token proxy: %s holds none", ca)
		}
	}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: cfg, ForceAttemptHTTP2: true}
	moved := newElsewhere(to, withoutRedirects(&http.Client{Transport: transport}))
	moved.close = transport.CloseIdleConnections
	return moved, nil
}

// elsewhere sends requests to another address, with that address' path before
// theirs. The header Host stays.
type elsewhere struct {
	to    *url.URL
	next  policy.Transporter
	close func()
}

func newElsewhere(to *url.URL, next policy.Transporter) *elsewhere {
	if to.Path == "" {
		to.Path = "/" // without it, a path that is joined to it would not begin with one
	}
	return &elsewhere{to: to, next: next, close: func() {}}
}

// Do makes a request.
func (t *elsewhere) Do(req *http.Request) (*http.Response, error) {
	moved := req.Clone(req.Context())
	moved.URL = t.to.JoinPath(req.URL.EscapedPath())
	moved.URL.RawQuery = req.URL.RawQuery
	if moved.Host == "" {
		moved.Host = req.URL.Host
	}
	return t.next.Do(moved)
}
