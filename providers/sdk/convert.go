package sdk

import (
	"io/fs"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	v1alpha1 "github.com/postern-dev/postern/proto/gen/go/compat/v1alpha1"
	providerv1 "github.com/postern-dev/postern/proto/gen/go/postern/provider/v1"
	secretv1 "github.com/postern-dev/postern/proto/gen/go/postern/secret/v1"
)

// defaultFileMode is kubelet's and upstream's.
const defaultFileMode fs.FileMode = 0o644

// describe makes Describe's answer.
func describe(def *Definition, p Provider) *providerv1.DescribeResponse {
	resp := &providerv1.DescribeResponse{
		Names:                     def.Names,
		Version:                   def.Version,
		ServiceAccountAnnotations: def.ServiceAccountAnnotations,
		NodeLabels:                def.NodeLabels,
	}
	for _, a := range def.Audiences {
		audience := &providerv1.Audience{ParameterDefault: a.ParameterDefault, Optional: a.Optional}
		if a.Parameter != "" {
			audience.Source = &providerv1.Audience_Parameter{Parameter: a.Parameter}
		} else {
			audience.Source = &providerv1.Audience_Value{Value: a.Value}
		}
		resp.Audiences = append(resp.Audiences, audience)
	}
	for _, p := range def.Parameters {
		resp.Parameters = append(resp.Parameters, &providerv1.Parameter{
			Name: p.Name, Description: p.Description, Required: p.Required, LocatesStore: p.LocatesStore,
		})
	}
	if _, ok := p.(Releaser); ok {
		resp.Capabilities = append(resp.Capabilities, providerv1.Capability_CAPABILITY_RELEASE)
	}
	if def.NotModified {
		resp.Capabilities = append(resp.Capabilities, providerv1.Capability_CAPABILITY_NOT_MODIFIED)
	}
	if def.Leases {
		resp.Capabilities = append(resp.Capabilities, providerv1.Capability_CAPABILITY_LEASES)
	}
	return resp
}

// requestOf converts a request of provider.v1.
func requestOf(in *providerv1.FetchRequest) *Request {
	req := &Request{
		VolumeID: in.GetVolumeId(),
		Pod: Pod{
			Namespace: in.GetPod().GetNamespace(),
			Name:      in.GetPod().GetName(),
			UID:       in.GetPod().GetUid(),
			ServiceAccount: ServiceAccount{
				Name:        in.GetPod().GetServiceAccount().GetName(),
				Annotations: in.GetPod().GetServiceAccount().GetAnnotations(),
			},
		},
		Node:                Node{Name: in.GetNode().GetName(), Labels: in.GetNode().GetLabels()},
		SecretProviderClass: in.GetSecretProviderClass(),
		Parameters:          in.GetParameters(),
		Secrets:             secretStrings(in.GetSecrets()),
		DefaultFileMode:     fs.FileMode(in.GetDefaultFileMode()),
		State:               NewSecret(in.GetState()),
	}
	for _, t := range in.GetTokens() {
		token := Token{Audience: t.GetAudience(), Token: NewSecretString(t.GetToken())}
		if t.GetExpiry() != nil {
			token.Expiry = t.GetExpiry().AsTime()
		}
		req.Tokens = append(req.Tokens, token)
	}
	for _, o := range in.GetCurrentObjects() {
		req.CurrentObjects = append(req.CurrentObjects, ObjectVersion{ID: o.GetId(), Version: o.GetVersion()})
	}
	return req
}

func secretStrings(in map[string]string) map[string]SecretString {
	if in == nil {
		return nil
	}
	out := make(map[string]SecretString, len(in))
	for k, v := range in {
		out[k] = NewSecretString(v)
	}
	return out
}

// complete fills in defaults, keeps of the tokens those that def declares, and
// tells what a request lacks that both protocols require.
func (r *Request) complete(def *Definition) error {
	if r.DefaultFileMode == 0 {
		r.DefaultFileMode = defaultFileMode
	}
	d := NewDecoder(nil)
	for _, field := range []struct{ name, value string }{
		{"volume_id", r.VolumeID},
		{"pod.namespace", r.Pod.Namespace},
		{"pod.name", r.Pod.Name},
		{"pod.uid", r.Pod.UID},
		{"pod.service_account.name", r.Pod.ServiceAccount.Name},
	} {
		if field.value == "" {
			d.Violate(field.name, "is not set: this is a defect of the caller")
		}
	}
	if r.DefaultFileMode&^fs.ModePerm != 0 {
		d.Violate("default_file_mode", "%#o is more than 0777", uint32(r.DefaultFileMode))
	}
	wanted := def.audiencesFor(r.Parameters)
	var tokens Tokens
	for _, t := range r.Tokens {
		if wanted[t.Audience] {
			tokens = append(tokens, t)
		}
	}
	r.Tokens = tokens
	return d.Err()
}

// modeOf is the mode that a file gets.
func (f *File) modeOf(req *Request) fs.FileMode {
	if f.Mode == 0 {
		return req.DefaultFileMode
	}
	return f.Mode
}

// toV1 converts an answer that validateResponse has passed.
func (r *Response) toV1(req *Request) *providerv1.FetchResponse {
	out := &providerv1.FetchResponse{
		NotModified:  r.NotModified,
		Sharing:      r.Sharing.toV1(),
		FreshFor:     durationOf(r.FreshFor),
		RefreshAfter: durationOf(r.RefreshAfter),
		State:        r.State.Reveal(),
	}
	for _, f := range r.Files {
		out.Files = append(out.Files, &secretv1.File{
			Path: f.Path, Mode: uint32(f.modeOf(req)), Contents: f.Contents.Reveal(),
		})
	}
	for _, o := range r.Objects {
		out.Objects = append(out.Objects, &secretv1.ObjectVersion{Id: o.ID, Version: o.Version})
	}
	for _, l := range r.Leases {
		out.Leases = append(out.Leases, &secretv1.Lease{
			ObjectId: l.ObjectID, Duration: durationpb.New(l.Duration), Renewable: l.Renewable,
		})
	}
	return out
}

// toV1alpha1 converts an answer that validateResponse has passed. Sharing,
// times and leases have no place there.
func (r *Response) toV1alpha1(req *Request) *v1alpha1.MountResponse {
	out := &v1alpha1.MountResponse{}
	for _, f := range r.Files {
		out.Files = append(out.Files, &v1alpha1.File{
			Path: f.Path, Mode: int32(f.modeOf(req)),
			Contents: f.Contents.Reveal(),
		})
	}
	for _, o := range r.Objects {
		out.ObjectVersion = append(out.ObjectVersion, &v1alpha1.ObjectVersion{Id: o.ID, Version: o.Version})
	}
	return out
}

func (s Sharing) toV1() secretv1.Sharing {
	switch s {
	case SharingPod:
		return secretv1.Sharing_SHARING_POD
	case SharingServiceAccount:
		return secretv1.Sharing_SHARING_SERVICE_ACCOUNT
	case SharingNamespace:
		return secretv1.Sharing_SHARING_NAMESPACE
	default:
		return secretv1.Sharing_SHARING_UNSPECIFIED
	}
}

// durationOf leaves zero unset.
func durationOf(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}
