// Package v1alpha1 holds the types of API group secrets-store.csi.x-k8s.io,
// version v1alpha1: served for old clients and manifests, never stored, and
// the same as v1 but for the byPod list, which nobody fills any more.
//
// Deprecated: use package v1.
//
// +kubebuilder:object:generate=true
// +groupName=secrets-store.csi.x-k8s.io
package v1alpha1
