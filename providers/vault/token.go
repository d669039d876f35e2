package vault

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"

	"github.com/postern-dev/postern/providers/sdk"
	"github.com/postern-dev/postern/providers/vault/internal/params"
	"github.com/postern-dev/postern/providers/vault/internal/session"
)

// claims are those of a service account token that matter here.
type claims struct {
	Subject    string  `json:"sub"`
	Expiry     float64 `json:"exp"`
	Kubernetes struct {
		Pod struct {
			UID string `json:"uid"`
		} `json:"pod"`
	} `json:"kubernetes.io"`
}

// authenticate says as whom the pod uses the store, after it has checked that
// the pod's own token is there, has not expired and is the pod's: a session that
// exists may serve no pod that could not have made it.
//
// The signature is not verified here. Tokens come from kubelet, through the
// driver, by sockets that only these may use; the store verifies it at login.
func authenticate(spec *params.Spec, req *sdk.Request) (session.Use, error) {
	token, ok := req.Tokens.For(spec.Audience)
	if !ok || token.Token.IsZero() {
		err := sdk.TokenMissing(spec.Audience)
		err.Message += "; with the Helm chart: add {audience: " + spec.Audience + "} to tokenRequests of the driver's values. " +
			"The provider itself cannot request tokens"
		return session.Use{}, err
	}
	account := req.Pod.ServiceAccount.Name
	use := session.Use{
		Identity: session.Identity{
			Endpoint: spec.Endpoint, AuthMount: spec.AuthMount, Role: spec.Role, Audience: spec.Audience,
			Namespace: req.Pod.Namespace, ServiceAccount: account,
		},
		VolumeID: req.VolumeID, JWT: token.Token, Expiry: token.Expiry,
	}
	if spec.PerPod {
		use.Identity.PodUID = req.Pod.UID
	}
	if c, ok := claimsOf(token.Token.Reveal()); ok {
		if want := "system:serviceaccount:" + req.Pod.Namespace + ":" + account; c.Subject != want {
			return use, sdk.TokenInvalid(spec.Audience, "it is for %q and not for the pod's %q", c.Subject, want)
		}
		if uid := c.Kubernetes.Pod.UID; uid != "" && req.Pod.UID != "" && uid != req.Pod.UID {
			return use, sdk.TokenInvalid(spec.Audience, "it is bound to another pod, with uid %q", uid)
		}
		if c.Expiry > 0 {
			use.Expiry = time.Unix(int64(c.Expiry), 0)
		}
	}
	if !use.Expiry.IsZero() && !time.Now().Before(use.Expiry) {
		return use, sdk.TokenInvalid(spec.Audience, "it expired at %s: kubelet sends another with its next call",
			use.Expiry.UTC().Format(time.RFC3339))
	}
	return use, nil
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
