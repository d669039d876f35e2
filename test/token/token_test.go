package token_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/postern-dev/postern/test/token"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const url = "https://oidc.example.com"

func now() time.Time { return time.Unix(1_700_000_000, 0) }

func newKey(t *testing.T) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// keySet publishes keys by their ids, with one that is not RSA's.
func keySet(keys map[string]*rsa.PrivateKey) []byte {
	encode := base64.RawURLEncoding.EncodeToString
	set := []map[string]string{{"kty": "EC", "kid": "elliptic"}}
	for id, key := range keys {
		set = append(set, map[string]string{"kty": "RSA", "kid": id, "n": encode(key.N.Bytes()), "e": encode(big.NewInt(int64(key.E)).Bytes())})
	}
	encoded, _ := json.Marshal(map[string]any{"keys": set}) //nolint:errchkjson // strings can always be encoded
	return encoded
}

// sign makes a token that is valid at now, but for what claims say.
func sign(t *testing.T, key *rsa.PrivateKey, header string, claims map[string]any) string {
	t.Helper()
	all := map[string]any{"iss": url, "sub": "system:serviceaccount:shop:web", "aud": "a", "exp": now().Unix() + 1, "nbf": now().Unix()}
	for name, value := range claims {
		all[name] = value
	}
	body, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	signed := encode([]byte(header)) + "." + encode(body)
	sum := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return signed + "." + encode(signature)
}

const header = `{"alg":"RS256","kid":"one"}`

func TestVerify(t *testing.T) {
	t.Parallel()
	key, other := newKey(t), newKey(t)
	v := token.NewVerifier(now)
	if err := v.Put(token.Issuer{URL: url, JWKS: keySet(map[string]*rsa.PrivateKey{"one": key})}); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		token string
		want  error
	}{
		"valid":              {sign(t, key, header, nil), nil},
		"several audiences":  {sign(t, key, header, map[string]any{"aud": []string{"x", "a"}}), nil},
		"other audience":     {sign(t, key, header, map[string]any{"aud": []string{"x", "y"}}), token.ErrAudience},
		"no audience":        {sign(t, key, header, map[string]any{"aud": nil}), token.ErrAudience},
		"at its end":         {sign(t, key, header, map[string]any{"exp": now().Unix()}), token.ErrExpired},
		"no end":             {sign(t, key, header, map[string]any{"exp": nil}), token.ErrExpired},
		"before its time":    {sign(t, key, header, map[string]any{"nbf": now().Unix() + 1}), token.ErrEarly},
		"other issuer":       {sign(t, key, header, map[string]any{"iss": url + "/"}), token.ErrIssuer},
		"other's key":        {sign(t, other, header, nil), token.ErrSignature},
		"unknown key":        {sign(t, key, `{"alg":"RS256","kid":"two"}`, nil), token.ErrKey},
		"key that is no RSA": {sign(t, key, `{"alg":"RS256","kid":"elliptic"}`, nil), token.ErrKey},
		"other algorithm":    {sign(t, key, `{"alg":"RS512","kid":"one"}`, nil), token.ErrSignature},
		"no algorithm":       {sign(t, key, `{"kid":"one"}`, nil), token.ErrSignature},
		"two parts":          {"a.b", token.ErrMalformed},
		"four parts":         {sign(t, key, header, nil) + ".a", token.ErrMalformed},
		"no base64":          {"%.b.c", token.ErrMalformed},
		"no JSON":            {"YQ.YQ.YQ", token.ErrMalformed},
		"odd signature":      {sign(t, key, header, nil) + "%", token.ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			claims, err := v.Verify(t.Context(), test.token, []string{"a", "b"})
			if !errors.Is(err, test.want) || (err == nil) != (test.want == nil) {
				t.Errorf("got %v, want %v", err, test.want)
			}
			if err == nil && claims.Subject != "system:serviceaccount:shop:web" {
				t.Errorf("claims %+v", claims)
			}
		})
	}
}

// published serves a discovery document and keys that change.
type published struct {
	*httptest.Server

	issuer atomic.Value // string: what discovery says
	keys   atomic.Value // []byte
	reads  atomic.Int64
}

func publish(t *testing.T, keys []byte) *published {
	t.Helper()
	p := &published{}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/.well-known/openid-configuration":
			_, _ = fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q}`, p.issuer.Load(), p.URL+"/keys")
		case "/keys":
			p.reads.Add(1)
			_, _ = w.Write(p.keys.Load().([]byte)) //nolint:forcetypeassert // nothing else is stored
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(p.Close)
	p.issuer.Store(p.URL)
	p.keys.Store(keys)
	return p
}

func TestNewKeysAreReadWhenATokenNamesThem(t *testing.T) {
	t.Parallel()
	one, two := newKey(t), newKey(t)
	p := publish(t, keySet(map[string]*rsa.PrivateKey{"one": one}))
	v := token.NewVerifier(now)
	t.Cleanup(v.Close)
	if err := v.Put(token.Issuer{URL: p.URL}); err != nil {
		t.Fatal(err)
	}
	verify := func(key *rsa.PrivateKey, id string) error {
		_, err := v.Verify(t.Context(), sign(t, key, `{"alg":"RS256","kid":"`+id+`"}`, map[string]any{"iss": p.URL}), []string{"a"})
		return err
	}
	for range 2 {
		if err := verify(one, "one"); err != nil {
			t.Fatal(err)
		}
	}
	if got := p.reads.Load(); got != 1 {
		t.Errorf("the keys were read %d times, want once", got)
	}
	if err := verify(two, "two"); !errors.Is(err, token.ErrKey) {
		t.Errorf("a key that is not published: %v", err)
	}
	p.keys.Store(keySet(map[string]*rsa.PrivateKey{"two": two}))
	if err := verify(two, "two"); err != nil {
		t.Errorf("a key that is published since: %v", err)
	}
	if err := verify(one, "one"); !errors.Is(err, token.ErrKey) {
		t.Errorf("a key that is published no more: %v", err)
	}
}

func TestIssuersThatCannotBeRead(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	for name, change := range map[string]func(*published){
		"another's discovery": func(p *published) { p.issuer.Store("https://another.example.com") },
		"no keys":             func(p *published) { p.keys.Store([]byte(`{"keys":[]}`)) },
		"no JSON":             func(p *published) { p.keys.Store([]byte(`<html>`)) },
		"no base64":           func(p *published) { p.keys.Store([]byte(`{"keys":[{"kty":"RSA","kid":"one","n":"%","e":"AQAB"}]}`)) },
		"not there":           func(p *published) { p.Config.Handler = http.NotFoundHandler() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := publish(t, keySet(map[string]*rsa.PrivateKey{"one": key}))
			change(p)
			v := token.NewVerifier(now)
			t.Cleanup(v.Close)
			if err := v.Put(token.Issuer{URL: p.URL}); err != nil {
				t.Fatal(err)
			}
			_, err := v.Verify(t.Context(), sign(t, key, header, map[string]any{"iss": p.URL}), []string{"a"})
			if !errors.Is(err, token.ErrUnreachable) {
				t.Errorf("got %v", err)
			}
		})
	}
}
