package identity

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"cloud.google.com/go/auth"

	"github.com/postern-dev/postern/providers/sdk"
)

// serviceAccountType is the only type of key.json that a class may bring: the others
// name addresses, files and programs that tokens are to be had of.
const serviceAccountType = "service_account"

// googleUniverse is the cloud that the token endpoint belongs to.
const googleUniverse = "googleapis.com"

// accountKey is a service account's key, as key.json has it.
type accountKey struct {
	Type       string `json:"type"`
	Email      string `json:"client_email"`
	KeyID      string `json:"private_key_id"`
	PrivateKey string `json:"private_key"`
	TokenURI   string `json:"token_uri"`
	Universe   string `json:"universe_domain"`
}

// parseKey reads a key.json. Its errors hold nothing of it but its type, its
// universe and its address.
func parseKey(text sdk.SecretString) (accountKey, error) {
	var k accountKey
	if json.Unmarshal([]byte(text.Reveal()), &k) != nil {
		return k, errors.New("key.json is not the JSON of a service account's key")
	}
	switch {
	case k.Type != serviceAccountType:
		return k, fmt.Errorf("key.json is of type %q, and only %s is allowed", k.Type, serviceAccountType)
	case k.Universe != "" && k.Universe != googleUniverse:
		return k, fmt.Errorf("key.json is of universe %q, and only %s is supported", k.Universe, googleUniverse)
	case !account.MatchString(k.Email):
		return k, errors.New("key.json has no client_email that is the address of a service account")
	case !isPrivateKey(k.PrivateKey):
		return k, errors.New("key.json has no private_key that is an RSA key in PEM")
	}
	if k.TokenURI == "" {
		k.TokenURI = DefaultTokenURI
	}
	return k, nil
}

func isPrivateKey(text string) bool {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return false
	}
	if parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
		_, ok := parsed.(*rsa.PrivateKey)
		return ok
	}
	_, err := x509.ParsePKCS1PrivateKey(block.Bytes)
	return err == nil
}

// withKey logs in with a key (RFC 7523). A class must not have the assertion sent
// to anybody but Google, or whom the operator trusts.
func (e *exchange) withKey(ctx context.Context, text sdk.SecretString, trusted []string) (access, error) {
	k, err := parseKey(text)
	if err == nil && k.TokenURI != DefaultTokenURI && !slices.Contains(trusted, k.TokenURI) {
		err = fmt.Errorf("key.json has token_uri %q, and only %s is allowed, or what the provider's operator adds", k.TokenURI, DefaultTokenURI)
	}
	if err != nil {
		return access{}, e.invalid(err)
	}
	e.hide(sdk.NewSecretString(k.PrivateKey))
	provider, err := auth.New2LOTokenProvider(&auth.Options2LO{
		Email: k.Email, PrivateKey: []byte(k.PrivateKey), PrivateKeyID: k.KeyID, TokenURL: k.TokenURI,
		Scopes: []string{cloudScope}, Client: e.client(), Logger: silent(),
	})
	if err != nil {
		return access{}, e.invalid(err)
	}
	token, err := provider.Token(ctx)
	if err != nil {
		return access{}, e.failure(err)
	}
	return e.checked(token.Value, token.Type, token.Expiry)
}

// silent is for Google's packages: a variable of the environment can make them log
// requests and answers whole.
func silent() *slog.Logger { return slog.New(slog.DiscardHandler) }
