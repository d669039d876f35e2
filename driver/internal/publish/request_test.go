package publish_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-dev/postern/driver/internal/publish"
	"github.com/postern-dev/postern/internal/rpc"
)

func TestParseContext(t *testing.T) {
	t.Parallel()
	r := request(t, func(volumeContext, secrets map[string]string) {
		volumeContext["providerName"] = "vault"
		volumeContext["region"] = "eu"
		secrets["clientid"] = "id"
	})
	if diff := cmp.Diff(publish.Pod{Namespace: "shop", Name: "web", UID: "uid-1", ServiceAccount: "web-sa"}, r.Pod); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]string{"region": "eu"}, r.Attributes); diff != "" {
		t.Error(diff)
	}
	if len(r.Secrets) != 1 || r.Secrets["clientid"].Reveal() != "id" {
		t.Errorf("secrets: %v", r.Secrets)
	}
	if got := tokensOf(t, r); len(got) != 1 || got[0].Audience != "vault" || !got[0].Expiry.Equal(time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("tokens: %v", got)
	}
}

func tokensOf(t *testing.T, r publish.Request) []publish.Token {
	t.Helper()
	tokens, err := r.Tokens()
	if err != nil {
		t.Fatal(err)
	}
	return tokens
}

// With serviceAccountTokenInSecrets kubelet sends tokens among the secrets.
func TestParseContext_TokensInSecrets(t *testing.T) {
	t.Parallel()
	const tokens = "csi.storage.k8s.io/serviceAccount.tokens"
	r := request(t, func(volumeContext, secrets map[string]string) {
		secrets[tokens] = `{"b":{"token":"2","expirationTimestamp":"2030-01-01T00:00:00Z"},"a":{"token":"1","expirationTimestamp":"2030-01-01T00:00:00Z"}}`
		delete(volumeContext, tokens)
	})
	if got := tokensOf(t, r); len(got) != 2 || got[0].Audience != "a" || got[1].Token.Reveal() != "2" {
		t.Errorf("tokens: %v", got)
	}
	if len(r.Secrets) != 0 {
		t.Errorf("tokens are passed on as secrets: %v", r.Secrets)
	}
}

// During a change of the CSIDriver object both may be there for a moment.
func TestParseContext_TokensInSecretsWin(t *testing.T) {
	t.Parallel()
	const tokens = "csi.storage.k8s.io/serviceAccount.tokens"
	r := request(t, func(_, secrets map[string]string) {
		secrets["clientid"] = "id"
		secrets[tokens] = `{"":{"token":"new","expirationTimestamp":"2030-01-01T00:00:00Z"}}`
	})
	if got := tokensOf(t, r); len(got) != 1 || got[0].Audience != "" || got[0].Token.Reveal() != "new" {
		t.Errorf("tokens: %v, want the one of the secrets, for the API server's audience", got)
	}
	if len(r.Secrets) != 1 || r.Secrets["clientid"].Reveal() != "id" {
		t.Errorf("secrets: %v, want what nodePublishSecretRef names and nothing else", r.Secrets)
	}
	if len(r.Attributes) != 0 {
		t.Errorf("attributes: %v", r.Attributes)
	}
}

func TestRequest_BadTokens(t *testing.T) {
	t.Parallel()
	const (
		tokens  = "csi.storage.k8s.io/serviceAccount.tokens"
		notJSON = tokens + " is not the JSON object that kubelet sends"
	)
	for encoded, want := range map[string]string{
		canary:                       notJSON,
		`"` + canary + `"`:           notJSON,
		`["` + canary + `"]`:         notJSON,
		`{"vault":"` + canary + `"}`: notJSON,
		`{"vault":{"token":"` + canary + `","expirationTimestamp":"` + canary + `"}}`: notJSON,
		`{"vault":{"token":"` + canary + `"}`:                                         notJSON,
		`{"vault":null}`:                                                              tokens + ` has no token for audience "vault"`,
		`{"vault":{"token":""}}`:                                                      tokens + ` has no token for audience "vault"`,
		`null`:                                                                        "",
		`{}`:                                                                          "",
	} {
		for _, where := range []string{"secrets", "context"} {
			volumeContext := map[string]string{
				"secretProviderClass": "database", "csi.storage.k8s.io/pod.name": "web",
				"csi.storage.k8s.io/pod.namespace": "shop", "csi.storage.k8s.io/pod.uid": "uid-1",
			}
			secrets := map[string]string{}
			map[string]map[string]string{"secrets": secrets, "context": volumeContext}[where][tokens] = encoded
			var r publish.Request
			got := ""
			if err := r.ParseContext(volumeContext, secrets); err != nil {
				t.Fatal(err)
			}
			parsed, err := r.Tokens()
			if err != nil {
				got = err.Error()
			}
			if got != want || len(parsed) != 0 || err != nil && rpc.FromError(err).Reason != rpc.ReasonTokenInvalid {
				t.Errorf("%s in the %s: error %q, want %q; tokens %v", encoded, where, got, want, parsed)
			}
		}
	}
}

func TestParseContext_Failures(t *testing.T) {
	t.Parallel()
	valid := map[string]string{
		"secretProviderClass":              "database",
		"csi.storage.k8s.io/pod.name":      "web",
		"csi.storage.k8s.io/pod.namespace": "shop",
		"csi.storage.k8s.io/pod.uid":       "uid-1",
	}
	tests := []struct{ name, key, value, want string }{
		{"no class", "secretProviderClass", "", "volumeAttributes has no secretProviderClass: name the SecretProviderClass to mount"},
		{"no pod", "csi.storage.k8s.io/pod.uid", "", "the volume context does not name the pod: the CSIDriver object needs podInfoOnMount: true"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			changed := map[string]string{test.key: test.value}
			for key, value := range valid {
				if key != test.key {
					changed[key] = value
				}
			}
			var r publish.Request
			if err := r.ParseContext(changed, nil); err == nil || err.Error() != test.want {
				t.Errorf("error %v, want %s", err, test.want)
			}
		})
	}
}

func TestRequestNeverPrintsItsSecrets(t *testing.T) {
	t.Parallel()
	r := request(t, func(_, secrets map[string]string) { secrets["password"] = canary })
	encoded, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	tokens := tokensOf(t, r)
	var logged strings.Builder
	slog.New(slog.NewJSONHandler(&logged, nil)).Info("request", "request", r, "tokens", tokens)
	slog.New(slog.NewTextHandler(&logged, nil)).Info("request", "request", r, "tokens", tokens)
	for _, printed := range []string{
		fmt.Sprintf("%v", r), fmt.Sprintf("%+v", r), fmt.Sprintf("%#v", r), fmt.Sprint([]any{r}), fmt.Sprintf("%s %q", tokens, r.Secrets),
		fmt.Sprintf("%x %x", tokens, r.EncodedTokens), string(encoded), logged.String(),
	} {
		if strings.Contains(printed, canary) || strings.Contains(printed, fmt.Sprintf("%x", canary)) {
			t.Errorf("shows a secret: %s", printed)
		}
	}
}
