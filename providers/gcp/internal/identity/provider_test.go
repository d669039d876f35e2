package identity

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// metadataOf runs a metadata server, and returns its host.
func metadataOf(t *testing.T, answer http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Metadata-Flavor") != "Google" || r.Header.Get("Authorization") != "" {
			t.Errorf("headers %v", r.Header)
		}
		w.Header().Set("Metadata-Flavor", "Google")
		answer(w, r)
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// TestProviderOfMetadata: on Google's machines, the metadata server gives the
// provider's tokens.
func TestProviderOfMetadata(t *testing.T) {
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", "")
	t.Setenv("HOME", t.TempDir())
	asked := 0
	t.Setenv("GCE_METADATA_HOST", metadataOf(t, func(w http.ResponseWriter, r *http.Request) {
		asked++
		if r.URL.Path != "/computeMetadata/v1/instance/service-accounts/default/token" || r.URL.Query().Get("scopes") != cloudScope {
			t.Errorf("asked for %s", r.URL)
		}
		_, _ = fmt.Fprintf(w, `{"access_token": %q, "expires_in": 3000, "token_type": "Bearer"}`, accessToken(asked))
	}))
	s := googles()
	m := manager(s, nil)
	got := acquire(t, m, of(Provider, "a"))
	if left := time.Until(got.Expires()); got.grant.access.Reveal() != accessToken(1) || left > 50*time.Minute || left < 40*time.Minute {
		t.Errorf("%v lasts %v", got, left)
	}
	if again := acquire(t, m, of(Provider, "a")); !again.Cached() || asked != 1 || s.count() != 0 {
		t.Errorf("cached %v, %d requests, %d elsewhere", again.Cached(), asked, s.count())
	}
	other := of(Provider, "a")
	other.Subject.Namespace = "bank"
	if acquire(t, m, other).Cached() || asked != 2 {
		t.Errorf("what one namespace has logged in for is given to another")
	}
	m.Drop(got)
	if newer := acquire(t, m, of(Provider, "a")); newer.Cached() || newer.grant.access.Reveal() != accessToken(3) {
		t.Error("the package has kept the token")
	}
	noCanary(t, got, got.PerRPC())
}

// TestProviderOfFile: the credentials of the environment are the provider's, read
// with each login; Google's package writes nothing, whatever a variable says.
func TestProviderOfFile(t *testing.T) {
	path := ownKeyFile(t)
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", path)
	t.Setenv("GOOGLE_SDK_GO_LOGGING_LEVEL", "debug")
	written := captureStderr(t)
	s := googles()
	m := manager(s, nil)
	m.Drop(acquire(t, m, of(Provider, "a")))
	if err := os.WriteFile(path, []byte(`{"type": "authorized_user", "client_id": "c", "client_secret": "canary", "refresh_token": "canary"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	acquire(t, m, of(Provider, "a"))
	all := s.all()
	if len(all) != 2 || all[0].url != DefaultTokenURI || all[0].fields["assertion"] == nil || all[1].fields["grant_type"] != "refresh_token" {
		t.Errorf("requests %+v", all)
	}
	if text := written(); text != "" {
		t.Errorf("written to stderr: %s", text)
	}
}

// TestProviderRefusals: what it comes to if the provider has no identity.
func TestProviderRefusals(t *testing.T) {
	file := func(text string) string {
		path := filepath.Join(t.TempDir(), "adc.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, test := range map[string]struct {
		file     string
		metadata int // what the metadata server answers
		answer   scripted
		want     ErrorKind
		message  string
		fix      string // what it begins with
	}{
		"no file":            {file: "/nonexistent/adc.json", want: Invalid, message: "no such file", fix: ownFix},
		"no JSON":            {file: file("canary"), want: Invalid, message: "invalid character", fix: ownFix},
		"unknown type":       {file: file(`{"type": "magic", "x": "canary"}`), want: Invalid, message: "magic", fix: ownFix},
		"no service account": {metadata: http.StatusNotFound, want: Denied, message: "metadata server: the node has no service account", fix: ownFix},
		"forbidden":          {metadata: http.StatusForbidden, want: Denied, message: "metadata server: Is [redacted] yours?", fix: ownFix},
		"key is refused":     {file: ownKeyFile(t), answer: oauthError(400, "invalid_grant", "Invalid JWT Signature."), want: Denied, message: "Invalid JWT Signature.", fix: "Check the provider's own credentials"},
		"unreachable":        {file: ownKeyFile(t), answer: scripted{err: os.ErrDeadlineExceeded}, want: Unavailable, message: "oauth2.googleapis.com: no answer in time"},
		"token is not there": {
			file: file(`{"type": "external_account", "audience": "//iam.googleapis.com/x", "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
				"token_url": "https://sts.googleapis.com/v1/token", "credential_source": {"file": "/nonexistent/token"}}`),
			want: Unavailable, message: "/nonexistent/token", fix: ownFix,
		},
		"garbage": {file: ownKeyFile(t), answer: scripted{status: 200, body: "canary"}, want: Unavailable, message: "what oauth2.googleapis.com answers"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", test.file)
			t.Setenv("HOME", t.TempDir())
			t.Setenv("GCE_METADATA_HOST", metadataOf(t, func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(test.metadata)
				_, _ = fmt.Fprint(w, "Is ya29.canary yours?")
			}))
			_, err := manager(&transport{answer: always(test.answer)}, nil).Acquire(t.Context(), of(Provider, "a"))
			e := failure(t, err)
			t.Logf("%v. %s", e, e.Fix)
			if e.Kind != test.want || !strings.Contains(e.Message, test.message) || !strings.HasPrefix(e.Fix, test.fix) || test.fix == "" && e.Fix != "" || e.Operation != OperationProvider {
				t.Errorf("%v: %v; fix %q", e.Kind, err, e.Fix)
			}
			noCanary(t, err)
		})
	}
}

// TestMetadataRefusals: what passes is told from what does not. Google's client asks
// again for a while where it may pass.
func TestMetadataRefusals(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]ErrorKind{400: Denied, 403: Denied, 404: Denied, 429: Throttled, 500: Unavailable, 503: Unavailable} {
		e := manager(googles(), nil).newExchange(t.Context(), keyOf(of(Provider, "a")), of(Provider, "a").proof())
		if got := e.ofMetadata(status, "no"); got.Kind != want || got.Status != status || (got.Fix != "") != (want == Denied) {
			t.Errorf("status %d: %v, fix %q", status, got.Kind, got.Fix)
		}
	}
}
