// Package kubelet does to the driver what kubelet does: it calls the CSI socket
// with the requests, directories and volume ids that kubelet would use for a
// pod's inline volume.
package kubelet

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// Timeout is the deadline that kubelet gives a call.
const Timeout = 2 * time.Minute

// TokensKey is where kubelet puts a pod's tokens: into the volume context or,
// with CSIDriver serviceAccountTokenInSecrets, into the secrets.
const TokensKey = "csi.storage.k8s.io/serviceAccount.tokens"

// Volume is one inline volume of a pod.
type Volume struct {
	Namespace, Pod, UID, ServiceAccount string
	// Name of the volume in the pod.
	Name string
	// SecretProviderClass is the volumeAttribute of that name.
	SecretProviderClass string
	// Tokens is the JSON of the pod's tokens; "" for none.
	Tokens string
	// TokensInSecrets sends them in the request's secrets.
	TokensInSecrets bool
	// FSGroup of the pod; "" for none.
	FSGroup string
}

// Kubelet is a client of one driver.
type Kubelet struct {
	csi.NodeClient
	csi.IdentityClient

	root string
	conn *grpc.ClientConn
}

// New returns a client of the driver's socket. Root is the directory that stands
// for /var/lib/kubelet.
func New(socket, root string) (*Kubelet, error) {
	conn, err := grpc.NewClient("unix:"+socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()), // a unix socket, as kubelet does
		grpc.WithDefaultCallOptions(grpc.WaitForReady(false)))
	if err != nil {
		return nil, fmt.Errorf("dial the driver: %w", err)
	}
	return &Kubelet{NodeClient: csi.NewNodeClient(conn), IdentityClient: csi.NewIdentityClient(conn), root: root, conn: conn}, nil
}

// Close closes the connection.
func (k *Kubelet) Close() error { return k.conn.Close() }

// Connect makes the connection now instead of at the end of its back-off, after
// the driver was restarted.
func (k *Kubelet) Connect() {
	k.conn.ResetConnectBackoff()
	k.conn.Connect()
}

// VolumeID is the id that kubelet gives the volume.
func VolumeID(v Volume) string {
	sum := sha256.Sum256([]byte(v.UID + v.Name))
	return "csi-" + hex.EncodeToString(sum[:])
}

// Target is the path at which the volume is published.
func (k *Kubelet) Target(v Volume) string {
	return filepath.Join(k.root, "pods", v.UID, "volumes/kubernetes.io~csi", v.Name, "mount")
}

// Request returns the request that Publish sends.
func (k *Kubelet) Request(v Volume) *csi.NodePublishVolumeRequest {
	req := &csi.NodePublishVolumeRequest{
		VolumeId:   VolumeID(v),
		TargetPath: k.Target(v),
		Readonly:   true,
		VolumeCapability: &csi.VolumeCapability{
			AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{VolumeMountGroup: v.FSGroup}},
			AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
		},
		VolumeContext: map[string]string{
			"secretProviderClass":                    v.SecretProviderClass,
			"csi.storage.k8s.io/pod.name":            v.Pod,
			"csi.storage.k8s.io/pod.namespace":       v.Namespace,
			"csi.storage.k8s.io/pod.uid":             v.UID,
			"csi.storage.k8s.io/serviceAccount.name": v.ServiceAccount,
			"csi.storage.k8s.io/ephemeral":           "true",
		},
	}
	switch {
	case v.Tokens == "":
	case v.TokensInSecrets:
		req.Secrets = map[string]string{TokensKey: v.Tokens}
	default:
		req.VolumeContext[TokensKey] = v.Tokens
	}
	return req
}

// Publish publishes the volume: it makes the directory above the target, calls
// the driver and, where the answer is a final error, removes the target unless
// something is mounted there.
func (k *Kubelet) Publish(ctx context.Context, v Volume) error {
	return k.PublishRequest(ctx, k.Request(v))
}

// PublishRequest is Publish with a request of the caller's.
func (k *Kubelet) PublishRequest(ctx context.Context, req *csi.NodePublishVolumeRequest) error {
	parent := filepath.Dir(req.GetTargetPath())
	if req.GetTargetPath() != "" {
		if err := os.MkdirAll(parent, 0o750); err != nil {
			return fmt.Errorf("make the volume's directory: %w", err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	_, err := k.NodePublishVolume(ctx, req)
	if err != nil && final(err) && req.GetTargetPath() != "" {
		return errors.Join(err, k.removeMountDir(req.GetTargetPath()))
	}
	return err
}

// final tells whether kubelet takes an error for the call's end, rather than
// for "it may still be under way".
func final(err error) bool {
	return !slices.Contains([]codes.Code{
		codes.Canceled, codes.DeadlineExceeded, codes.Unavailable, codes.ResourceExhausted, codes.Aborted,
	}, status.Code(err))
}

// Unpublish unpublishes the volume and removes what kubelet made for it.
func (k *Kubelet) Unpublish(ctx context.Context, v Volume) error {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	target := k.Target(v)
	if _, err := k.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: VolumeID(v), TargetPath: target}); err != nil {
		return err
	}
	if err := k.removeMountDir(target); err != nil {
		return err
	}
	// The pod's directory goes with its last volume.
	for dir := filepath.Dir(target); dir != filepath.Join(k.root, "pods"); dir = filepath.Dir(dir) {
		err := os.Remove(dir)
		if errors.Is(err, syscall.ENOTEMPTY) {
			return nil
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove the volume's directory: %w", err)
		}
	}
	return nil
}

// removeMountDir removes the target unless it is a mount point.
func (k *Kubelet) removeMountDir(target string) error {
	mounts, err := Mounts(target)
	if err != nil || slices.ContainsFunc(mounts, func(m Mount) bool { return m.Path == target }) {
		return err
	}
	for _, path := range []string{target, filepath.Dir(target)} {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ENOTEMPTY) {
			return fmt.Errorf("remove %s: %w", path, err)
		}
	}
	return nil
}

// Files reads every file of a published volume by its path in the volume, as an
// application would that wants files of one refresh: through the links, and once
// more if the volume's content was exchanged meanwhile.
func (k *Kubelet) Files(v Volume) (map[string]File, error) {
	data := filepath.Join(k.Target(v), "..data")
	for {
		before, _ := os.Readlink(data) // where there is none, nothing is exchanged
		files, err := k.read(v)
		if after, _ := os.Readlink(data); after == before {
			return files, err
		}
	}
}

func (k *Kubelet) read(v Volume) (map[string]File, error) {
	target := k.Target(v)
	files := map[string]File{}
	entries, err := os.ReadDir(target)
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		if len(entry.Name()) > 1 && entry.Name()[:2] == ".." {
			continue // the atomic writer's own
		}
		below, err := readTree(target, entry.Name())
		if err != nil {
			return nil, err
		}
		maps.Copy(files, below)
	}
	return files, nil
}

// File is a file as the application sees it.
type File struct {
	Mode     os.FileMode
	UID, GID uint32
	Contents string
}

func readTree(root, name string) (map[string]File, error) {
	path := filepath.Join(root, name)
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		contents, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		file := File{Mode: info.Mode(), Contents: string(contents)}
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			file.UID, file.GID = stat.Uid, stat.Gid
		}
		return map[string]File{name: file}, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	files := map[string]File{}
	for _, entry := range entries {
		below, err := readTree(root, filepath.Join(name, entry.Name()))
		if err != nil {
			return nil, err
		}
		maps.Copy(files, below)
	}
	return files, nil
}
