package kubelet_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/postern-dev/postern/test/kubelet"
)

// driver is a CSI driver that makes the target's directory and answers as told.
type driver struct {
	csi.UnimplementedNodeServer

	code     codes.Code
	requests []*csi.NodePublishVolumeRequest
}

func (d *driver) NodePublishVolume(_ context.Context, r *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	d.requests = append(d.requests, r)
	if err := os.Mkdir(r.GetTargetPath(), 0o750); err != nil {
		return nil, err
	}
	return &csi.NodePublishVolumeResponse{}, status.Error(d.code, "as told")
}

func (d *driver) NodeUnpublishVolume(context.Context, *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	return &csi.NodeUnpublishVolumeResponse{}, nil
}

func TestPublishKeepsTheTargetAsKubeletDoes(t *testing.T) {
	t.Parallel()
	for code, wantKept := range map[codes.Code]bool{
		codes.OK:                true,
		codes.Unavailable:       true, // it may still be under way
		codes.DeadlineExceeded:  true,
		codes.Canceled:          true,
		codes.ResourceExhausted: true,
		codes.Aborted:           true,
		codes.Unknown:           false,
		codes.InvalidArgument:   false,
		codes.Internal:          false,
	} {
		t.Run(code.String(), func(t *testing.T) {
			t.Parallel()
			k, root := start(t, &driver{code: code})
			v := volume()
			if got := status.Code(k.Publish(t.Context(), v)); got != code {
				t.Errorf("Publish() = %s, want %s", got, code)
			}
			if _, err := os.Stat(k.Target(v)); (err == nil) != wantKept {
				t.Errorf("the target after %s: %v, want it kept: %t", code, err, wantKept)
			}
			if err := k.Unpublish(t.Context(), v); err != nil {
				t.Fatal(err)
			}
			if left, err := os.ReadDir(filepath.Join(root, "pods")); err != nil || len(left) != 0 {
				t.Errorf("left after Unpublish: %v, %v", left, err)
			}
		})
	}
}

func TestRequestIsKubelets(t *testing.T) {
	t.Parallel()
	fake := &driver{}
	k, root := start(t, fake)
	v := volume()
	v.Tokens, v.FSGroup = `{"vault":{}}`, "2000"
	if err := k.Publish(t.Context(), v); err != nil {
		t.Fatal(err)
	}
	want := &csi.NodePublishVolumeRequest{
		VolumeId:   kubelet.VolumeID(v),
		TargetPath: filepath.Join(root, "pods/uid-1/volumes/kubernetes.io~csi/secrets/mount"),
		Readonly:   true,
		VolumeCapability: &csi.VolumeCapability{
			AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
			AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{VolumeMountGroup: "2000"}},
		},
		VolumeContext: map[string]string{
			"csi.storage.k8s.io/ephemeral": "true", "csi.storage.k8s.io/pod.name": "web-0",
			"csi.storage.k8s.io/pod.namespace": "shop", "csi.storage.k8s.io/pod.uid": "uid-1",
			"csi.storage.k8s.io/serviceAccount.name": "web", "secretProviderClass": "app",
			kubelet.TokensKey: `{"vault":{}}`,
		},
	}
	if diff := cmp.Diff(want, fake.requests[0], protocmp.Transform()); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
	v.TokensInSecrets = true
	req := k.Request(v)
	if _, ok := req.GetVolumeContext()[kubelet.TokensKey]; ok || req.GetSecrets()[kubelet.TokensKey] != v.Tokens {
		t.Error("with TokensInSecrets the tokens must be in the secrets alone")
	}
}

func TestFilesFollowsLinksAndLeavesOutTheWritersOwn(t *testing.T) {
	t.Parallel()
	k, _ := start(t, &driver{})
	v := volume()
	target := k.Target(v)
	for name, contents := range map[string]string{"..rev1/user": "bob", "..rev1/tls/key": "k"} {
		path := filepath.Join(target, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(contents), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"..data": "..rev1", "user": "..data/user", "tls": "..data/tls"} {
		if err := os.Symlink(to, filepath.Join(target, link)); err != nil {
			t.Fatal(err)
		}
	}
	files, err := k.Files(v)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for name, file := range files {
		got[name] = file.Contents
	}
	if diff := cmp.Diff(map[string]string{"user": "bob", "tls/key": "k"}, got); diff != "" {
		t.Errorf("Files() (-want +got):\n%s", diff)
	}
}

// While the content is exchanged, what is read is still of one time.
func TestFilesAreOfOneTime(t *testing.T) {
	t.Parallel()
	k, _ := start(t, &driver{})
	v := volume()
	target := k.Target(v)
	exchange := func(revision int) {
		dir := fmt.Sprintf("..rev%d", revision)
		for _, name := range []string{"user", "tls/key"} {
			path := filepath.Join(target, dir, name)
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o750), os.WriteFile(path, []byte(dir), 0o600)); err != nil {
				t.Error(err)
			}
		}
		link := filepath.Join(target, "..data")
		if err := errors.Join(os.Symlink(dir, link+"_tmp"), os.Rename(link+"_tmp", link)); err != nil {
			t.Error(err)
		}
		if err := os.RemoveAll(filepath.Join(target, fmt.Sprintf("..rev%d", revision-1))); err != nil {
			t.Error(err)
		}
	}
	exchange(0)
	for link, to := range map[string]string{"user": "..data/user", "tls": "..data/tls"} {
		if err := os.Symlink(to, filepath.Join(target, link)); err != nil {
			t.Fatal(err)
		}
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		for revision := range 200 {
			exchange(revision + 1)
		}
	}()
	for reading := true; reading; {
		select {
		case <-over:
			reading = false
		default:
		}
		files, err := k.Files(v)
		if err != nil || len(files) != 2 || files["user"].Contents != files["tls/key"].Contents {
			t.Fatalf("files %v (%v) are of two times", files, err)
		}
	}
}

func volume() kubelet.Volume {
	return kubelet.Volume{
		Namespace: "shop", Pod: "web-0", UID: "uid-1", ServiceAccount: "web", Name: "secrets", SecretProviderClass: "app",
	}
}

func start(t *testing.T, d *driver) (k *kubelet.Kubelet, root string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "kubelet-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "csi.sock")
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	csi.RegisterNodeServer(server, d)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	k, err = kubelet.New(socket, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = k.Close()
		server.Stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return k, dir
}
