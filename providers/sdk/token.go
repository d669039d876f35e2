package sdk

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"
)

// PodToken returns the pod's token for an audience, after it has checked that it
// is there, has not expired and is the pod's own: what a provider keeps of an
// earlier login may serve no pod that could not have made it. Where the token
// says when it expires, so does the result. The error is an [*Error] with
// ReasonTokenMissing or ReasonTokenInvalid.
//
// The signature is not verified here. Tokens come from kubelet, through the
// driver, by sockets that only these may use; the store verifies it at login.
// A token that is no JWT is the store's to judge alone.
func (r *Request) PodToken(audience string) (Token, error) {
	token, ok := r.Tokens.For(audience)
	if !ok || token.Token.IsZero() {
		return Token{}, TokenMissing(audience)
	}
	if c, ok := claimsOf(token.Token.Reveal()); ok {
		account := "system:serviceaccount:" + r.Pod.Namespace + ":" + r.Pod.ServiceAccount.Name
		if c.Subject != account {
			return Token{}, TokenInvalid(audience, "it is for %q and not for the pod's %q", c.Subject, account)
		}
		if uid := c.Kubernetes.Pod.UID; uid != "" && r.Pod.UID != "" && uid != r.Pod.UID {
			return Token{}, TokenInvalid(audience, "it is bound to another pod, with uid %q", uid)
		}
		if c.Expiry > 0 {
			token.Expiry = time.Unix(int64(c.Expiry), 0)
		}
	}
	if !token.Expiry.IsZero() && !time.Now().Before(token.Expiry) {
		return Token{}, TokenInvalid(audience, "it expired at %s: kubelet sends another with its next call",
			token.Expiry.UTC().Format(time.RFC3339))
	}
	return token, nil
}

// claims are those of a service account token that matter here:
// https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#token-structure
type claims struct {
	Subject    string  `json:"sub"`
	Expiry     float64 `json:"exp"`
	Kubernetes struct {
		Pod struct {
			UID string `json:"uid"`
		} `json:"pod"`
	} `json:"kubernetes.io"`
}

// claimsOf decodes the payload of a JWT; ok is false if the token is not one.
func claimsOf(token string) (c claims, ok bool) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return c, false
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil {
		return c, false
	}
	return c, json.Unmarshal(payload, &c) == nil
}
