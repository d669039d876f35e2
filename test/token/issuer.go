package token

import (
	"context"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	fetchTimeout = 10 * time.Second
	maxDocument  = 1 << 20
)

// Issuer is where an issuer of tokens publishes its keys.
type Issuer struct {
	// URL is the issuer's, as tokens have it in iss.
	URL string `json:"url"`
	// JWKS are its keys; else they are read from JWKSURL or, by discovery, from URL.
	JWKS    json.RawMessage `json:"jwks,omitempty"`
	JWKSURL string          `json:"jwksUrl,omitempty"`
	// CAPEM are the certificates to trust it by; "" is the system's.
	CAPEM string `json:"caPem,omitempty"`
	// BearerToken is sent where the keys are read.
	BearerToken string `json:"bearerToken,omitempty"`
}

// issuer is one whose keys are read when they are needed, and once more when a
// token names a key that is not among them.
type issuer struct {
	cfg    Issuer
	client *http.Client

	mu   sync.Mutex
	keys map[string]*rsa.PublicKey // by key id
}

func newIssuer(cfg Issuer) (*issuer, error) {
	if cfg.URL == "" {
		return nil, errors.New("an issuer needs a url")
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}}
	if cfg.CAPEM != "" {
		transport.TLSClientConfig.RootCAs = x509.NewCertPool()
		if !transport.TLSClientConfig.RootCAs.AppendCertsFromPEM([]byte(cfg.CAPEM)) {
			return nil, fmt.Errorf("issuer %s: no certificate in caPem", cfg.URL)
		}
	}
	i := &issuer{cfg: cfg, client: &http.Client{Transport: transport, Timeout: fetchTimeout}}
	if len(cfg.JWKS) != 0 {
		var err error
		if i.keys, err = parseKeys(cfg.JWKS); err != nil {
			return nil, fmt.Errorf("issuer %s: %w", cfg.URL, err)
		}
	}
	return i, nil
}

// key returns the public key of an id.
func (i *issuer) key(ctx context.Context, id string) (*rsa.PublicKey, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if key := i.keys[id]; key != nil {
		return key, nil
	}
	if len(i.cfg.JWKS) == 0 {
		keys, err := i.fetch(ctx)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
		}
		i.keys = keys
	}
	if key := i.keys[id]; key != nil {
		return key, nil
	}
	return nil, fmt.Errorf("%w: %q", ErrKey, id)
}

func (i *issuer) fetch(ctx context.Context) (map[string]*rsa.PublicKey, error) {
	url := i.cfg.JWKSURL
	if url == "" {
		var discovery struct {
			Issuer  string `json:"issuer"`
			JWKSURI string `json:"jwks_uri"`
		}
		document, err := i.get(ctx, strings.TrimSuffix(i.cfg.URL, "/")+"/.well-known/openid-configuration")
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(document, &discovery); err != nil {
			return nil, fmt.Errorf("discovery document: %w", err)
		}
		if discovery.Issuer != i.cfg.URL {
			return nil, fmt.Errorf("the discovery document of %s is %s's", i.cfg.URL, discovery.Issuer)
		}
		url = discovery.JWKSURI
	}
	document, err := i.get(ctx, url)
	if err != nil {
		return nil, err
	}
	return parseKeys(document)
}

func (i *issuer) get(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	if i.cfg.BearerToken != "" {
		req.Header.Set("Authorization", "Bearer "+i.cfg.BearerToken)
	}
	resp, err := i.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("get %s: %s", url, resp.Status)
	}
	return io.ReadAll(io.LimitReader(resp.Body, maxDocument))
}

// parseKeys reads the RSA keys of a JSON web key set.
func parseKeys(document []byte) (map[string]*rsa.PublicKey, error) {
	var set struct {
		Keys []struct {
			Type     string `json:"kty"`
			ID       string `json:"kid"`
			Modulus  string `json:"n"`
			Exponent string `json:"e"`
		} `json:"keys"`
	}
	if err := json.Unmarshal(document, &set); err != nil {
		return nil, fmt.Errorf("key set: %w", err)
	}
	keys := map[string]*rsa.PublicKey{}
	for _, k := range set.Keys {
		if k.Type != "RSA" {
			continue
		}
		n, errN := base64.RawURLEncoding.DecodeString(k.Modulus)
		e, errE := base64.RawURLEncoding.DecodeString(k.Exponent)
		if err := errors.Join(errN, errE); err != nil {
			return nil, fmt.Errorf("key %q: %w", k.ID, err)
		}
		keys[k.ID] = &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(new(big.Int).SetBytes(e).Int64())}
	}
	if len(keys) == 0 {
		return nil, errors.New("key set: it has no RSA key")
	}
	return keys, nil
}
