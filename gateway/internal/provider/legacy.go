package provider

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"

	"github.com/postern-dev/postern/internal/rpc"
	v1alpha1 "github.com/postern-dev/postern/proto/gen/go/compat/v1alpha1"
	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
	providerv1 "github.com/postern-dev/postern/proto/gen/go/postern/provider/v1"
	secretv1 "github.com/postern-dev/postern/proto/gen/go/postern/secret/v1"
)

// The keys of MountRequest.attributes that are not the SPC's parameters:
// kubelet's volume context for inline volumes, and the attribute that names
// the SPC.
const (
	keyPodName        = kubeletPrefix + "pod.name"
	keyPodNamespace   = kubeletPrefix + "pod.namespace"
	keyPodUID         = kubeletPrefix + "pod.uid"
	keyServiceAccount = kubeletPrefix + "serviceAccount.name"
	keyEphemeral      = kubeletPrefix + "ephemeral"
	keyTokens         = kubeletPrefix + "serviceAccount.tokens"
	keySPC            = "secretProviderClass"
)

// legacyVersion is the version of the upstream protocol.
const legacyVersion = "v1alpha1"

// defaultMode is the only permission that the upstream driver ever sends: 0644.
const defaultMode = 0o644

// Legacy speaks v1alpha1.CSIDriverProvider as the upstream driver does, so
// that a provider made for that cannot tell the difference.
//
// Invariants:
//  1. A parameter cannot pose as one of kubelet's keys: those of the SPC are
//     dropped.
//  2. current_object_version is always empty, as it is since version 1.6 of
//     the upstream driver; a provider that is given it may answer with what it
//     reads from the mounted volume, which a sandboxed one cannot.
//  3. No call is ever made twice: Mount may issue credentials, and upstream's
//     retry on UNAVAILABLE then issues them again.
type Legacy struct {
	client v1alpha1.CSIDriverProviderClient
}

var _ Provider = (*Legacy)(nil)

// NewLegacy returns the adapter for a connection, which stays the caller's.
func NewLegacy(conn grpc.ClientConnInterface) *Legacy {
	return &Legacy{client: v1alpha1.NewCSIDriverProviderClient(conn)}
}

// Describe implements [Provider]. The protocol tells a version, and no more.
func (l *Legacy) Describe(ctx context.Context) (*providerv1.DescribeResponse, error) {
	var o outcome
	version, err := l.client.Version(ctx, &v1alpha1.VersionRequest{Version: legacyVersion}, o.options()...)
	if err != nil {
		return nil, o.failure(ctx, err)
	}
	return &providerv1.DescribeResponse{Version: version.GetRuntimeVersion()}, nil
}

// Fetch implements [Provider].
func (l *Legacy) Fetch(ctx context.Context, req *gatewayv1.FetchRequest) (*providerv1.FetchResponse, error) {
	mount, err := mountRequest(req)
	if err != nil {
		return nil, err
	}
	var o outcome
	answer, err := l.client.Mount(ctx, mount, o.options()...)
	if err != nil {
		return nil, o.failure(ctx, err)
	}
	return fetchResponse(answer)
}

// Release implements [Provider]. The protocol does not have it.
func (*Legacy) Release(context.Context, string) error { return nil }

func mountRequest(req *gatewayv1.FetchRequest) (*v1alpha1.MountRequest, error) {
	if req.GetTargetPath() == "" {
		return nil, &rpc.Error{
			Reason:          rpc.ReasonInvalidParameters,
			Message:         "target_path is empty: providers of the upstream protocol refuse that",
			FieldViolations: []rpc.FieldViolation{{Field: "target_path", Description: "is required by providers of the upstream protocol"}},
		}
	}
	attributes, err := attributesOf(req)
	if err != nil {
		return nil, err
	}
	secrets := "null"
	if data := Secrets(req); len(data) > 0 {
		encoded, err := json.Marshal(data)
		if err != nil {
			return nil, fmt.Errorf("encode secrets: %w", err)
		}
		secrets = string(encoded)
	}
	mode := req.GetDefaultFileMode()
	if mode == 0 {
		mode = defaultMode
	}
	return &v1alpha1.MountRequest{
		Attributes: attributes,
		Secrets:    secrets,
		TargetPath: req.GetTargetPath(),
		Permission: strconv.FormatUint(uint64(mode), 10),
	}, nil
}

// attributesOf is the JSON object that upstream makes from the SPC's
// parameters and kubelet's volume context.
func attributesOf(req *gatewayv1.FetchRequest) (string, error) {
	pod := req.GetPod()
	attributes := make(map[string]string, len(req.GetParameters())+7)
	maps.Copy(attributes, req.GetParameters())
	maps.DeleteFunc(attributes, func(key, _ string) bool { return strings.HasPrefix(key, kubeletPrefix) })
	attributes[keyPodName] = pod.GetName()
	attributes[keyPodNamespace] = pod.GetNamespace()
	attributes[keyPodUID] = pod.GetUid()
	attributes[keyServiceAccount] = pod.GetServiceAccount().GetName()
	attributes[keyEphemeral] = "true"
	attributes[keySPC] = req.GetSecretProviderClass()
	if tokens := req.GetTokens(); len(tokens) > 0 {
		encoded, err := tokensOf(tokens)
		if err != nil {
			return "", err
		}
		attributes[keyTokens] = encoded
	}
	encoded, err := json.Marshal(attributes)
	if err != nil {
		return "", fmt.Errorf("encode attributes: %w", err)
	}
	return string(encoded), nil
}

// tokensOf encodes tokens as kubelet does.
func tokensOf(tokens []*secretv1.Token) (string, error) {
	type token struct {
		Token      string    `json:"token"`
		Expiration time.Time `json:"expirationTimestamp"`
	}
	byAudience := make(map[string]token, len(tokens))
	for _, t := range tokens {
		byAudience[t.GetAudience()] = token{Token: t.GetToken(), Expiration: t.GetExpiry().AsTime()}
	}
	encoded, err := json.Marshal(byAudience)
	if err != nil {
		return "", fmt.Errorf("encode tokens: %w", err)
	}
	return string(encoded), nil
}

// fetchResponse reads an answer as upstream does: an error code is a failure,
// no object is one too, and of two files or objects of one name the last wins.
func fetchResponse(answer *v1alpha1.MountResponse) (*providerv1.FetchResponse, error) {
	switch code := answer.GetError().GetCode(); {
	case code != "":
		return nil, &rpc.Error{
			Reason:  rpc.ReasonInternal,
			Message: fmt.Sprintf("the provider failed with error code %.100q: see its log", code),
		}
	case len(answer.GetObjectVersion()) == 0:
		return nil, invalidResponse("the answer has no object versions: check that the SecretProviderClass lists objects, and the provider's log")
	case len(answer.GetFiles()) == 0:
		return nil, invalidResponse("the answer has no files, so the provider wrote them into the volume itself, which is not supported: " +
			"turn on driver-writes-secrets in the provider (for AWS: --driver-writes-secrets=true)")
	}
	resp := &providerv1.FetchResponse{}
	files := make(map[string]int, len(answer.GetFiles()))
	for _, f := range answer.GetFiles() {
		// A negative mode becomes one that is far too large, and is refused as such.
		file := &secretv1.File{Path: f.GetPath(), Mode: uint32(f.GetMode()), Contents: f.GetContents()}
		if i, ok := files[file.GetPath()]; ok {
			resp.Files[i] = file
			continue
		}
		files[file.GetPath()] = len(resp.Files)
		resp.Files = append(resp.Files, file)
	}
	objects := make(map[string]int, len(answer.GetObjectVersion()))
	for _, o := range answer.GetObjectVersion() {
		object := &secretv1.ObjectVersion{Id: o.GetId(), Version: o.GetVersion()}
		if i, ok := objects[object.GetId()]; ok {
			resp.Objects[i] = object
			continue
		}
		objects[object.GetId()] = len(resp.Objects)
		resp.Objects = append(resp.Objects, object)
	}
	return resp, nil
}

func invalidResponse(message string) error {
	return &rpc.Error{Reason: rpc.ReasonInvalidResponse, Message: message}
}
