package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/postern-dev/postern/release/images"
	"github.com/postern-dev/postern/test/build"
)

// Names of the images that every cluster has.
const (
	pauseImage   = "registry.k8s.io/pause:3.10.1"
	coreDNSImage = "registry.k8s.io/coredns/coredns:v1.13.1"
	// BusyboxImage has a shell and the usual programs. (Debian's "wget -T" ends
	// with a segmentation fault, wherever it runs: leave out -T.)
	BusyboxImage = "local/busybox:1"
	// RegistrarImage and LivenessProbeImage are small stand-ins for what their
	// names say, with the same arguments.
	RegistrarImage     = "registry.k8s.io/sig-storage/csi-node-driver-registrar:v2.16.0"
	LivenessProbeImage = "registry.k8s.io/sig-storage/livenessprobe:v2.18.0"
)

// programs are the paths of what a cluster is made of.
type programs struct {
	kube, coredns, busybox string
	// tree is the directory of those built from this tree.
	tree string
}

func buildPrograms(ctx context.Context, b *build.Builder) (programs, error) {
	var p programs
	var err error
	if p.kube, err = b.Server(ctx, build.Kube()); err != nil {
		return programs{}, err
	}
	if p.coredns, err = b.Server(ctx, build.Coredns()); err != nil {
		return programs{}, err
	}
	if p.busybox, err = findBusybox(); err != nil {
		return programs{}, err
	}
	p.tree, err = b.Programs(ctx, "cluster",
		"./test/cluster/cmd/"+initName, "./test/cluster/standins/pause",
		"./test/cluster/standins/csi-node-driver-registrar", "./test/cluster/standins/livenessprobe")
	return p, err
}

// install puts the node's programs into the cluster's directory: the cluster is
// to go on when others are built.
func (p programs) install(l layout) error {
	contents, err := os.ReadFile(filepath.Join(p.tree, initName))
	if err != nil {
		return fmt.Errorf("read the program of process 1: %w", err)
	}
	if err := os.WriteFile(l.program(initName), contents, 0o700); err != nil {
		return fmt.Errorf("install the program of process 1: %w", err)
	}
	for _, name := range components() {
		if err := os.Symlink(p.kube, l.program(name)); err != nil {
			return fmt.Errorf("install %s: %w", name, err)
		}
	}
	return nil
}

// images writes the tarballs of the images that every cluster has into dir.
func (p programs) images(dir string) ([]string, error) {
	applets, err := applets(p.busybox)
	if err != nil {
		return nil, err
	}
	var tarballs []string
	for _, i := range []struct {
		name, program, path string
		user                string
		links               map[string]string
	}{
		{name: pauseImage, program: filepath.Join(p.tree, "pause"), path: "/pause", user: "65535:65535"},
		{name: coreDNSImage, program: p.coredns, path: "/coredns", user: "65532:65532"},
		{name: BusyboxImage, program: p.busybox, path: "/bin/busybox", links: applets},
		{name: RegistrarImage, program: filepath.Join(p.tree, "csi-node-driver-registrar"), path: "/csi-node-driver-registrar"},
		{name: LivenessProbeImage, program: filepath.Join(p.tree, "livenessprobe"), path: "/livenessprobe"},
	} {
		image := images.Image{
			Platform: "linux/" + runtime.GOARCH,
			Layers: []images.Layer{{
				Files: []images.File{
					{Path: i.path, Source: i.program, Mode: 0o755},
					{Path: "/tmp", Mode: fs.ModeDir | fs.ModeSticky | 0o777},
					{Path: "/etc", Mode: fs.ModeDir | 0o755},
				},
				Links: i.links,
				Fast:  true,
			}},
			User: i.user,
			Env:  []string{"PATH=" + systemPath},
		}
		if i.name != BusyboxImage {
			image.Entrypoint = []string{i.path}
		}
		tarball := filepath.Join(dir, filepath.Base(i.path)+".tar")
		if _, err := (images.Archive{Names: []string{i.name}, Images: []images.Image{image}}).Write(tarball); err != nil {
			return nil, err
		}
		tarballs = append(tarballs, tarball)
	}
	return tarballs, nil
}

// applets returns a link to busybox for each program that it is.
func applets(busybox string) (map[string]string, error) {
	output, err := exec.Command(busybox, "--list").Output() //nolint:noctx // it prints and ends
	if err != nil {
		return nil, fmt.Errorf("ask busybox what it can do: %w", err)
	}
	links := map[string]string{}
	for name := range strings.FieldsSeq(string(bytes.TrimSpace(output))) {
		if name != "busybox" {
			links["/bin/"+name] = "busybox"
		}
	}
	if len(links) == 0 {
		return nil, errors.New("busybox --list names no program")
	}
	return links, nil
}
