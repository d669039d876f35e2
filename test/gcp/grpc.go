package gcp

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"cloud.google.com/go/parametermanager/apiv1/parametermanagerpb"
	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/postern-dev/postern/test/gcp/api"
	"github.com/postern-dev/postern/test/gcp/control"
	"github.com/postern-dev/postern/test/gcp/iam"
	"github.com/postern-dev/postern/test/gcp/parametermanager"
	"github.com/postern-dev/postern/test/gcp/secretmanager"
)

// routing is the header by which Google's front ends find the resource of a request.
const routing = "X-Goog-Request-Params"

// method is one that the double has: what it is called here, and the member of its
// request that the routing header has.
type method struct{ service, operation, member string }

func methods() map[string]method {
	return map[string]method{
		secretmanagerpb.SecretManagerService_AccessSecretVersion_FullMethodName: {control.SecretManager, control.Access, "name"},
		secretmanagerpb.SecretManagerService_GetSecretVersion_FullMethodName:    {control.SecretManager, control.GetVersion, "name"},
		secretmanagerpb.SecretManagerService_GetSecret_FullMethodName:           {control.SecretManager, control.Get, "name"},
		secretmanagerpb.SecretManagerService_ListSecrets_FullMethodName:         {control.SecretManager, control.List, "parent"},
		parametermanagerpb.ParameterManager_RenderParameterVersion_FullMethodName: {
			control.ParameterManager, control.Render, "name",
		},
		parametermanagerpb.ParameterManager_GetParameterVersion_FullMethodName: {control.ParameterManager, control.GetVersion, "name"},
		parametermanagerpb.ParameterManager_GetParameter_FullMethodName:        {control.ParameterManager, control.Get, "name"},
	}
}

// newGRPC serves both managers; which may be called is its host's matter.
func (s *Server) newGRPC() *grpc.Server {
	server := grpc.NewServer(grpc.UnaryInterceptor(s.intercept))
	secretmanagerpb.RegisterSecretManagerServiceServer(server, secretmanager.NewService(s.secrets, s.bearer))
	parametermanagerpb.RegisterParameterManagerServer(server, parametermanager.NewService(s.parameters, s.bearer))
	return server
}

// serveGRPC has a manager answer, unless a fault does.
func (s *Server) serveGRPC(w http.ResponseWriter, c *api.Call) {
	known, ok := methods()[c.HTTP.URL.Path]
	if !ok || known.service != c.Service || c.HTTP.ProtoMajor != 2 || !strings.HasPrefix(c.HTTP.Header.Get("Content-Type"), "application/grpc") {
		c.Violate("no such method of " + c.Service + " by gRPC: " + c.HTTP.Method + " " + c.HTTP.URL.Path)
		c.Status, c.Code = http.StatusNotFound, http.StatusText(http.StatusNotFound)
		s.record.Violation(c.Violations...)
		s.note(c.Request)
		http.NotFound(w, c.HTTP)
		return
	}
	c.Operation = known.operation
	c.Principal = s.directory.Peek(api.Bearer(c.HTTP)).Principal
	if params, err := url.ParseQuery(c.HTTP.Header.Get(routing)); err == nil {
		c.Resource = params.Get(known.member)
	}
	fault, done := s.inject(w, c)
	if done {
		return
	}
	ctx := api.With(c.HTTP.Context(), c)
	if fault != nil {
		ctx = context.WithValue(ctx, faultKey{}, *fault)
	}
	s.grpc.ServeHTTP(w, c.HTTP.WithContext(ctx))
}

// faultKey is where the context of a gRPC request has the fault that it is to tell.
type faultKey struct{}

// intercept records a gRPC request and what it is answered.
func (s *Server) intercept(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	c, ok := api.Of(ctx)
	if !ok {
		return nil, status.Error(codes.Internal, "the context has no call")
	}
	if asked := named(request); asked != c.Resource {
		c.Violate("the routing header " + routing + " is for " + c.Resource + ", the request for " + asked)
		c.Resource = asked
	}
	var answer any
	var err error
	if fault, ok := ctx.Value(faultKey{}).(control.Fault); ok {
		err = api.Injected(fault)
	} else {
		answer, err = handle(ctx, request)
	}
	c.Status = http.StatusOK
	if err != nil {
		refused := api.Refused(err)
		c.Code, c.Reason, err = api.CodeName(refused.Code), refused.Reason, refused.GRPCStatus().Err()
	}
	s.record.Violation(c.Violations...)
	s.note(c.Request)
	return answer, err
}

// named returns what a request is for.
func named(request any) string {
	switch r := request.(type) {
	case interface{ GetName() string }:
		return r.GetName()
	case interface{ GetParent() string }:
		return r.GetParent()
	default:
		return ""
	}
}

// bearer returns whose the access token of a gRPC request is.
func (s *Server) bearer(ctx context.Context) (iam.Token, error) {
	c, ok := api.Of(ctx)
	if !ok {
		return iam.Token{}, status.Error(codes.Internal, "the context has no call")
	}
	full := strings.ReplaceAll(strings.TrimPrefix(c.HTTP.URL.Path, "/"), "/", ".")
	return s.directory.Check(api.Bearer(c.HTTP), iam.Method{Service: c.Service + ".googleapis.com", Name: full})
}
