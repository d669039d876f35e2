package providertest

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"time"

	"github.com/postern-dev/postern/providers/sdk"
)

// Issuer signs tokens of service accounts as a cluster's API server does, for
// tests of providers that log in with them.
type Issuer struct {
	// URL is the issuer's: the claim "iss".
	URL string

	key *rsa.PrivateKey
}

// NewIssuer returns an issuer with a key of its own.
func NewIssuer(url string) (*Issuer, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, fmt.Errorf("make the key of issuer %s: %w", url, err)
	}
	return &Issuer{URL: url, key: key}, nil
}

// JWKS is its public key as a JSON Web Key Set (RFC 7517).
func (i *Issuer) JWKS() map[string]any {
	return map[string]any{"keys": []any{map[string]any{
		"kty": "RSA", "kid": "1", "alg": "RS256", "use": "sig",
		"n": base64URL(i.key.N.Bytes()), "e": base64URL(big.NewInt(int64(i.key.E)).Bytes()),
	}}}
}

// Token is the pod's token for an audience, good for an hour. Claims in changed
// replace those that Kubernetes would put in.
func (i *Issuer) Token(pod sdk.Pod, audience string, changed map[string]any) sdk.Token {
	now := time.Now()
	claims := map[string]any{
		"iss": i.URL, "sub": "system:serviceaccount:" + pod.Namespace + ":" + pod.ServiceAccount.Name,
		"aud": []string{audience},
		"iat": now.Unix(), "nbf": now.Add(-time.Minute).Unix(), "exp": now.Add(time.Hour).Unix(),
		"kubernetes.io": map[string]any{
			"namespace": pod.Namespace, "pod": map[string]any{"name": pod.Name, "uid": pod.UID},
			"serviceaccount": map[string]any{"name": pod.ServiceAccount.Name, "uid": "uid-" + pod.ServiceAccount.Name},
		},
	}
	maps.Copy(claims, changed)
	return sdk.Token{Audience: audience, Token: sdk.NewSecretString(i.sign(claims))}
}

// sign panics where claims are no JSON, which is an error of the test.
func (i *Issuer) sign(claims map[string]any) string {
	payload, err := json.Marshal(claims)
	if err != nil {
		panic(fmt.Sprintf("claims of a token: %v", err))
	}
	signed := base64URL([]byte(`{"alg":"RS256","kid":"1","typ":"JWT"}`)) + "." + base64URL(payload)
	digest := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(nil, i.key, crypto.SHA256, digest[:])
	if err != nil {
		panic(fmt.Sprintf("sign a token: %v", err))
	}
	return signed + "." + base64URL(signature)
}

func base64URL(data []byte) string { return base64.RawURLEncoding.EncodeToString(data) }
