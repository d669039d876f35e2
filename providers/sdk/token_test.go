package sdk

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestRequest_PodToken(t *testing.T) {
	t.Parallel()
	jwt := func(payload string) Token {
		encoded := base64.RawURLEncoding.EncodeToString([]byte(payload))
		return Token{Audience: "store", Token: NewSecretString("canary-header." + encoded + ".canary-signature")}
	}
	later := time.Now().Add(time.Hour).Truncate(time.Second)
	opaque := Token{Audience: "store", Token: NewSecretString("canary-opaque"), Expiry: later}
	expired := opaque
	expired.Expiry = time.Now().Add(-time.Second)
	for name, tt := range map[string]struct {
		tokens Tokens
		reason Reason
		want   string
	}{
		"none":            {nil, ReasonTokenMissing, "tokenRequests"},
		"other audience":  {Tokens{{Audience: "other", Token: opaque.Token}}, ReasonTokenMissing, `{audience: store}`},
		"empty":           {Tokens{{Audience: "store"}}, ReasonTokenMissing, `"store"`},
		"opaque":          {Tokens{opaque}, "", ""},
		"opaque, expired": {Tokens{expired}, ReasonTokenInvalid, "expired at"},
		"the pod's":       {Tokens{jwt(`{"sub":"system:serviceaccount:ns:sa","exp":99999999999,"kubernetes.io":{"pod":{"uid":"uid"}}}`)}, "", ""},
		"no pod in it":    {Tokens{jwt(`{"sub":"system:serviceaccount:ns:sa"}`)}, "", ""},
		"other account":   {Tokens{jwt(`{"sub":"system:serviceaccount:ns:other"}`)}, ReasonTokenInvalid, "not for the pod's"},
		"other namespace": {Tokens{jwt(`{"sub":"system:serviceaccount:other:sa"}`)}, ReasonTokenInvalid, "not for the pod's"},
		"no subject":      {Tokens{jwt(`{}`)}, ReasonTokenInvalid, "not for the pod's"},
		"other pod":       {Tokens{jwt(`{"sub":"system:serviceaccount:ns:sa","kubernetes.io":{"pod":{"uid":"other"}}}`)}, ReasonTokenInvalid, "another pod"},
		"expired claim":   {Tokens{jwt(`{"sub":"system:serviceaccount:ns:sa","exp":1000}`)}, ReasonTokenInvalid, "expired at 1970-01-01T00:16:40Z"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := completeRequest()
			r.Tokens = tt.tokens
			token, err := r.PodToken("store")
			if tt.reason == "" {
				if err != nil || token.Token != tt.tokens[0].Token {
					t.Errorf("PodToken() = %v, %v; want the token", token, err)
				}
				return
			}
			e, ok := errors.AsType[*Error](err)
			if !ok || e.Reason != tt.reason || !strings.Contains(e.Message, tt.want) || strings.Contains(e.Message, "canary") {
				t.Errorf("PodToken() = %v, want %s with %q", err, tt.reason, tt.want)
			}
			if !token.Token.IsZero() {
				t.Error("a token in spite of the error")
			}
		})
	}
	r := completeRequest()
	r.Tokens = Tokens{jwt(`{"sub":"system:serviceaccount:ns:sa","exp":99999999999}`)}
	if token, err := r.PodToken("store"); err != nil || token.Expiry.Unix() != 99999999999 {
		t.Errorf("PodToken() = %v, %v; want the expiry that the token says", token.Expiry, err)
	}
	r.Tokens = Tokens{opaque}
	if token, err := r.PodToken("store"); err != nil || !token.Expiry.Equal(later) {
		t.Errorf("PodToken() = %v, %v; want the expiry that kubelet says", token.Expiry, err)
	}
}
