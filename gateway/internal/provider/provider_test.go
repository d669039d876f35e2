package provider_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/postern-dev/postern/gateway/internal/provider"
	"github.com/postern-dev/postern/gateway/internal/providertest"
	"github.com/postern-dev/postern/internal/rpc"
	"github.com/postern-dev/postern/internal/unixsocket"
	providerv1 "github.com/postern-dev/postern/proto/gen/go/postern/provider/v1"
	secretv1 "github.com/postern-dev/postern/proto/gen/go/postern/secret/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type starter interface {
	Start(t testing.TB, path string) *providertest.Server
}

// start serves a provider and returns a connection to it.
func start(t *testing.T, p starter) (*grpc.ClientConn, *providertest.Server) {
	t.Helper()
	dir, err := os.MkdirTemp("", "gw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "p.sock")
	server := p.Start(t, path)
	conn, err := unixsocket.Dial(path, unixsocket.DialConfig{Options: []grpc.DialOption{
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1000)),
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn, server
}

func native(t *testing.T, p *providertest.Native) *provider.Native {
	t.Helper()
	conn, _ := start(t, p)
	n := provider.NewNative(conn)
	if _, err := n.Describe(t.Context()); err != nil {
		t.Fatal(err)
	}
	return n
}

func token(audience string) *secretv1.Token {
	return &secretv1.Token{
		Audience: audience, Token: "jwt-for-" + audience,
		Expiry: timestamppb.New(time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)),
	}
}

func value(audience string) *providerv1.Audience {
	return &providerv1.Audience{Source: &providerv1.Audience_Value{Value: audience}}
}

func parameter(name, otherwise string) *providerv1.Audience {
	return &providerv1.Audience{Source: &providerv1.Audience_Parameter{Parameter: name}, ParameterDefault: otherwise}
}

func optional(a *providerv1.Audience) *providerv1.Audience {
	a.Optional = true
	return a
}

func TestNative_PassesOnlyDeclaredTokens(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name      string
		audiences []*providerv1.Audience
		// audience is the value of the SPC parameter "audience".
		audience string
		want     []string
		wantErr  string
		reason   string
	}{
		{name: "none declared"},
		{name: "a value", audiences: []*providerv1.Audience{value("vault")}, want: []string{"vault"}},
		{name: "two, in their order", audiences: []*providerv1.Audience{value("vault"), value("aws")}, want: []string{"vault", "aws"}},
		{name: "one twice", audiences: []*providerv1.Audience{value("vault"), parameter("audience", "vault")}, want: []string{"vault"}},
		{name: "a parameter's value", audiences: []*providerv1.Audience{parameter("audience", "vault")}, audience: "aws", want: []string{"aws"}},
		{name: "a parameter's default", audiences: []*providerv1.Audience{parameter("audience", "vault")}, want: []string{"vault"}},
		{
			name: "a parameter without default", audiences: []*providerv1.Audience{parameter("audience", "")},
			reason:  rpc.ReasonInvalidParameters,
			wantErr: `parameter "audience" is not set: it has to name the audience of the token that the provider logs in with`,
		},
		{name: "an optional one without default", audiences: []*providerv1.Audience{optional(parameter("audience", ""))}},
		{name: "an optional one that kubelet did not send", audiences: []*providerv1.Audience{optional(value("gcp")), value("aws")}, want: []string{"aws"}},
		{
			name: "one that kubelet did not send", audiences: []*providerv1.Audience{value("gcp")},
			reason: rpc.ReasonTokenMissing,
			wantErr: `kubelet sent no token for audience "gcp": add it to spec.tokenRequests of the CSIDriver ` +
				`secrets-store.csi.k8s.io (Helm value driver.tokenRequests); pods get it with their next republish`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := &providertest.Native{Description: &providerv1.DescribeResponse{Audiences: tt.audiences}}
			req := providertest.Request("vault")
			req.Tokens = []*secretv1.Token{token("aws"), token("vault"), token("other")}
			req.Parameters["audience"] = tt.audience
			_, err := native(t, p).Fetch(t.Context(), req)
			if tt.wantErr != "" {
				checkError(t, err, &rpc.Error{Reason: tt.reason, Code: rpc.CodeOf(tt.reason), Message: tt.wantErr})
				if n := len(p.Requests()); n != 0 {
					t.Errorf("the provider got %d requests", n)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, token := range p.Requests()[0].GetTokens() {
				got = append(got, token.GetAudience())
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("audiences (-want +got):\n%s", diff)
			}
		})
	}
}

func TestNative_PassesTheRequestOn(t *testing.T) {
	t.Parallel()
	p := new(providertest.Native)
	req := providertest.Request("vault")
	req.Node = &secretv1.Node{Name: "n1", Labels: map[string]string{"topology.kubernetes.io/region": "eu"}}
	req.Secrets = map[string]string{"user": "u", "csi.storage.k8s.io/serviceAccount.tokens": "all of them"}
	req.CurrentObjects, req.ProviderState = []*secretv1.ObjectVersion{{Id: "a", Version: "1"}}, []byte("state")
	if _, err := native(t, p).Fetch(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	want := &providerv1.FetchRequest{
		VolumeId: req.GetVolumeId(), Pod: req.GetPod(), Node: req.GetNode(),
		SecretProviderClass: "db", Parameters: req.GetParameters(),
		Secrets:         map[string]string{"user": "u"},
		DefaultFileMode: 0o644, CurrentObjects: req.GetCurrentObjects(), State: []byte("state"),
	}
	if diff := cmp.Diff(want, p.Requests()[0], protocmp.Transform()); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
	if len(req.GetSecrets()) != 2 {
		t.Error("the caller's request was changed")
	}
}

func TestNative_Release(t *testing.T) {
	t.Parallel()
	without := new(providertest.Native)
	if err := native(t, without).Release(t.Context(), "v1"); err != nil {
		t.Fatal(err)
	}
	with := &providertest.Native{Description: &providerv1.DescribeResponse{
		Capabilities: []providerv1.Capability{providerv1.Capability_CAPABILITY_RELEASE},
	}}
	if err := native(t, with).Release(t.Context(), "v1"); err != nil {
		t.Fatal(err)
	}
	if len(without.Released()) != 0 || !cmp.Equal(with.Released(), []string{"v1"}) {
		t.Errorf("released: without the capability %v, with it %v", without.Released(), with.Released())
	}
}

func checkError(t *testing.T, err error, want *rpc.Error) {
	t.Helper()
	got, ok := errors.AsType[*rpc.Error](err)
	if !ok {
		t.Fatalf("got %v, want an *rpc.Error", err)
	}
	if got.Reason != want.Reason || status.Code(got) != want.Code || got.RetryAfter != want.RetryAfter {
		t.Errorf("got reason %s, code %s, retry after %s; want %s, %s, %s",
			got.Reason, status.Code(got), got.RetryAfter, want.Reason, want.Code, want.RetryAfter)
	}
	if diff := cmp.Diff(want.Message, got.Message); diff != "" {
		t.Errorf("message (-want +got):\n%s", diff)
	}
}

func TestNative_Failures(t *testing.T) {
	t.Parallel()
	withReason := func(code codes.Code, reason string) error {
		s, err := status.New(code, "boom").WithDetails(&errdetails.ErrorInfo{Domain: "postern", Reason: reason})
		if err != nil {
			t.Fatal(err)
		}
		return s.Err()
	}
	tests := []struct {
		name string
		err  error
		want *rpc.Error
	}{
		{"reason", withReason(codes.PermissionDenied, "ACCESS_DENIED"), &rpc.Error{Reason: "ACCESS_DENIED", Code: codes.PermissionDenied, Message: "boom"}},
		{"reason unknown here", withReason(codes.Aborted, "NEW"), &rpc.Error{Reason: "NEW", Code: codes.Aborted, Message: "boom"}},
		{"reason that is the gateway's", withReason(codes.Unavailable, "PROVIDER_UNAVAILABLE"), &rpc.Error{Reason: "STORE_UNAVAILABLE", Code: codes.Unavailable, Message: "boom"}},
		{"NotFound", status.Error(codes.NotFound, "boom"), &rpc.Error{Reason: "OBJECT_NOT_FOUND", Code: codes.NotFound, Message: "boom"}},
		{"PermissionDenied", status.Error(codes.PermissionDenied, "boom"), &rpc.Error{Reason: "ACCESS_DENIED", Code: codes.PermissionDenied, Message: "boom"}},
		{"Unauthenticated", status.Error(codes.Unauthenticated, "boom"), &rpc.Error{Reason: "LOGIN_FAILED", Code: codes.Unauthenticated, Message: "boom"}},
		{"InvalidArgument", status.Error(codes.InvalidArgument, "boom"), &rpc.Error{Reason: "INVALID_PARAMETERS", Code: codes.InvalidArgument, Message: "boom"}},
		{"ResourceExhausted", status.Error(codes.ResourceExhausted, "boom"), &rpc.Error{Reason: "RATE_LIMITED", Code: codes.ResourceExhausted, Message: "boom"}},
		{"Unavailable", status.Error(codes.Unavailable, "boom"), &rpc.Error{Reason: "STORE_UNAVAILABLE", Code: codes.Unavailable, Message: "boom"}},
		{"DeadlineExceeded", status.Error(codes.DeadlineExceeded, "boom"), &rpc.Error{Reason: "DEADLINE_EXCEEDED", Code: codes.DeadlineExceeded, Message: "boom"}},
		{"Unknown", errors.New("boom"), &rpc.Error{Reason: "INTERNAL", Code: codes.Internal, Message: "boom"}},
		{"no text", status.Error(codes.Internal, ""), &rpc.Error{Reason: "INTERNAL", Code: codes.Internal, Message: "the provider failed with Internal and no message: see its log"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := &providertest.Native{OnFetch: func(context.Context, *providerv1.FetchRequest) (*providerv1.FetchResponse, error) {
				return nil, tt.err
			}}
			_, err := native(t, p).Fetch(t.Context(), providertest.Request("vault"))
			checkError(t, err, tt.want)
			if n := len(p.Requests()); n != 1 {
				t.Errorf("the provider was called %d times, want once", n)
			}
		})
	}
}

func TestNative_AnswerOverTheConnectionsLimit(t *testing.T) {
	t.Parallel()
	p := &providertest.Native{OnFetch: func(context.Context, *providerv1.FetchRequest) (*providerv1.FetchResponse, error) {
		return providertest.Answer(strings.Repeat("x", 2000)), nil
	}}
	_, err := native(t, p).Fetch(t.Context(), providertest.Request("vault"))
	checkError(t, err, &rpc.Error{
		Reason: "RESPONSE_TOO_LARGE", Code: codes.Internal,
		Message: "the answer is larger than the gateway accepts: fetch fewer or smaller objects, or raise --max-response-bytes",
	})
}

// What a call's end means depends on how far the call came.
func TestNative_ConnectionFailures(t *testing.T) {
	t.Parallel()
	entered := make(chan struct{}, 1)
	p := &providertest.Native{OnFetch: func(ctx context.Context, _ *providerv1.FetchRequest) (*providerv1.FetchResponse, error) {
		entered <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	conn, server := start(t, p)
	n := provider.NewNative(conn)

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := n.Fetch(ctx, providertest.Request("vault"))
	checkError(t, err, &rpc.Error{
		Reason: "DEADLINE_EXCEEDED", Code: codes.DeadlineExceeded,
		Message: "the provider did not answer before the call's deadline: check its log and whether its store answers",
	})
	<-entered

	ctx, cancel = context.WithCancel(t.Context())
	go func() {
		<-entered
		cancel()
	}()
	if _, err := n.Fetch(ctx, providertest.Request("vault")); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that the call was cancelled", err)
	}

	go func() {
		<-entered
		server.Crash()
	}()
	_, err = n.Fetch(t.Context(), providertest.Request("vault"))
	checkError(t, err, &rpc.Error{
		Reason: "PROVIDER_UNAVAILABLE", Code: codes.Unavailable,
		Message: "the connection broke during the call, so the provider ended or crashed; " +
			"the call is not made again by itself because the provider may have issued credentials for it: see its log",
	})

	_, err = n.Fetch(t.Context(), providertest.Request("vault"))
	if _, ok := errors.AsType[*provider.NotSentError](err); !ok {
		t.Errorf("got %v, want a NotSentError", err)
	}
}

func TestValidName(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"vault": true, "my_provider-2": true, strings.Repeat("x", 30): true,
		"": false, "a/b": false, "..": false, "a.b": false, strings.Repeat("x", 31): false, "é": false, "a\n": false,
	} {
		if got := provider.ValidName(name); got != want {
			t.Errorf("%q: got %t, want %t", name, got, want)
		}
	}
}
