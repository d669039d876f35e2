// Package token verifies the JSON web tokens of service accounts: RS256, with the
// keys that the issuer publishes.
package token

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// Why a token is refused.
var (
	// ErrMalformed says that it is no token.
	ErrMalformed = errors.New("not a JSON web token")
	// ErrIssuer says that nobody trusts its issuer.
	ErrIssuer = errors.New("unknown issuer")
	// ErrUnreachable says that the issuer's keys cannot be read.
	ErrUnreachable = errors.New("the issuer's keys cannot be read")
	// ErrKey says that the issuer has no such key.
	ErrKey = errors.New("unknown key")
	// ErrSignature says that the key did not sign it.
	ErrSignature = errors.New("wrong signature")
	// ErrAudience says that it is for somebody else.
	ErrAudience = errors.New("wrong audience")
	// ErrExpired says that it is too old.
	ErrExpired = errors.New("expired")
	// ErrEarly says that it is not valid yet.
	ErrEarly = errors.New("not valid yet")
)

// Claims are what a token says.
type Claims struct {
	Issuer    string   `json:"iss"`
	Subject   string   `json:"sub"`
	Audience  audience `json:"aud"`
	Expiry    int64    `json:"exp"`
	NotBefore int64    `json:"nbf"`

	// Kubernetes is about the pod and its service account.
	Kubernetes struct {
		Namespace      string `json:"namespace"`
		Pod            named  `json:"pod"`
		ServiceAccount named  `json:"serviceaccount"`
	} `json:"kubernetes.io"`
}

type named struct {
	Name string `json:"name"`
	UID  string `json:"uid"`
}

// audience is a string or a list of them.
type audience []string

// UnmarshalJSON takes both.
func (a *audience) UnmarshalJSON(data []byte) error {
	var one string
	if json.Unmarshal(data, &one) == nil {
		*a = audience{one}
		return nil
	}
	return json.Unmarshal(data, (*[]string)(a))
}

// Matches returns the first audience of the token that is among accepted.
func (c Claims) Matches(accepted []string) (string, bool) {
	i := slices.IndexFunc(c.Audience, func(a string) bool { return slices.Contains(accepted, a) })
	if i < 0 {
		return "", false
	}
	return c.Audience[i], true
}

// Verifier knows the issuers that are trusted.
type Verifier struct {
	now func() time.Time

	mu      sync.Mutex
	issuers []*issuer
}

// NewVerifier returns one that trusts nobody yet.
func NewVerifier(now func() time.Time) *Verifier { return &Verifier{now: now} }

// Put adds an issuer, or replaces the one of the same URL.
func (v *Verifier) Put(i Issuer) error {
	added, err := newIssuer(i)
	if err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.issuers = slices.DeleteFunc(v.issuers, func(other *issuer) bool { return other.cfg.URL == i.URL })
	v.issuers = append(v.issuers, added)
	return nil
}

func (v *Verifier) find(is func(*issuer) bool) (*issuer, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	i := slices.IndexFunc(v.issuers, is)
	if i < 0 {
		return nil, false
	}
	return v.issuers[i], true
}

// Close closes the connections to the issuers.
func (v *Verifier) Close() {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, i := range v.issuers {
		i.client.CloseIdleConnections()
	}
}

// header is a token's.
type header struct {
	Algorithm string `json:"alg"`
	KeyID     string `json:"kid"`
}

// Peek returns what a token says, unverified.
func Peek(raw string) (Claims, error) {
	_, claims, err := split(raw)
	return claims, err
}

func split(raw string) (header, Claims, error) {
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return header{}, Claims{}, fmt.Errorf("%w: it has %d parts", ErrMalformed, len(parts))
	}
	var h header
	var c Claims
	if err := errors.Join(decode(parts[0], &h), decode(parts[1], &c)); err != nil {
		return header{}, Claims{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return h, c, nil
}

func decode(part string, v any) error {
	contents, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		return err
	}
	return json.Unmarshal(contents, v)
}

// Verify returns what a token says if its issuer is trusted and signed it, if it
// is for one of the audiences, and valid now.
func (v *Verifier) Verify(ctx context.Context, raw string, audiences []string) (Claims, error) {
	claims, err := v.Authenticate(ctx, raw)
	if err != nil {
		return claims, err
	}
	if _, ok := claims.Matches(audiences); !ok {
		return claims, fmt.Errorf("%w: %q", ErrAudience, claims.Audience)
	}
	return claims, v.Current(claims)
}

// Authenticate returns what a token says if its issuer is trusted and signed it.
func (v *Verifier) Authenticate(ctx context.Context, raw string) (Claims, error) {
	h, claims, err := split(raw)
	if err != nil {
		return Claims{}, err
	}
	i, ok := v.find(func(i *issuer) bool { return i.cfg.URL == claims.Issuer })
	if !ok {
		return claims, fmt.Errorf("%w: %s", ErrIssuer, claims.Issuer)
	}
	key, err := i.key(ctx, h.KeyID)
	if err != nil {
		return claims, err
	}
	return claims, checkSignature(raw, h, key)
}

// Current tells whether a token is valid now.
func (v *Verifier) Current(claims Claims) error {
	now := v.now()
	switch {
	case now.Unix() >= claims.Expiry:
		return Expired(now, claims)
	case now.Unix() < claims.NotBefore:
		return ErrEarly
	default:
		return nil
	}
}

// Expired is the error of a token that is too old.
func Expired(now time.Time, c Claims) error {
	return fmt.Errorf("%w: current date/time %d must be before the expiration date/time %d", ErrExpired, now.Unix(), c.Expiry)
}

func checkSignature(raw string, h header, key *rsa.PublicKey) error {
	if h.Algorithm != "RS256" {
		return fmt.Errorf("%w: algorithm %q, want RS256", ErrSignature, h.Algorithm)
	}
	dot := strings.LastIndexByte(raw, '.')
	signature, err := base64.RawURLEncoding.DecodeString(raw[dot+1:])
	if err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	sum := sha256.Sum256([]byte(raw[:dot]))
	if rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], signature) != nil {
		return ErrSignature
	}
	return nil
}
