package store

import (
	"cmp"
	"context"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"cloud.google.com/go/parametermanager/apiv1/parametermanagerpb"
	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/postern-dev/postern/providers/gcp/internal/params"
)

// contentsOf begins all contents, and tokenOf all tokens. They must not be in errors
// or logs.
const (
	contentsOf = "canary-contents-"
	tokenOf    = "canary-token-"
)

// memoryGoogle is Secret Manager and Parameter Manager of all locations. Of a project
// "p" the number is 42, which answers have.
type memoryGoogle struct {
	mu         sync.Mutex
	secrets    []*memorySecret
	parameters []*memoryParameter
	requests   []arrival
	// running and mostRunning count requests under way.
	running, mostRunning int
	// script, if any, is asked first. It may answer with an error, and may wait.
	script func(ctx context.Context, r arrival) error
	// change, if any, changes answers.
	change func(r arrival, answer any)
	// pageSize is that of lists. Zero: 2.
	pageSize int
}

// arrival is one that came.
type arrival struct {
	host, method, resource, identity, routing string
}

type memorySecret struct {
	location, name string
	labels         map[string]string
	aliases        map[string]int
	// versions are in order; the first is 1.
	versions []memoryVersion
}

type memoryVersion struct {
	contents string
	state    secretmanagerpb.SecretVersion_State // zero: enabled
	made     time.Time
}

type memoryParameter struct {
	location, name, version, template, rendered string
	disabled                                    bool
}

// parent is the full name of where a secret or parameter is, as answers have it.
func parentOf(project, location string) string {
	if location == "" {
		return "projects/" + project
	}
	return "projects/" + project + "/locations/" + location
}

// came notes a request, and returns the script's answer.
func (m *memoryGoogle) came(ctx context.Context, host, method, resource string) (arrival, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	r := arrival{
		host: host, method: method, resource: resource,
		identity: strings.TrimPrefix(strings.Join(md.Get("authorization"), ","), "Bearer "+tokenOf),
		routing:  strings.Join(md.Get("x-goog-request-params"), ","),
	}
	if p, ok := peer.FromContext(ctx); !ok || p.AuthInfo == nil || p.AuthInfo.AuthType() != "tls" {
		return r, status.Error(codes.Internal, "a request without TLS")
	}
	m.mu.Lock()
	m.requests = append(m.requests, r)
	m.running++
	m.mostRunning = max(m.running, m.mostRunning)
	script := m.script
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		m.running--
		m.mu.Unlock()
	}()
	if script != nil {
		return r, script(ctx, r)
	}
	return r, nil
}

// operations says which requests came since it was asked last.
func (m *memoryGoogle) operations() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	counts := make(map[string]int)
	for _, r := range m.requests {
		counts[r.method]++
	}
	m.requests = nil
	var parts []string
	for _, method := range slices.Sorted(maps.Keys(counts)) {
		parts = append(parts, fmt.Sprintf("%s=%d", method, counts[method]))
	}
	return strings.Join(parts, " ")
}

// arrivals are the requests that came.
func (m *memoryGoogle) arrivals() []arrival {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.requests)
}

// server is one host's services.
type server struct {
	secretmanagerpb.UnimplementedSecretManagerServiceServer
	parametermanagerpb.UnimplementedParameterManagerServer
	m    *memoryGoogle
	host string
}

// location is the host's own.
func (s *server) location() string {
	service, rest, _ := strings.Cut(s.host, ".")
	if rest == "googleapis.com" {
		return ""
	}
	return strings.TrimSuffix(strings.TrimPrefix(s.host, service+"."), ".rep.googleapis.com")
}

// find returns a version of a secret.
func (s *server) find(resource string) (name string, v memoryVersion, err error) {
	missing := status.Errorf(codes.NotFound, "Secret Version [%s] not found.", resource)
	parts := strings.Split(strings.Replace(resource, "projects/p/", "projects/42/", 1), "/")
	if len(parts) < 6 {
		return "", v, status.Errorf(codes.InvalidArgument, "%q is no name", resource)
	}
	asked := parts[len(parts)-1]
	for _, secret := range s.m.secrets {
		if secret.location != s.location() || strings.Join(parts[:len(parts)-2], "/") != parentOf("42", secret.location)+"/secrets/"+secret.name {
			continue
		}
		number := secret.aliases[asked]
		if n, err := strconv.Atoi(asked); err == nil {
			number = n
		}
		if asked == "latest" {
			number = len(secret.versions)
		}
		if number < 1 || number > len(secret.versions) {
			return "", v, missing
		}
		parts[len(parts)-1] = strconv.Itoa(number)
		v = secret.versions[number-1]
		v.state = cmp.Or(v.state, secretmanagerpb.SecretVersion_ENABLED)
		return strings.Join(parts, "/"), v, nil
	}
	return "", v, missing
}

func (s *server) AccessSecretVersion(ctx context.Context, in *secretmanagerpb.AccessSecretVersionRequest) (*secretmanagerpb.AccessSecretVersionResponse, error) {
	r, err := s.m.came(ctx, s.host, "access", in.GetName())
	if err != nil {
		return nil, err
	}
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	name, v, err := s.find(in.GetName())
	if err != nil {
		return nil, err
	}
	if v.state != secretmanagerpb.SecretVersion_ENABLED {
		return nil, status.Errorf(codes.FailedPrecondition, "Secret Version [%s] is in %s state.", name, v.state)
	}
	sum := int64(crc32.Checksum([]byte(v.contents), crc32.MakeTable(crc32.Castagnoli)))
	out := &secretmanagerpb.AccessSecretVersionResponse{
		Name: name, Payload: &secretmanagerpb.SecretPayload{Data: []byte(v.contents), DataCrc32C: &sum},
	}
	if s.m.change != nil {
		s.m.change(r, out)
	}
	return out, nil
}

func (s *server) GetSecretVersion(ctx context.Context, in *secretmanagerpb.GetSecretVersionRequest) (*secretmanagerpb.SecretVersion, error) {
	r, err := s.m.came(ctx, s.host, "get", in.GetName())
	if err != nil {
		return nil, err
	}
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	name, v, err := s.find(in.GetName())
	if err != nil {
		return nil, err
	}
	out := &secretmanagerpb.SecretVersion{Name: name, State: v.state, CreateTime: timestamppb.New(v.made)}
	if s.m.change != nil {
		s.m.change(r, out)
	}
	return out, nil
}

func (s *server) ListSecrets(ctx context.Context, in *secretmanagerpb.ListSecretsRequest) (*secretmanagerpb.ListSecretsResponse, error) {
	r, err := s.m.came(ctx, s.host, "list", in.GetParent())
	if err != nil {
		return nil, err
	}
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	if in.GetParent() != parentOf("p", s.location()) {
		return nil, status.Error(codes.NotFound, "no such project here")
	}
	var found []*secretmanagerpb.Secret
	for _, secret := range s.m.secrets {
		if secret.location == s.location() && labelsMatch(in.GetFilter(), secret.labels) {
			found = append(found, &secretmanagerpb.Secret{
				Name: parentOf("42", secret.location) + "/secrets/" + secret.name, Labels: secret.labels,
			})
		}
	}
	first, _ := strconv.Atoi(in.GetPageToken())
	last := min(first+cmp.Or(s.m.pageSize, 2), int(in.GetPageSize())+first, len(found))
	out := &secretmanagerpb.ListSecretsResponse{Secrets: found[first:last]}
	if last < len(found) {
		out.NextPageToken = strconv.Itoa(last)
	}
	if s.m.change != nil {
		s.m.change(r, out)
	}
	return out, nil
}

// labelsMatch knows filters of labels, joined by AND, and no others.
func labelsMatch(filter string, labels map[string]string) bool {
	if filter == "" {
		return true
	}
	for term := range strings.SplitSeq(filter, " AND ") {
		key, value, ok := strings.Cut(strings.TrimPrefix(term, "labels."), "=")
		if unquoted, err := strconv.Unquote(value); !ok || err != nil || labels[key] != unquoted {
			return false
		}
	}
	return true
}

func (s *server) RenderParameterVersion(ctx context.Context, in *parametermanagerpb.RenderParameterVersionRequest) (*parametermanagerpb.RenderParameterVersionResponse, error) {
	r, err := s.m.came(ctx, s.host, "render", in.GetName())
	if err != nil {
		return nil, err
	}
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	for _, p := range s.m.parameters {
		name := parentOf("p", cmp.Or(p.location, "global")) + "/parameters/" + p.name + "/versions/" + p.version
		if p.location != s.location() || name != in.GetName() {
			continue
		}
		if p.disabled {
			return nil, status.Error(codes.FailedPrecondition, "the version is disabled")
		}
		out := &parametermanagerpb.RenderParameterVersionResponse{
			ParameterVersion: strings.Replace(name, "projects/p/", "projects/42/", 1),
			Payload:          &parametermanagerpb.ParameterVersionPayload{Data: []byte(p.template)},
			RenderedPayload:  []byte(p.rendered),
		}
		if s.m.change != nil {
			s.m.change(r, out)
		}
		return out, nil
	}
	return nil, status.Errorf(codes.NotFound, "Resource '%s' was not found", in.GetName())
}

// secretOf is a global one, of which each version has contents.
func secretOf(name string, versions int) *memorySecret {
	return secretIn("", name, versions)
}

func secretIn(location, name string, versions int) *memorySecret {
	s := &memorySecret{location: location, name: name}
	for i := range versions {
		s.versions = append(s.versions, memoryVersion{contents: fmt.Sprint(contentsOf, location, name, i+1)})
	}
	return s
}

// refTo is a version of a global secret.
func refTo(name, version string) Ref { return refIn("", name, version) }

func refIn(location, name, version string) Ref {
	return Ref{Kind: params.Secret, Location: location, Resource: parentOf("p", location) + "/secrets/" + name + "/versions/" + version}
}

func refToParameter(location, name, version string) Ref {
	return Ref{
		Kind: params.Parameter, Location: location,
		Resource: parentOf("p", cmp.Or(location, "global")) + "/parameters/" + name + "/versions/" + version,
	}
}
