package build

import (
	"fmt"
	"path/filepath"
	"slices"
)

// Server is a third-party server that is built from a Go module of its own,
// outside the workspace, so that its dependencies never meet the project's.
type Server struct {
	// Name is the binary's.
	Name string
	// What it is, for the progress lines.
	What string
	// Module is the module's directory, relative to the repository's root.
	Module string
	// Package to build in it.
	Package string
	// LDFlags of the linker.
	LDFlags string
	// Cold says how long a first build takes.
	Cold string
}

// Kube is etcd, kube-apiserver and their companions in one binary, told apart
// by the first argument.
func Kube() Server {
	const version = "k8s.io/component-base/version"
	return Server{
		Name:    "kube",
		What:    "etcd and the Kubernetes components in one binary",
		Module:  "test/servers/kube",
		Package: ".",
		LDFlags: "-s -w" +
			" -X " + version + ".gitVersion=v1.35.4" +
			" -X " + version + ".gitMajor=1" +
			" -X " + version + ".gitMinor=35" +
			" -X " + version + ".gitTreeState=clean",
		Cold: "about 6 minutes on two cores, and downloads 900 MB of modules",
	}
}

// Bao is OpenBao, which serves Vault's API.
func Bao() Server {
	return Server{
		Name:    "bao",
		What:    "OpenBao, which serves Vault's API",
		Module:  "test/servers/openbao",
		Package: "github.com/openbao/openbao",
		LDFlags: "-s -w -X github.com/openbao/openbao/version.fullVersion=2.4.0",
		Cold:    "about 3 minutes on two cores, and the linker takes 2 GB of memory",
	}
}

// Minio is MinIO, which trades a pod's token for credentials as AWS' STS does.
func Minio() Server {
	const cmd = "github.com/minio/minio/cmd"
	return Server{
		Name:    "minio",
		What:    "MinIO, which serves AWS' STS",
		Module:  "test/servers/minio",
		Package: "github.com/minio/minio",
		LDFlags: "-s -w" +
			" -X " + cmd + ".Version=2026-02-12T20:18:48Z" +
			" -X " + cmd + ".ReleaseTag=DEVELOPMENT.2026-02-12T20-18-48Z" +
			" -X " + cmd + ".CommitID=7aac2a2c5b7c" +
			" -X " + cmd + ".ShortCommitID=7aac2a2c5b7c",
		Cold: "about 3 minutes on two cores",
	}
}

// UpstreamProvider is a provider for the upstream driver, made with upstream's
// own protocol package.
func UpstreamProvider() Server {
	return Server{
		Name:    "upstreamprovider",
		What:    "a provider made for the upstream driver",
		Module:  "test/servers/upstreamprovider",
		Package: ".",
		LDFlags: "-s -w",
		Cold:    "half a minute",
	}
}

// UpstreamDriver is the Secrets Store CSI driver, whose place Postern takes. It
// mounts with the programs mount and umount. Package upstream has its manifests.
func UpstreamDriver() Server {
	const version = "sigs.k8s.io/secrets-store-csi-driver/pkg/version"
	return Server{
		Name:    "upstreamdriver",
		What:    "the Secrets Store CSI driver 1.6.0",
		Module:  "test/servers/upstreamdriver",
		Package: "sigs.k8s.io/secrets-store-csi-driver/cmd/secrets-store-csi-driver",
		LDFlags: "-s -w -X " + version + ".BuildVersion=v1.6.0",
		Cold:    "about a minute on two cores",
	}
}

// Helm is the program that installs charts.
func Helm() Server {
	const version = "helm.sh/helm/v4/internal/version"
	return Server{
		Name:    "helm",
		What:    "Helm, which installs the charts",
		Module:  "test/servers/helm",
		Package: "helm.sh/helm/v4/cmd/helm",
		LDFlags: "-s -w -X " + version + ".version=v4.3.1 -X " + version + ".gitTreeState=clean",
		Cold:    "about 2 minutes on two cores",
	}
}

// Coredns is CoreDNS with the plugins that the test cluster needs.
func Coredns() Server {
	return Server{
		Name:    "coredns",
		What:    "CoreDNS, which resolves the names of Services",
		Module:  "test/servers/coredns",
		Package: ".",
		LDFlags: "-s -w",
		Cold:    "about 2 minutes on two cores",
	}
}

// Servers lists every third-party program.
func Servers() []Server {
	return []Server{Kube(), Bao(), Minio(), UpstreamProvider(), UpstreamDriver(), Helm(), Coredns()}
}

// daemonPackages returns the main packages of the daemons: every
// <module>/cmd/postern-* of the driver, the gateway and the providers.
func daemonPackages(root string) ([]string, error) {
	var packages []string
	for _, module := range []string{"driver", "gateway", "providers/*"} {
		mains, err := filepath.Glob(filepath.Join(root, module, "cmd/postern-*/main.go"))
		if err != nil {
			return nil, fmt.Errorf("look for the daemons of %s: %w", module, err)
		}
		for _, file := range mains {
			relative, err := filepath.Rel(root, filepath.Dir(file))
			if err != nil {
				return nil, fmt.Errorf("resolve %s: %w", file, err)
			}
			packages = append(packages, "./"+filepath.ToSlash(relative))
		}
	}
	if len(packages) == 0 {
		return nil, fmt.Errorf("no daemon found below %s: no cmd/postern-*/main.go in driver, gateway or providers/*", root)
	}
	slices.Sort(packages)
	return packages, nil
}
