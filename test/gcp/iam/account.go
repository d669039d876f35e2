package iam

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"

	"github.com/postern-dev/postern/test/gcp/api"
	"github.com/postern-dev/postern/test/gcp/control"
	"github.com/postern-dev/postern/test/token"
)

const (
	serviceAccounts = "projects/-/serviceAccounts/"
	emailSuffix     = ".iam.gserviceaccount.com"
	keyBits         = 2048
	// TokenURI is where assertions of keys are exchanged.
	TokenURI = "https://oauth2.googleapis.com/token"
)

// account is a service account.
type account struct {
	email, id string
	disabled  bool
	keys      map[string]*key // by name
}

// key is one of an account.
type key struct {
	id       string
	verifier *token.Verifier
	file     json.RawMessage
}

// PutServiceAccount adds a service account, or changes it, and returns the files of
// the keys that it names.
func (d *Directory) PutServiceAccount(s control.ServiceAccount) (control.AppliedServiceAccount, error) {
	if projectOf(s.Email) == "" {
		return control.AppliedServiceAccount{}, fmt.Errorf("%q is not NAME@PROJECT%s", s.Email, emailSuffix)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	a := d.accounts[s.Email]
	if a == nil {
		a = &account{email: s.Email, id: newID(), keys: map[string]*key{}}
		d.accounts[s.Email] = a
	}
	a.disabled = s.Disabled
	applied := control.AppliedServiceAccount{Email: s.Email}
	for _, name := range s.Keys {
		if a.keys[name] == nil {
			made, err := d.newKey(a, name)
			if err != nil {
				return control.AppliedServiceAccount{}, fmt.Errorf("make key %s of %s: %w", name, s.Email, err)
			}
			a.keys[name] = made
		}
		applied.Keys = append(applied.Keys, a.keys[name].file)
	}
	return applied, nil
}

// projectOf returns the project of a service account.
func projectOf(email string) string {
	name, host, _ := strings.Cut(email, "@")
	project, ok := strings.CutSuffix(host, emailSuffix)
	if !ok || name == "" {
		return ""
	}
	return project
}

// newKey makes a key as Google does: its private part is in the file alone.
func (d *Directory) newKey(a *account, id string) (*key, error) {
	private, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, err
	}
	k := &key{id: id, verifier: token.NewVerifier(d.now)}
	if err := k.verifier.Put(token.Issuer{URL: a.email, JWKS: keySet(id, private)}); err != nil {
		return nil, err
	}
	k.file, err = json.Marshal(map[string]string{
		"type": "service_account", "project_id": projectOf(a.email), "private_key_id": id,
		"private_key":  string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
		"client_email": a.email, "client_id": a.id, "token_uri": TokenURI, "universe_domain": "googleapis.com",
		"auth_uri": "https://accounts.google.com/o/oauth2/auth", "auth_provider_x509_cert_url": "https://www.googleapis.com/oauth2/v1/certs",
		"client_x509_cert_url": "https://www.googleapis.com/robot/v1/metadata/x509/" + strings.ReplaceAll(a.email, "@", "%40"),
	})
	return k, err
}

// DeleteServiceAccount removes one.
func (d *Directory) DeleteServiceAccount(email string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, ok := d.accounts[email]
	delete(d.accounts, email)
	return ok
}

// Account returns what a token of a service account is to say, if there is one of
// that email.
func (d *Directory) Account(email string) (t Token, exists, enabled bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	a := d.accounts[email]
	if a == nil {
		return Token{}, false, false
	}
	return Token{Principal: email, Members: []string{"serviceAccount:" + email}}, true, !a.disabled
}

// Assertion returns what the assertion of a key says, if a key of the service
// account that is its issuer signed it.
func (d *Directory) Assertion(ctx context.Context, raw string) (token.Claims, error) {
	claims, err := token.Peek(raw)
	if err != nil {
		return claims, err
	}
	d.mu.Lock()
	var keys []*key
	if a := d.accounts[claims.Issuer]; a != nil {
		for _, k := range a.keys {
			keys = append(keys, k)
		}
	}
	d.mu.Unlock()
	err = fmt.Errorf("%w: %s", token.ErrIssuer, claims.Issuer)
	for _, k := range keys {
		if claims, err = k.verifier.Authenticate(ctx, raw); err == nil {
			return claims, nil
		}
	}
	return claims, err
}

// Impersonate returns what a token of a service account is to say that the bearer
// of another asks for, along a chain of delegates.
func (d *Directory) Impersonate(caller Token, email string, delegates []string) (Token, error) {
	denied := &api.Refusal{
		Code: codes.PermissionDenied, Message: "Permission '" + GetAccessToken + "' denied on resource (or it may not exist).",
		Reason: "IAM_PERMISSION_DENIED", Domain: api.IAMDomain, Metadata: map[string]string{"permission": GetAccessToken},
	}
	for i, next := range slices.Concat(delegates, []string{email}) {
		permission := implicitDelegation
		if i == len(delegates) {
			permission = GetAccessToken
		}
		t, exists, enabled := d.Account(next)
		switch {
		case !exists:
			return Token{}, &api.Refusal{Code: codes.NotFound, Message: "Not found; Gaia id not found for email " + next}
		case !d.Allowed(caller, permission, serviceAccounts+next), !enabled:
			return Token{}, denied
		}
		caller = t
	}
	return caller, nil
}
