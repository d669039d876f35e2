package sdk_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/postern-dev/postern/internal/rpc"
	v1alpha1 "github.com/postern-dev/postern/proto/gen/go/compat/v1alpha1"
	providerv1 "github.com/postern-dev/postern/proto/gen/go/postern/provider/v1"
	secretv1 "github.com/postern-dev/postern/proto/gen/go/postern/secret/v1"
	"github.com/postern-dev/postern/providers/sdk"
)

func TestDescribe(t *testing.T) {
	t.Parallel()
	def := definition(answering(oneFile()))
	def.Audiences = []sdk.Audience{{Value: "a"}, {Parameter: "p", ParameterDefault: "d", Optional: true}}
	def.Parameters = []sdk.Parameter{{Name: "p", Description: "The audience.", Required: true, LocatesStore: true}}
	def.ServiceAccountAnnotations = []string{"example.com/role"}
	def.NodeLabels = []string{"topology.kubernetes.io/region"}
	r := start(t, shortDir(t), def)
	got, err := r.provider.Describe(t.Context(), &providerv1.DescribeRequest{})
	if err != nil {
		t.Fatal(err)
	}
	want := &providerv1.DescribeResponse{
		Names: []string{"scripted"}, Version: "1.2.3",
		Audiences: []*providerv1.Audience{
			{Source: &providerv1.Audience_Value{Value: "a"}},
			{Source: &providerv1.Audience_Parameter{Parameter: "p"}, ParameterDefault: "d", Optional: true},
		},
		Parameters:                []*providerv1.Parameter{{Name: "p", Description: "The audience.", Required: true, LocatesStore: true}},
		ServiceAccountAnnotations: []string{"example.com/role"},
		NodeLabels:                []string{"topology.kubernetes.io/region"},
		Capabilities: []providerv1.Capability{
			providerv1.Capability_CAPABILITY_RELEASE, providerv1.Capability_CAPABILITY_NOT_MODIFIED,
			providerv1.Capability_CAPABILITY_LEASES,
		},
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("Describe (-want +got):\n%s", diff)
	}
}

func TestFetch_Converts(t *testing.T) {
	t.Parallel()
	var seen *sdk.Request
	p := &scripted{fetch: func(_ context.Context, req *sdk.Request) (*sdk.Response, error) {
		seen = req
		resp := oneFile()
		resp.Files = append(resp.Files, sdk.File{Path: "g", Mode: 0o400, Contents: sdk.NewSecret(nil)})
		resp.Sharing, resp.FreshFor, resp.RefreshAfter = sdk.SharingServiceAccount, time.Second, time.Hour
		resp.Leases = []sdk.Lease{{ObjectID: "o", Duration: time.Minute, Renewable: true}}
		return resp, nil
	}}
	def := definition(p)
	def.Audiences = []sdk.Audience{{Value: "a"}}
	r := start(t, shortDir(t), def)
	in := fetchRequest()
	in.Pod.ServiceAccount.Annotations = map[string]string{"role": "r"}
	in.Node = &secretv1.Node{Name: "n", Labels: map[string]string{"region": "x"}}
	in.Parameters = map[string]string{"p": "v"}
	in.Tokens = []*secretv1.Token{{Audience: "a", Token: "token"}, {Audience: "b", Token: "not for it"}}
	in.Secrets = map[string]string{"k": "s"}
	in.CurrentObjects = []*secretv1.ObjectVersion{{Id: "o", Version: "0"}}
	got, err := r.provider.Fetch(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	want := &providerv1.FetchResponse{
		Files: []*secretv1.File{
			{Path: "f", Mode: 0o640, Contents: []byte("content")}, {Path: "g", Mode: 0o400},
		},
		Objects:  []*secretv1.ObjectVersion{{Id: "o", Version: "1"}},
		Sharing:  secretv1.Sharing_SHARING_SERVICE_ACCOUNT,
		FreshFor: durationpb.New(time.Second), RefreshAfter: durationpb.New(time.Hour),
		Leases: []*secretv1.Lease{{ObjectId: "o", Duration: durationpb.New(time.Minute), Renewable: true}},
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("response (-want +got):\n%s", diff)
	}
	wantRequest := &sdk.Request{
		VolumeID: "volume", SecretProviderClass: "class", DefaultFileMode: 0o640,
		Pod: sdk.Pod{Namespace: "ns", Name: "pod", UID: "uid", ServiceAccount: sdk.ServiceAccount{
			Name: "sa", Annotations: map[string]string{"role": "r"},
		}},
		Node:           sdk.Node{Name: "n", Labels: map[string]string{"region": "x"}},
		Parameters:     sdk.Parameters{"p": "v"},
		Tokens:         sdk.Tokens{{Audience: "a", Token: sdk.NewSecretString("token")}},
		Secrets:        map[string]sdk.SecretString{"k": sdk.NewSecretString("s")},
		CurrentObjects: []sdk.ObjectVersion{{ID: "o", Version: "0"}},
	}
	if diff := cmp.Diff(wantRequest, seen, cmp.Comparer(func(a, b sdk.SecretString) bool { return a == b })); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
}

// A provider that says nothing has its answer given once, to the pod itself.
func TestFetch_SafeByDefault(t *testing.T) {
	t.Parallel()
	r := start(t, shortDir(t), definition(answering(oneFile())))
	got, err := r.provider.Fetch(t.Context(), fetchRequest())
	if err != nil {
		t.Fatal(err)
	}
	if got.GetSharing() != secretv1.Sharing_SHARING_UNSPECIFIED || got.FreshFor != nil || got.RefreshAfter != nil {
		t.Errorf("sharing %s, fresh for %v, refresh after %v", got.GetSharing(), got.GetFreshFor(), got.GetRefreshAfter())
	}
}

// What a provider says of a volume comes back to it as it is.
func TestFetch_State(t *testing.T) {
	t.Parallel()
	var seen string
	r := start(t, shortDir(t), definition(&scripted{fetch: func(_ context.Context, req *sdk.Request) (*sdk.Response, error) {
		seen = string(req.State.Reveal())
		resp := oneFile()
		resp.State = sdk.NewSecret([]byte(seen + "+"))
		return resp, nil
	}}))
	in := fetchRequest()
	for _, want := range []string{"+", "++"} {
		got, err := r.provider.Fetch(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		if in.State = got.GetState(); string(in.State) != want {
			t.Errorf("state %q, want %q", in.State, want)
		}
	}
	if seen != "+" {
		t.Errorf("the provider was given %q", seen)
	}
}

func TestFetch_NotModified(t *testing.T) {
	t.Parallel()
	r := start(t, shortDir(t), definition(answering(&sdk.Response{NotModified: true})))
	in := fetchRequest()
	in.CurrentObjects = []*secretv1.ObjectVersion{{Id: "o", Version: "1"}}
	got, err := r.provider.Fetch(t.Context(), in)
	if err != nil || !proto.Equal(got, &providerv1.FetchResponse{NotModified: true}) {
		t.Errorf("Fetch() = %v, %v", got, err)
	}
}

func TestFetch_Fails(t *testing.T) {
	t.Parallel()
	const canary = "canary-0123456789"
	for _, tt := range []struct {
		name   string
		fetch  func(context.Context, *sdk.Request) (*sdk.Response, error)
		reason string
		code   codes.Code
		text   string
	}{
		{"typed", func(context.Context, *sdk.Request) (*sdk.Response, error) {
			return nil, sdk.RateLimited("o", 3*time.Second, "slow down")
		}, rpc.ReasonRateLimited, codes.ResourceExhausted, `object "o": slow down`},
		{"untyped", func(context.Context, *sdk.Request) (*sdk.Response, error) {
			return nil, errors.New(canary)
		}, rpc.ReasonInternal, codes.Internal, "does not explain (*errors.errorString)"},
		{"panic", func(context.Context, *sdk.Request) (*sdk.Response, error) {
			panic(canary)
		}, rpc.ReasonInternal, codes.Internal, "panicked"},
		{"nothing", func(context.Context, *sdk.Request) (*sdk.Response, error) {
			return nil, nil //nolint:nilnil // the defect under test
		}, rpc.ReasonInvalidResponse, codes.Internal, "no answer and no error"},
		{"bad path", func(context.Context, *sdk.Request) (*sdk.Response, error) {
			resp := oneFile()
			resp.Files[0].Path = "../f"
			return resp, nil
		}, rpc.ReasonInvalidResponse, codes.Internal, `starts with ".."`},
		{"shared state", func(context.Context, *sdk.Request) (*sdk.Response, error) {
			resp := oneFile()
			resp.Sharing, resp.State = sdk.SharingServiceAccount, sdk.NewSecret([]byte("state"))
			return resp, nil
		}, rpc.ReasonInvalidResponse, codes.Internal, "cannot be shared"},
		{"too much state", func(context.Context, *sdk.Request) (*sdk.Response, error) {
			resp := oneFile()
			resp.Sharing, resp.State = sdk.SharingPod, sdk.NewSecret(make([]byte, sdk.MaxStateBytes+1))
			return resp, nil
		}, rpc.ReasonInvalidResponse, codes.Internal, "the state takes 16385 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := start(t, shortDir(t), definition(&scripted{fetch: tt.fetch}), "--log-level=debug")
			_, err := r.provider.Fetch(t.Context(), fetchRequest())
			got := rpc.FromError(err)
			if got == nil || got.Reason != tt.reason || status.Code(err) != tt.code || !strings.Contains(got.Message, tt.text) {
				t.Errorf("Fetch() = %v, want %s, %s, %q", err, tt.code, tt.reason, tt.text)
			}
			if tt.name == "typed" && got.RetryAfter != 3*time.Second {
				t.Errorf("retry after %s", got.RetryAfter)
			}
			if _, err := r.upstream.Mount(t.Context(), &v1alpha1.MountRequest{
				Attributes: `{"csi.storage.k8s.io/pod.name":"p","csi.storage.k8s.io/pod.namespace":"n",` +
					`"csi.storage.k8s.io/pod.uid":"u","csi.storage.k8s.io/serviceAccount.name":"s"}`,
				Secrets: "null", Permission: "420", TargetPath: "/t",
			}); status.Code(err) != tt.code {
				t.Errorf("Mount() = %v, want %s", err, tt.code)
			}
			r.stop()
			if err := <-r.done; err != nil {
				t.Errorf("Run() = %v", err)
			}
			if strings.Contains(r.logs.String(), canary) || strings.Contains(err.Error(), canary) {
				t.Errorf("the text of an unknown error has come out: %v\n%s", err, r.logs.String())
			}
		})
	}
}

func TestRelease(t *testing.T) {
	t.Parallel()
	p := answering(oneFile())
	p.released = make(chan string, 1)
	r := start(t, shortDir(t), definition(p))
	if _, err := r.provider.Release(t.Context(), &providerv1.ReleaseRequest{VolumeId: "v"}); err != nil {
		t.Fatal(err)
	}
	if id := <-p.released; id != "v" {
		t.Errorf("released %q", id)
	}
	_, err := r.provider.Release(t.Context(), &providerv1.ReleaseRequest{})
	if got := rpc.FromError(err); got == nil || got.Reason != rpc.ReasonInvalidParameters {
		t.Errorf("Release() of no volume = %v", err)
	}
}
