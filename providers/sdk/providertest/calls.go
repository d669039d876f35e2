package providertest

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	v1alpha1 "github.com/postern-dev/postern/proto/gen/go/compat/v1alpha1"
	providerv1 "github.com/postern-dev/postern/proto/gen/go/postern/provider/v1"
	secretv1 "github.com/postern-dev/postern/proto/gen/go/postern/secret/v1"
	"github.com/postern-dev/postern/providers/sdk"
)

// Canaries shorter than these would be found by chance.
const (
	minTokenCanary   = 6
	minContentCanary = 8
)

// answer is what both protocols say of a fetch.
type answer struct {
	Contents map[string]string
	Modes    map[string]fs.FileMode
	Versions map[string]string
}

// request makes a case's request complete, and notes what of it must not show
// up anywhere.
func (s *suite) request(c Case) *sdk.Request {
	req := c.Request()
	fill := func(field *string, value string) {
		if *field == "" {
			*field = value
		}
	}
	fill(&req.VolumeID, "csi-conformance-volume")
	fill(&req.Pod.Namespace, "conformance-namespace")
	fill(&req.Pod.Name, "conformance-pod")
	fill(&req.Pod.UID, "c0f0a3ce-0000-4000-8000-000000000001")
	fill(&req.Pod.ServiceAccount.Name, "conformance-account")
	fill(&req.Node.Name, "conformance-node")
	fill(&req.SecretProviderClass, "conformance-class")
	if req.DefaultFileMode == 0 {
		req.DefaultFileMode = 0o644
	}
	// Unknown to all providers' parameters, but not to their memory.
	req.Parameters = maps.Clone(req.Parameters)
	if req.Parameters == nil {
		req.Parameters = sdk.Parameters{}
	}
	for _, t := range req.Tokens {
		s.noteCanary("the token for "+t.Audience, t.Token.Reveal(), minTokenCanary)
	}
	for key, value := range req.Secrets {
		s.noteCanary("the secret "+key, value.Reveal(), minTokenCanary)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.labels[req.Pod.UID] = "a pod's uid"
	s.labels[req.VolumeID] = "a volume's id"
	return req
}

func (s *suite) canary(what, text string) { s.noteCanary(what, text, 1) }

func (s *suite) noteCanary(what, text string, atLeast int) {
	if len(text) < atLeast {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.canaries[text] = what
}

// noteText keeps a text that the provider has let out.
func (s *suite) noteText(where, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.texts[where] += text + "\n"
}

// fetch fetches by provider.v1. An error is also checked for what all errors
// must be.
func (s *suite) fetch(ctx context.Context, req *sdk.Request) (*answer, error) {
	p, err := s.started(ctx)
	if err != nil {
		return nil, err
	}
	resp, err := p.provider.Fetch(ctx, fetchRequest(req))
	if err != nil {
		s.noteText("an error of Fetch", errorText(err))
		return nil, err
	}
	out := newAnswer()
	for _, f := range resp.GetFiles() {
		out.Contents[f.GetPath()] = string(f.GetContents())
		out.Modes[f.GetPath()] = fs.FileMode(f.GetMode())
	}
	for _, o := range resp.GetObjects() {
		out.Versions[o.GetId()] = o.GetVersion()
	}
	s.noteContents(out)
	return out, checkCounts(out, len(resp.GetFiles()), len(resp.GetObjects()))
}

// mount fetches by the upstream protocol.
func (s *suite) mount(ctx context.Context, in *v1alpha1.MountRequest) (*answer, error) {
	p, err := s.started(ctx)
	if err != nil {
		return nil, err
	}
	resp, err := p.upstream.Mount(ctx, in)
	if err != nil {
		s.noteText("an error of Mount", errorText(err))
		return nil, err
	}
	if code := resp.GetError().GetCode(); code != "" {
		return nil, fmt.Errorf("mount: error.code is %q: failures are gRPC statuses", code)
	}
	out := newAnswer()
	for _, f := range resp.GetFiles() {
		out.Contents[f.GetPath()] = string(f.GetContents())
		out.Modes[f.GetPath()] = fs.FileMode(f.GetMode())
	}
	for _, o := range resp.GetObjectVersion() {
		out.Versions[o.GetId()] = o.GetVersion()
	}
	s.noteContents(out)
	return out, checkCounts(out, len(resp.GetFiles()), len(resp.GetObjectVersion()))
}

func newAnswer() *answer {
	return &answer{Contents: map[string]string{}, Modes: map[string]fs.FileMode{}, Versions: map[string]string{}}
}

func (s *suite) noteContents(a *answer) {
	for path, contents := range a.Contents {
		s.noteCanary("the content of "+path, contents, minContentCanary)
	}
}

func checkCounts(a *answer, files, objects int) error {
	switch {
	case files == 0:
		return fmt.Errorf("the answer has no files")
	case objects == 0:
		return fmt.Errorf("the answer has no objects")
	case len(a.Contents) != files:
		return fmt.Errorf("the answer has two files of one path")
	case len(a.Versions) != objects:
		return fmt.Errorf("the answer has two objects of one id")
	}
	return nil
}

func fetchRequest(req *sdk.Request) *providerv1.FetchRequest {
	out := &providerv1.FetchRequest{
		VolumeId: req.VolumeID,
		Pod: &secretv1.Pod{
			Namespace: req.Pod.Namespace, Name: req.Pod.Name, Uid: req.Pod.UID,
			ServiceAccount: &secretv1.ServiceAccount{
				Name: req.Pod.ServiceAccount.Name, Annotations: req.Pod.ServiceAccount.Annotations,
			},
		},
		Node:                &secretv1.Node{Name: req.Node.Name, Labels: req.Node.Labels},
		SecretProviderClass: req.SecretProviderClass,
		Parameters:          req.Parameters,
		Secrets:             revealed(req.Secrets),
		DefaultFileMode:     uint32(req.DefaultFileMode),
		State:               req.State.Reveal(),
	}
	for _, t := range req.Tokens {
		token := &secretv1.Token{Audience: t.Audience, Token: t.Token.Reveal()}
		if !t.Expiry.IsZero() {
			token.Expiry = timestamppb.New(t.Expiry)
		}
		out.Tokens = append(out.Tokens, token)
	}
	for _, o := range req.CurrentObjects {
		out.CurrentObjects = append(out.CurrentObjects, &secretv1.ObjectVersion{Id: o.ID, Version: o.Version})
	}
	return out
}

func revealed(in map[string]sdk.SecretString) map[string]string {
	if in == nil {
		return nil
	}
	out := make(map[string]string, len(in))
	for k, v := range in {
		out[k] = v.Reveal()
	}
	return out
}

// kubelet's own keys among the attributes.
const (
	kubeletPrefix = "csi.storage.k8s.io/"
	tokensKey     = kubeletPrefix + "serviceAccount.tokens"
)

// mountRequest makes the request that the upstream driver makes, with the
// tokens among the attributes or, as since Kubernetes 1.35, the secrets.
func mountRequest(req *sdk.Request, tokensInSecrets bool) (*v1alpha1.MountRequest, error) {
	attributes := maps.Clone(map[string]string(req.Parameters))
	attributes["secretProviderClass"] = req.SecretProviderClass
	attributes[kubeletPrefix+"pod.name"] = req.Pod.Name
	attributes[kubeletPrefix+"pod.namespace"] = req.Pod.Namespace
	attributes[kubeletPrefix+"pod.uid"] = req.Pod.UID
	attributes[kubeletPrefix+"serviceAccount.name"] = req.Pod.ServiceAccount.Name
	attributes[kubeletPrefix+"ephemeral"] = "true"
	secrets := revealed(req.Secrets)
	if len(req.Tokens) > 0 {
		tokens, err := tokensJSON(req.Tokens)
		if err != nil {
			return nil, err
		}
		if tokensInSecrets {
			if secrets == nil {
				secrets = map[string]string{}
			}
			secrets[tokensKey] = tokens
		} else {
			attributes[tokensKey] = tokens
		}
	}
	attributesJSON, err := json.Marshal(attributes)
	if err != nil {
		return nil, fmt.Errorf("encode attributes: %w", err)
	}
	secretsJSON, err := json.Marshal(secrets) // null for none, as upstream's
	if err != nil {
		return nil, fmt.Errorf("encode secrets: %w", err)
	}
	return &v1alpha1.MountRequest{
		Attributes: string(attributesJSON), Secrets: string(secretsJSON),
		TargetPath: "/var/lib/kubelet/pods/" + req.Pod.UID + "/volumes/kubernetes.io~csi/" + req.VolumeID + "/mount",
		Permission: fmt.Sprint(uint32(req.DefaultFileMode)),
	}, nil
}

func tokensJSON(tokens sdk.Tokens) (string, error) {
	type token struct {
		Token      string    `json:"token"`
		Expiration time.Time `json:"expirationTimestamp"`
	}
	out := make(map[string]token, len(tokens))
	for _, t := range tokens {
		out[t.Audience] = token{Token: t.Token.Reveal(), Expiration: t.Expiry}
	}
	b, err := json.Marshal(out)
	if err != nil {
		return "", fmt.Errorf("encode tokens: %w", err)
	}
	return string(b), nil
}
