package identity

import (
	"context"
	"net"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/emptypb"
)

// secured is a connection's protection.
type secured struct{ credentials.CommonAuthInfo }

func (secured) AuthType() string { return "test" }

// TestPerRPC: a token goes by connections with TLS alone.
func TestPerRPC(t *testing.T) {
	t.Parallel()
	given := acquire(t, manager(googles(), nil), of(WorkloadIdentity, "a")).PerRPC()
	if !given.RequireTransportSecurity() {
		t.Error("connections need no TLS")
	}
	for level, want := range map[credentials.SecurityLevel]map[string]string{
		credentials.NoSecurity: nil, credentials.IntegrityOnly: nil,
		credentials.PrivacyAndIntegrity: {"authorization": "Bearer " + accessToken(1)},
	} {
		ctx := credentials.NewContextWithRequestInfo(t.Context(), credentials.RequestInfo{
			AuthInfo: secured{credentials.CommonAuthInfo{SecurityLevel: level}},
		})
		got, err := given.GetRequestMetadata(ctx, "https://secretmanager.googleapis.com/x")
		if diff := cmp.Diff(want, got); diff != "" || (err == nil) != (want != nil) {
			t.Errorf("%v: error %v, metadata (-want +got):\n%s", level, err, diff)
		}
		if err != nil {
			noCanary(t, err)
		}
	}
}

// TestPerRPCInPlaintext: nothing leaves by a connection without TLS.
func TestPerRPCInPlaintext(t *testing.T) {
	t.Parallel()
	listener := bufconn.Listen(1 << 16)
	server := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		sent, _ := metadata.FromIncomingContext(stream.Context())
		t.Errorf("the call came through, with %d authorizations", len(sent.Get("authorization")))
		return nil
	}))
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
	defer serving.Wait()
	defer server.Stop()
	conn, err := grpc.NewClient("passthrough:///test", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	token := acquire(t, manager(googles(), nil), of(WorkloadIdentity, "a"))
	err = conn.Invoke(t.Context(), "/x/y", &emptypb.Empty{}, &emptypb.Empty{}, grpc.PerRPCCredentials(token.PerRPC()))
	if status.Code(err) != codes.Unauthenticated {
		t.Errorf("error %v", err)
	}
	noCanary(t, err)
}
