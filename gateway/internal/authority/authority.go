// Package authority checks whose the tokens of a fetch are. The gateway serves
// one answer to many pods, and each of them has to bring a token that could have
// fetched it.
package authority

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/postern-dev/postern/internal/rpc"
	secretv1 "github.com/postern-dev/postern/proto/gen/go/postern/secret/v1"
)

// Check returns nil if each token is the pod's own and in force: by its claims
// aud, sub and exp, and by the pod's uid, which Kubernetes puts into the tokens
// that kubelet requests for pods. The error is an [*rpc.Error] with
// TOKEN_INVALID.
//
// The signature is not looked at: only the driver may call the gateway, it has
// the tokens from kubelet, and the store checks them when it is asked.
// https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#token-structure
func Check(tokens []*secretv1.Token, pod *secretv1.Pod, now time.Time) error {
	for _, token := range tokens {
		claims, err := claimsOf(token.GetToken())
		if err != nil {
			return invalid(token, fmt.Sprintf("is not a service account token: %v", err))
		}
		if problem := claims.problem(token.GetAudience(), pod, now); problem != "" {
			return invalid(token, problem)
		}
	}
	return nil
}

func invalid(token *secretv1.Token, problem string) error {
	return &rpc.Error{
		Reason:   rpc.ReasonTokenInvalid,
		Message:  fmt.Sprintf("the pod's token for audience %q %s", token.GetAudience(), problem),
		Metadata: map[string]string{"audience": token.GetAudience()},
	}
}

// claims are those of a service account token that are looked at.
type claims struct {
	Subject  string    `json:"sub"`
	Audience audiences `json:"aud"`
	// Expiry is in seconds since the epoch, 0 if there is none.
	Expiry     float64 `json:"exp"`
	Kubernetes struct {
		Pod struct {
			UID string `json:"uid"`
		} `json:"pod"`
	} `json:"kubernetes.io"`
}

// audiences are one text or a list of them (RFC 7519, section 4.1.3).
type audiences []string

// UnmarshalJSON implements json.Unmarshaler.
func (a *audiences) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '"' {
		var one string
		if err := json.Unmarshal(data, &one); err != nil {
			return err
		}
		*a = audiences{one}
		return nil
	}
	return json.Unmarshal(data, (*[]string)(a))
}

// claimsOf reads a JWT's payload. Its errors say nothing of what is in there.
func claimsOf(token string) (*claims, error) {
	_, rest, first := strings.Cut(token, ".")
	payload, signature, second := strings.Cut(rest, ".")
	if !first || !second || strings.Contains(signature, ".") {
		return nil, errors.New("it is not made of three parts")
	}
	data, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil {
		return nil, errors.New("its second part is not base64url")
	}
	c := &claims{}
	if err := json.Unmarshal(data, c); err != nil {
		return nil, errors.New("its second part does not hold the claims of one")
	}
	return c, nil
}

// problem says why a token cannot speak for a pod, or nothing.
func (c *claims) problem(audience string, pod *secretv1.Pod, now time.Time) string {
	switch {
	case !slices.Contains(c.Audience, audience):
		return "is for another audience"
	case !isSubject(c.Subject, pod):
		return fmt.Sprintf("is not of the pod's service account %s/%s", pod.GetNamespace(), pod.GetServiceAccount().GetName())
	case c.Kubernetes.Pod.UID != pod.GetUid():
		return "is not of this pod: it is bound to another one, or to none"
	case c.Expiry == 0:
		return "does not say when it expires"
	case c.Expiry <= float64(now.Unix()):
		return "has expired: kubelet sends a new one with its next republish; if it does not, compare the node's clock with the API server's"
	default:
		return ""
	}
}

// isSubject reports whether a token's subject is a pod's service account.
func isSubject(subject string, pod *secretv1.Pod) bool {
	account, ok := strings.CutPrefix(subject, "system:serviceaccount:")
	if !ok {
		return false
	}
	namespace, name, ok := strings.Cut(account, ":")
	return ok && namespace == pod.GetNamespace() && name == pod.GetServiceAccount().GetName()
}
