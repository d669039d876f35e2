package parametermanager

import (
	"cmp"
	"context"
	"maps"
	"slices"

	"cloud.google.com/go/iam/apiv1/iampb"
	"cloud.google.com/go/parametermanager/apiv1/parametermanagerpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/postern-dev/postern/test/gcp/api"
	"github.com/postern-dev/postern/test/gcp/iam"
	"github.com/postern-dev/postern/test/gcp/resource"
)

// Service answers gRPC calls. The context of each has its call.
type Service struct {
	parametermanagerpb.UnimplementedParameterManagerServer

	store *Store
	// bearer returns whose the access token of a call is.
	bearer func(context.Context) (iam.Token, error)
}

var _ parametermanagerpb.ParameterManagerServer = (*Service)(nil)

// NewService returns the service of a store.
func NewService(store *Store, bearer func(context.Context) (iam.Token, error)) *Service {
	return &Service{store: store, bearer: bearer}
}

// RenderParameterVersion implements the service.
func (s *Service) RenderParameterVersion(ctx context.Context, r *parametermanagerpb.RenderParameterVersionRequest) (*parametermanagerpb.RenderParameterVersionResponse, error) {
	found, err := s.find(ctx, r.GetName(), iam.RenderParameter)
	if err != nil {
		return nil, err
	}
	if found.version.disabled {
		return nil, &api.Refusal{Code: codes.FailedPrecondition, Message: "Parameter Version [" + found.name + "] is disabled."}
	}
	rendered, err := s.store.render(found)
	if err != nil {
		return nil, err
	}
	return &parametermanagerpb.RenderParameterVersionResponse{
		ParameterVersion: found.name, Payload: &parametermanagerpb.ParameterVersionPayload{Data: found.version.contents}, RenderedPayload: rendered,
	}, nil
}

// GetParameterVersion implements the service.
func (s *Service) GetParameterVersion(ctx context.Context, r *parametermanagerpb.GetParameterVersionRequest) (*parametermanagerpb.ParameterVersion, error) {
	found, err := s.find(ctx, r.GetName(), iam.GetParameterVersion)
	if err != nil {
		return nil, err
	}
	answer := &parametermanagerpb.ParameterVersion{
		Name: found.name, CreateTime: timestamppb.New(found.version.created), UpdateTime: timestamppb.New(found.version.updated), Disabled: found.version.disabled,
	}
	if r.GetView() != parametermanagerpb.View_BASIC && !answer.GetDisabled() {
		answer.Payload = &parametermanagerpb.ParameterVersionPayload{Data: found.version.contents}
	}
	return answer, nil
}

// GetParameter implements the service.
func (s *Service) GetParameter(ctx context.Context, r *parametermanagerpb.GetParameterRequest) (*parametermanagerpb.Parameter, error) {
	found, err := s.find(ctx, r.GetName(), iam.GetParameter)
	if err != nil {
		return nil, err
	}
	members := found.parameter.members()
	return &parametermanagerpb.Parameter{
		Name: found.name, CreateTime: timestamppb.New(found.parameter.created), UpdateTime: timestamppb.New(found.parameter.created),
		Labels: found.parameter.labels, Format: parametermanagerpb.ParameterFormat(parametermanagerpb.ParameterFormat_value[found.parameter.format]),
		PolicyMember: &iampb.ResourcePolicyMember{IamPolicyNamePrincipal: members[0], IamPolicyUidPrincipal: members[1]},
	}, nil
}

// found is a copy of what a call is about.
type found struct {
	name      string
	parameter parameter
	version   version
}

// find reads the name that a call is about, checks that its bearer may do with it
// what it wants, and looks it up.
func (s *Service) find(ctx context.Context, name, permission string) (found, error) {
	bearer, err := s.bearer(ctx)
	if err != nil {
		return found{}, err
	}
	call, inCall := api.Of(ctx)
	location := Global
	if inCall {
		location = cmp.Or(api.LocationOf(call.Host), Global)
	}
	n, ok := resource.Parse(name)
	if !ok || n.Collection != resource.Parameters || (n.Version == "") != (permission == iam.GetParameter) {
		return found{}, api.Invalid("Malformed name: '" + name + "'")
	}
	if n.Location != location {
		return found{}, api.Invalid("Location '" + n.Location + "' of the resource is not served at this endpoint, which is of '" + location + "'.")
	}
	if !s.store.directory.Allowed(bearer, permission, name) {
		denied := api.Denied(permission, name)
		denied.Message = "Permission '" + permission + "' denied on resource '//parametermanager.googleapis.com/" + name + "' (or it may not exist)."
		return found{}, denied
	}
	got, err := s.store.lookUp(n)
	if err == nil && inCall {
		call.Version = got.name
	}
	return got, err
}

// lookUp copies a parameter, and the version that the name has.
func (s *Store) lookUp(n resource.Name) (found, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	absent := &api.Refusal{Code: codes.NotFound, Message: "Resource '" + n.String() + "' was not found"}
	kept := s.parameters[s.canonical(n.Parent()).String()]
	if kept == nil {
		return found{}, absent
	}
	shown := kept.shown
	shown.Version = n.Version
	f := found{name: shown.String(), parameter: *kept}
	f.parameter.versions, f.parameter.labels = nil, maps.Clone(kept.labels)
	if n.Version == "" {
		return f, nil
	}
	v := kept.versions[n.Version]
	if v == nil {
		return found{}, absent
	}
	f.version = *v
	f.version.contents = slices.Clone(v.contents)
	return f, nil
}
