package vault

import (
	"github.com/postern-dev/postern/providers/sdk"
	"github.com/postern-dev/postern/providers/vault/internal/params"
	"github.com/postern-dev/postern/providers/vault/internal/session"
)

// authenticate says as whom the pod uses the store.
func authenticate(spec *params.Spec, req *sdk.Request) (session.Use, error) {
	token, err := req.PodToken(spec.Audience)
	if err != nil {
		return session.Use{}, err
	}
	use := session.Use{
		Identity: session.Identity{
			Endpoint: spec.Endpoint, AuthMount: spec.AuthMount, Role: spec.Role, Audience: spec.Audience,
			Namespace: req.Pod.Namespace, ServiceAccount: req.Pod.ServiceAccount.Name,
		},
		VolumeID: req.VolumeID, JWT: token.Token, Expiry: token.Expiry,
	}
	if spec.PerPod {
		use.Identity.PodUID = req.Pod.UID
	}
	return use, nil
}
