package identity

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// exchanged is the body of a token exchange.
func exchanged(f Federation, pod string) map[string]any {
	return map[string]any{
		"grant_type": "urn:ietf:params:oauth:grant-type:token-exchange", "audience": f.Audience,
		"scope": "https://www.googleapis.com/auth/cloud-platform", "subject_token": podToken(pod).Reveal(),
		"requested_token_type": "urn:ietf:params:oauth:token-type:access_token", "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
	}
}

const iamURL = "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/" + googleSA + ":generateAccessToken"

func compareRequests(t *testing.T, s *transport, want ...asked) {
	t.Helper()
	if diff := cmp.Diff(want, s.all(), cmp.AllowUnexported(asked{})); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
	if s.open != 0 {
		t.Errorf("%d answers are left open", s.open)
	}
}

// TestRequests: all that a login asks, of whom.
func TestRequests(t *testing.T) {
	t.Parallel()
	elsewhere := of(WorkloadIdentity, "a")
	elsewhere.Federation = wif()
	both := elsewhere
	both.ServiceAccount = googleSA
	numbered := impersonating()
	numbered.ServiceAccount = "123456789012345678901"
	post := func(address, authorization string, fields map[string]any) asked {
		return asked{method: "POST", url: address, contentType: "application/json", authorization: authorization, fields: fields}
	}
	scope := []any{"https://www.googleapis.com/auth/cloud-platform"}
	generate := map[string]any{"scope": scope, "lifetime": "3600s"}
	first := "Bearer " + accessToken(1)
	for name, test := range map[string]struct {
		use    Use
		change func(*Config)
		want   []asked
	}{
		"GKE":        {use: of(WorkloadIdentity, "a"), want: []asked{post("https://securetoken.googleapis.com/v1/identitybindingtoken", "", exchanged(gke(), "a"))}},
		"federation": {use: elsewhere, want: []asked{post("https://sts.googleapis.com/v1/token", "", exchanged(wif(), "a"))}},
		"GKE and a service account": {
			use: impersonating(), want: []asked{post(GKETokenURL, "", exchanged(gke(), "a")), post(iamURL, first, generate)},
		},
		"federation and a service account": {
			use: both, want: []asked{post(STSTokenURL, "", exchanged(wif(), "a")), post(iamURL, first, generate)},
		},
		"number": {
			use: numbered, want: []asked{
				post(GKETokenURL, "", exchanged(gke(), "a")), post(strings.Replace(iamURL, googleSA, "123456789012345678901", 1), first, generate),
			},
		},
		"delegates, in another universe": {
			use:    impersonating("a@b.example", "c@d.example"),
			change: func(c *Config) { c.IAMURL = "https://iamcredentials.apis.example/" },
			want: []asked{
				post(GKETokenURL, "", exchanged(gke(), "a")),
				post(strings.Replace(iamURL, "googleapis.com", "apis.example", 1), first, map[string]any{
					"scope": scope, "lifetime": "3600s",
					"delegates": []any{"projects/-/serviceAccounts/a@b.example", "projects/-/serviceAccounts/c@d.example"},
				}),
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := googles()
				m := manager(s, test.change)
				got := acquire(t, m, test.use)
				compareRequests(t, s, test.want...)
				n := len(test.want)
				if got.grant.access.Reveal() != accessToken(n) || time.Until(got.Expires()) != time.Hour || got.Cached() {
					t.Errorf("%v, until %v, cached %v: not what was issued", got, got.Expires(), got.Cached())
				}
				if again := acquire(t, m, test.use); !again.Cached() || again.Key() != got.Key() || s.count() != n {
					t.Errorf("cached %v, key %q, %d requests: the token is not kept", again.Cached(), again.Key(), s.count())
				}
				m.Drop(got)
				if newer := acquire(t, m, test.use); newer.Cached() || newer.Key() == got.Key() || newer.grant.access.Reveal() != accessToken(2*n) {
					t.Errorf("cached %v, key %q: not a new login", newer.Cached(), newer.Key())
				}
			})
		})
	}
}

// TestKey: the one request of a login with a key, and what its assertion says.
func TestKey(t *testing.T) {
	t.Parallel()
	const legacy = "https://accounts.google.com/o/oauth2/token"
	for name, test := range map[string]struct {
		changes map[string]any
		address string
	}{
		"as Google makes them": {nil, DefaultTokenURI},
		"without an address":   {map[string]any{"token_uri": nil, "universe_domain": nil}, DefaultTokenURI},
		"operator's address":   {map[string]any{"token_uri": legacy}, legacy},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := googles()
			m := manager(s, func(c *Config) { c.TokenURIs = []string{legacy} })
			use := of(ServiceAccountKey, "a")
			use.Key = keyJSON(test.changes)
			got := acquire(t, m, use)
			if got.grant.access.Reveal() != accessToken(1) || got.Cached() || !acquire(t, m, use).Cached() || s.count() != 1 {
				t.Errorf("%v after %d requests: not what was issued, or not kept", got, s.count())
			}
			one := s.all()[0]
			assertion, _ := one.fields["assertion"].(string)
			compareRequests(t, s, asked{
				method: "POST", url: test.address, contentType: "application/x-www-form-urlencoded",
				fields: map[string]any{"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": assertion},
			})
			checkAssertion(t, assertion, test.address)
		})
	}
}

func checkAssertion(t *testing.T, assertion, address string) {
	t.Helper()
	signed, signature, _ := cutLast(assertion, ".")
	header, payload, _ := strings.Cut(signed, ".")
	digest := sha256.Sum256([]byte(signed))
	raw, err := base64.RawURLEncoding.DecodeString(signature)
	if err != nil || rsa.VerifyPKCS1v15(&signingKey().PublicKey, crypto.SHA256, digest[:], raw) != nil {
		t.Errorf("the assertion is not signed with the key")
	}
	var h struct{ Alg, Kid string }
	var c struct {
		Iss, Scope, Aud, Sub string
		Iat, Exp             int64
	}
	for part, into := range map[string]any{header: &h, payload: &c} {
		text, err := base64.RawURLEncoding.DecodeString(part)
		if err != nil || json.Unmarshal(text, into) != nil {
			t.Errorf("part %q is no JSON", part)
		}
	}
	if h.Alg != "RS256" || h.Kid != "k-1" || c.Iss != googleSA || c.Scope != cloudScope || c.Aud != address || c.Sub != "" {
		t.Errorf("header %+v, claims %+v", h, c)
	}
	if life := c.Exp - c.Iat; life <= 0 || life > 3600 || c.Iat > time.Now().Unix() {
		t.Errorf("the assertion is from %d until %d", c.Iat, c.Exp)
	}
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// TestEnvironment: nothing of what the process may be allowed is used for a pod, nor
// is a pod's token sent where a variable says, nor is anything written that is secret.
func TestEnvironment(t *testing.T) {
	for name, value := range map[string]string{
		"GOOGLE_APPLICATION_CREDENTIALS": ownKeyFile(t), "GOOGLE_OAUTH_ACCESS_TOKEN": "canary-other", "HOME": t.TempDir(),
		"CLOUDSDK_AUTH_ACCESS_TOKEN": "canary-other", "GOOGLE_CLOUD_UNIVERSE_DOMAIN": "evil.example",
		"GOOGLE_IMPERSONATE_SERVICE_ACCOUNT": "other@x.example", "GOOGLE_CLOUD_QUOTA_PROJECT": "other",
		"GAIA_TOKEN_EXCHANGE_ENDPOINT": "https://evil.example/", "GOOGLE_SDK_GO_LOGGING_LEVEL": "debug",
		"GCE_METADATA_HOST": metadataOf(t, func(w http.ResponseWriter, _ *http.Request) {
			t.Error("the metadata server was asked for a pod")
			w.WriteHeader(http.StatusNotFound)
		}),
	} {
		t.Setenv(name, value)
	}
	written := captureStderr(t)
	for _, use := range []Use{of(WorkloadIdentity, "a"), impersonating(), of(ServiceAccountKey, "a")} {
		s := googles()
		acquire(t, manager(s, nil), use)
		for _, one := range s.all() {
			if strings.Contains(one.url, "evil.example") || strings.Contains(one.authorization, "other") {
				t.Errorf("asked %s with %q", one.url, one.authorization)
			}
		}
		if use.Kind == WorkloadIdentity && s.all()[0].fields["subject_token"] != podToken("a").Reveal() {
			t.Errorf("another token was exchanged")
		}
	}
	if text := written(); text != "" {
		t.Errorf("written to stderr: %s", text)
	}
}

// ownKeyFile is a file with a key of the provider's own.
func ownKeyFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "adc.json")
	text := keyJSON(map[string]any{"client_email": "provider@shop-1.iam.gserviceaccount.com"}).Reveal()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// captureStderr returns what is written there until it is called.
func captureStderr(t *testing.T) func() string {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	old := os.Stderr
	os.Stderr = file
	t.Cleanup(func() { os.Stderr = old; _ = file.Close() })
	return func() string {
		os.Stderr = old
		text, err := os.ReadFile(file.Name())
		if err != nil {
			t.Error(err)
		}
		return string(bytes.TrimSpace(text))
	}
}

// TestWithoutRedirects: what a login is made with stays where it was sent.
func TestWithoutRedirects(t *testing.T) {
	t.Parallel()
	for _, kind := range []Kind{WorkloadIdentity, ServiceAccountKey} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			s := &transport{answer: always(scripted{status: http.StatusTemporaryRedirect, header: []string{"Location", "https://evil.example/"}})}
			_, err := manager(s, nil).Acquire(t.Context(), of(kind, "a"))
			if e := failure(t, err); e.Kind != Unavailable || e.Status != http.StatusTemporaryRedirect {
				t.Errorf("error %v", err)
			}
			if s.count() != 1 || strings.Contains(s.all()[0].url, "evil.example") {
				t.Errorf("requests %v", s.all())
			}
		})
	}
	s := &transport{answer: denies(scripted{status: http.StatusPermanentRedirect, header: []string{"Location", "https://evil.example/"}})}
	if _, err := manager(s, nil).Acquire(t.Context(), impersonating()); failure(t, err).Kind != Unavailable || s.count() != 2 {
		t.Errorf("error %v after %d requests", err, s.count())
	}
}

// TestPlaintext: a token is not sent without TLS, whatever the operator says.
func TestPlaintext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := googles()
		began := time.Now()
		_, err := manager(s, func(c *Config) { c.IAMURL = "http://iam.example" }).Acquire(t.Context(), impersonating())
		if e := failure(t, err); e.Kind != Unavailable || !strings.Contains(e.Message, "iam.example: the address has no TLS") || time.Since(began) != 0 {
			t.Errorf("error %v after %v", err, time.Since(began))
		}
		if s.count() != 1 {
			t.Errorf("requests %v", s.all())
		}
	})
}
