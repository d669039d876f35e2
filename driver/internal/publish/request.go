package publish

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/postern-dev/postern/internal/redact"
	"github.com/postern-dev/postern/internal/rpc"
)

// Keys of the volume context. Kubelet sets those below csi.storage.k8s.io when
// the CSIDriver object says podInfoOnMount.
// https://kubernetes-csi.github.io/docs/pod-info.html
const (
	attributePodName        = "csi.storage.k8s.io/pod.name"
	attributePodNamespace   = "csi.storage.k8s.io/pod.namespace"
	attributePodUID         = "csi.storage.k8s.io/pod.uid"
	attributeServiceAccount = "csi.storage.k8s.io/serviceAccount.name"
	attributeTokens         = "csi.storage.k8s.io/serviceAccount.tokens" //nolint:gosec // the name of an attribute, not a credential
	attributeKubeletPrefix  = "csi.storage.k8s.io/"

	attributeSecretProviderClass = "secretProviderClass"
	// attributeProviderName appears in old manifests and means nothing.
	attributeProviderName = "providerName"
)

// Request asks for one pod's volume.
type Request struct {
	// VolumeID identifies the volume on this node. No path is made of it.
	VolumeID string
	// Target is the absolute path at which the pod expects the volume.
	Target string
	// Group, if set, owns the files (the pod's fsGroup).
	Group *int64
	// SELinuxContext, if set, labels the volume.
	SELinuxContext string

	Pod                 Pod
	SecretProviderClass string
	// Attributes are the pod's other volumeAttributes.
	Attributes map[string]string
	// EncodedTokens are what kubelet minted for this pod, by
	// CSIDriver.tokenRequests. Most calls need none of them, so that they are
	// parsed where they are: see Tokens.
	EncodedTokens redact.String
	// Secrets is the data of the volume's nodePublishSecretRef.
	Secrets map[string]redact.String
}

// Pod is the pod that the volume belongs to.
type Pod struct {
	Namespace, Name, UID, ServiceAccount string
}

// Token is a service account token of the pod for one audience.
type Token struct {
	Audience string
	Token    redact.String
	Expiry   time.Time
}

// ParseContext fills what kubelet says of the pod: from the volume context, and
// the tokens from secrets where CSIDriver.serviceAccountTokenInSecrets is set,
// under the same key, which no Kubernetes Secret can have. Tokens there win:
// they are kubelet's for certain.
func (r *Request) ParseContext(context, secrets map[string]string) error {
	r.Pod = Pod{
		Namespace:      context[attributePodNamespace],
		Name:           context[attributePodName],
		UID:            context[attributePodUID],
		ServiceAccount: context[attributeServiceAccount],
	}
	r.SecretProviderClass = context[attributeSecretProviderClass]
	switch {
	case r.SecretProviderClass == "":
		return errors.New("volumeAttributes has no secretProviderClass: name the SecretProviderClass to mount")
	case r.Pod.Namespace == "" || r.Pod.Name == "" || r.Pod.UID == "":
		return errors.New("the volume context does not name the pod: the CSIDriver object needs podInfoOnMount: true")
	}
	r.Attributes = otherAttributes(context)
	r.Secrets = make(map[string]redact.String, len(secrets))
	for key, value := range secrets {
		if key != attributeTokens {
			r.Secrets[key] = redact.NewString(value)
		}
	}
	encoded := secrets[attributeTokens]
	if encoded == "" {
		encoded = context[attributeTokens]
	}
	r.EncodedTokens = redact.NewString(encoded)
	return nil
}

// Tokens parses what kubelet minted for this pod. Its error is an [*rpc.Error].
func (r *Request) Tokens() ([]Token, error) {
	tokens, err := parseTokens(r.EncodedTokens.Reveal())
	if err != nil {
		return nil, &rpc.Error{Reason: rpc.ReasonTokenInvalid, Code: codes.InvalidArgument, Message: err.Error()}
	}
	return tokens, nil
}

func otherAttributes(context map[string]string) map[string]string {
	others := make(map[string]string)
	for key, value := range context {
		switch {
		case strings.HasPrefix(key, attributeKubeletPrefix), key == attributeSecretProviderClass, key == attributeProviderName:
		default:
			others[key] = value
		}
	}
	return others
}

// parseTokens reads kubelet's JSON map from audience to token.
// https://kubernetes-csi.github.io/docs/token-requests.html
func parseTokens(encoded string) ([]Token, error) {
	if encoded == "" {
		return nil, nil
	}
	var byAudience map[string]struct {
		Token      string    `json:"token"`
		Expiration time.Time `json:"expirationTimestamp"`
	}
	if json.Unmarshal([]byte(encoded), &byAudience) != nil {
		// The decoder's error may quote what it read.
		return nil, fmt.Errorf("%s is not the JSON object that kubelet sends", attributeTokens)
	}
	tokens := make([]Token, 0, len(byAudience))
	for _, audience := range slices.Sorted(maps.Keys(byAudience)) {
		t := byAudience[audience]
		if t.Token == "" {
			return nil, fmt.Errorf("%s has no token for audience %q", attributeTokens, audience)
		}
		tokens = append(tokens, Token{Audience: audience, Token: redact.NewString(t.Token), Expiry: t.Expiration})
	}
	return tokens, nil
}
