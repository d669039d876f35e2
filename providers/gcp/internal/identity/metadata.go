package identity

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// DefaultMetadataHost is the same on all of Google's machines.
const DefaultMetadataHost = "169.254.169.254"

const (
	// metadataTimeout is for one value. Elsewhere nobody answers there.
	metadataTimeout = 3 * time.Second
	// maxValue is many times what one has.
	maxValue = 4 << 10
	// flavor is a header that both sides send.
	flavor, google = "Metadata-Flavor", "Google"
)

// metadataServer asks a node's metadata server what its cluster is.
type metadataServer struct {
	client *http.Client
	host   string
}

func newMetadataServer(cfg FederationConfig) metadataServer {
	client := cfg.MetadataHTTPClient
	if client == nil {
		client = &http.Client{Transport: &http.Transport{Proxy: nil, DisableKeepAlives: true}}
	}
	return metadataServer{client: withoutRedirects(client), host: cmp.Or(cfg.MetadataHost, DefaultMetadataHost)}
}

// get returns a value.
func (m metadataServer) get(ctx context.Context, path string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, metadataTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+m.host+"/computeMetadata/v1/"+path, nil)
	if err != nil {
		return "", fmt.Errorf("metadata server: %w", err)
	}
	req.Header.Set(flavor, google)
	resp, err := m.client.Do(req)
	if err != nil {
		if sending, ok := errors.AsType[*url.Error](err); ok {
			err = sending.Err
		}
		return "", fmt.Errorf("metadata server %s: %w. Where there is none, say which workload identity pool and provider to use", m.host, err)
	}
	defer func() { _ = resp.Body.Close() }()
	switch {
	case resp.Header.Get(flavor) != google:
		return "", fmt.Errorf("metadata server %s: what answers is not Google's", m.host)
	case resp.StatusCode == http.StatusNotFound:
		return "", fmt.Errorf("metadata server %s: it has no %s: the node is not of a GKE cluster, or the server is concealed. Say it "+
			"to the provider, or say which workload identity pool and provider to use", m.host, path)
	case resp.StatusCode != http.StatusOK:
		return "", fmt.Errorf("metadata server %s: HTTP status %d for %s", m.host, resp.StatusCode, path)
	}
	value, err := io.ReadAll(io.LimitReader(resp.Body, maxValue))
	if err != nil {
		return "", fmt.Errorf("metadata server %s: read %s: %w", m.host, path, err)
	}
	return strings.TrimSpace(string(value)), nil
}

// failurePause is for how long a failure is taken as known: asking may take as long
// as the metadata server lets wait, and each fetch wants to know.
const failurePause = 10 * time.Second

// Locator finds the federation when it is first needed, and remembers it.
//
// Its invariants:
//  1. One looks at a time. Who waits leaves with its own context.
//  2. What was found stays. A failure is remembered for failurePause, but not that
//     somebody had no time to wait for the answer.
type Locator struct {
	cfg FederationConfig
	// state has room for one: who holds it, looks.
	state chan located
}

type located struct {
	federation Federation
	err        error
	found      bool
	until      time.Time // of err
}

// NewLocator returns one that has not looked yet.
func NewLocator(cfg FederationConfig) *Locator {
	l := &Locator{cfg: cfg, state: make(chan located, 1)}
	l.state <- located{}
	return l
}

// Federation returns where pods' tokens are exchanged.
func (l *Locator) Federation(ctx context.Context) (Federation, error) {
	var known located
	select {
	case known = <-l.state:
	case <-ctx.Done():
		return Federation{}, ctx.Err()
	}
	defer func() { l.state <- known }()
	if known.found || known.err != nil && time.Now().Before(known.until) {
		return known.federation, known.err
	}
	f, err := FindFederation(ctx, l.cfg)
	if ctx.Err() != nil && err != nil {
		return Federation{}, err
	}
	known = located{federation: f, err: err, found: err == nil, until: time.Now().Add(failurePause)}
	return f, err
}
