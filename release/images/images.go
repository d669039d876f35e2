// Package images makes container images from files, without a container engine
// and without a registry, and keeps them in tar files as OCI layouts, which
// containerd, podman, skopeo and crane read.
//
// The same files, names and times give the same bytes: entries are sorted, owners
// are numbers, and nothing asks for the time.
package images
