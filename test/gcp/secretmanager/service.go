package secretmanager

import (
	"context"
	"hash/crc32"
	"maps"
	"strconv"

	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/postern-dev/postern/test/gcp/api"
	"github.com/postern-dev/postern/test/gcp/control"
	"github.com/postern-dev/postern/test/gcp/iam"
	"github.com/postern-dev/postern/test/gcp/resource"
)

// Service answers gRPC calls. The context of each has its call.
type Service struct {
	secretmanagerpb.UnimplementedSecretManagerServiceServer

	store *Store
	// bearer returns whose the access token of a call is.
	bearer func(context.Context) (iam.Token, error)
}

var _ secretmanagerpb.SecretManagerServiceServer = (*Service)(nil)

// NewService returns the service of a store.
func NewService(store *Store, bearer func(context.Context) (iam.Token, error)) *Service {
	return &Service{store: store, bearer: bearer}
}

// AccessSecretVersion implements the service.
func (s *Service) AccessSecretVersion(ctx context.Context, r *secretmanagerpb.AccessSecretVersionRequest) (*secretmanagerpb.AccessSecretVersionResponse, error) {
	n, err := s.authorize(ctx, r.GetName(), iam.AccessVersion)
	if err != nil {
		return nil, err
	}
	name, contents, err := s.store.access(n)
	if err != nil {
		return nil, err
	}
	answer := &secretmanagerpb.AccessSecretVersionResponse{Name: name, Payload: &secretmanagerpb.SecretPayload{Data: contents, DataCrc32C: proto.Int64(checksum(contents))}}
	if call, ok := api.Of(ctx); ok {
		call.Version = name
		damage(answer.GetPayload(), call.Damage)
	}
	return answer, nil
}

// damage does to contents what a fault wants.
func damage(p *secretmanagerpb.SecretPayload, kind string) {
	switch {
	case kind == control.NoChecksum:
		p.DataCrc32C = nil
	case kind == control.Corrupt && len(p.GetData()) > 0:
		p.Data[0] ^= 1
	case kind == control.Corrupt:
		p.DataCrc32C = proto.Int64(p.GetDataCrc32C() + 1)
	}
}

func checksum(contents []byte) int64 {
	return int64(crc32.Checksum(contents, crc32.MakeTable(crc32.Castagnoli)))
}

// GetSecretVersion implements the service.
func (s *Service) GetSecretVersion(ctx context.Context, r *secretmanagerpb.GetSecretVersionRequest) (*secretmanagerpb.SecretVersion, error) {
	n, err := s.authorize(ctx, r.GetName(), iam.GetVersion)
	if err != nil {
		return nil, err
	}
	answer, err := s.store.describe(n)
	if call, ok := api.Of(ctx); ok && err == nil {
		call.Version = answer.GetName()
	}
	return answer, err
}

// GetSecret implements the service.
func (s *Service) GetSecret(ctx context.Context, r *secretmanagerpb.GetSecretRequest) (*secretmanagerpb.Secret, error) {
	n, err := s.authorize(ctx, r.GetName(), iam.GetSecret)
	if err != nil {
		return nil, err
	}
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	kept := s.store.secrets[s.store.canonical(n).String()]
	if kept == nil {
		return nil, absent(s.store.canonical(n))
	}
	return kept.proto(), nil
}

// authorize reads the name that a call is about, and checks that its bearer may do
// with it what it wants. Location and name have to be of one endpoint.
func (s *Service) authorize(ctx context.Context, name, permission string) (resource.Name, error) {
	bearer, err := s.bearer(ctx)
	if err != nil {
		return resource.Name{}, err
	}
	n, ok := resource.Parse(name)
	wantsVersion := permission != iam.GetSecret
	if !ok || n.Collection != resource.Secrets || (n.Version != "") != wantsVersion || n.Location != locationOf(ctx) {
		what, form := "Secret", "projects/*/secrets/*"
		if locationOf(ctx) != "" {
			form = "projects/*/locations/*/secrets/*"
		}
		if wantsVersion {
			what, form = "Secret Version", form+"/versions/*"
		}
		return resource.Name{}, api.Invalid("The provided " + what + " ID [" + name + "] does not match the expected format [" + form + "]")
	}
	if !s.store.directory.Allowed(bearer, permission, name) {
		return resource.Name{}, api.Denied(permission, name)
	}
	return n, nil
}

// locationOf returns the location of the endpoint that was called; "" is the
// global one.
func locationOf(ctx context.Context) string {
	if call, ok := api.Of(ctx); ok {
		return api.LocationOf(call.Host)
	}
	return ""
}

// Value returns the contents of a version, for whoever may read it.
func (s *Store) Value(bearer iam.Token, n resource.Name) ([]byte, error) {
	if !s.directory.Allowed(bearer, iam.AccessVersion, n.String()) {
		return nil, api.Denied(iam.AccessVersion, n.String())
	}
	_, contents, err := s.access(n)
	return contents, err
}

func (s *Store) access(n resource.Name) (name string, contents []byte, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, v, err := s.find(n)
	if err != nil {
		return "", nil, err
	}
	if v.state != control.Enabled {
		return "", nil, &api.Refusal{Code: codes.FailedPrecondition, Message: "Secret Version [" + n.String() + "] is in " + v.state + " state."}
	}
	return n.String(), append([]byte{}, v.contents...), nil
}

func (s *Store) describe(n resource.Name) (*secretmanagerpb.SecretVersion, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, v, err := s.find(n)
	if err != nil {
		return nil, err
	}
	answer := &secretmanagerpb.SecretVersion{
		Name: n.String(), CreateTime: timestamppb.New(v.created), Etag: v.etag, ClientSpecifiedPayloadChecksum: true,
		State: secretmanagerpb.SecretVersion_State(secretmanagerpb.SecretVersion_State_value[v.state]),
	}
	if !v.destroyed.IsZero() {
		answer.DestroyTime = timestamppb.New(v.destroyed)
	}
	return answer, nil
}

// find returns the version of a name, and the name with its number.
func (s *Store) find(n resource.Name) (resource.Name, *version, error) {
	n = s.canonical(n)
	kept := s.secrets[n.Parent().String()]
	if kept == nil || len(kept.versions) == 0 {
		return n, nil, absent(n.Parent())
	}
	v := kept.find(n.Version)
	if v == nil {
		return n, nil, &api.Refusal{Code: codes.NotFound, Message: "Secret Version [" + n.String() + "] not found."}
	}
	n.Version = strconv.FormatInt(v.number, 10)
	return n, v, nil
}

func absent(n resource.Name) *api.Refusal {
	return &api.Refusal{Code: codes.NotFound, Message: "Secret [" + n.String() + "] not found or has no versions."}
}

func (k *secret) proto() *secretmanagerpb.Secret {
	answer := &secretmanagerpb.Secret{
		Name: k.name.String(), CreateTime: timestamppb.New(k.created), Labels: maps.Clone(k.labels), VersionAliases: maps.Clone(k.aliases), Etag: k.etag,
	}
	if k.name.Location == "" {
		answer.Replication = &secretmanagerpb.Replication{Replication: &secretmanagerpb.Replication_Automatic_{Automatic: &secretmanagerpb.Replication_Automatic{}}}
	}
	return answer
}
