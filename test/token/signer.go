package token

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"strings"
)

// keyBits is the size of a Signer's key.
const keyBits = 2048

// Signer signs tokens, RS256.
type Signer struct {
	id  string
	key *rsa.PrivateKey
}

// NewSigner makes a key and calls it id.
func NewSigner(id string) (*Signer, error) {
	key, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		return nil, fmt.Errorf("make a key to sign tokens: %w", err)
	}
	return &Signer{id: id, key: key}, nil
}

// Sign returns a token with these claims.
func (s *Signer) Sign(claims any) (string, error) {
	head, err := json.Marshal(map[string]string{"typ": "JWT", "alg": "RS256", "kid": s.id})
	if err != nil {
		return "", fmt.Errorf("encode the header of a token: %w", err)
	}
	body, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("encode the claims of a token: %w", err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	signed := encode(head) + "." + encode(body)
	sum := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(rand.Reader, s.key, crypto.SHA256, sum[:])
	if err != nil {
		return "", fmt.Errorf("sign a token: %w", err)
	}
	return signed + "." + encode(signature), nil
}

// JWKS publishes its key.
func (s *Signer) JWKS() json.RawMessage {
	encode := base64.RawURLEncoding.EncodeToString
	exponent := big.NewInt(int64(s.key.E)).Bytes()
	return json.RawMessage(`{"keys":[{"kty":"RSA","alg":"RS256","use":"sig","kid":"` + s.id +
		`","n":"` + encode(s.key.N.Bytes()) + `","e":"` + encode(exponent) + `"}]}`)
}

// Open returns the claims of a token that it signed.
func (s *Signer) Open(raw string, claims any) error {
	h, _, err := split(raw)
	if err != nil {
		return err
	}
	if err := checkSignature(raw, h, &s.key.PublicKey); err != nil {
		return err
	}
	return decode(strings.Split(raw, ".")[1], claims)
}
