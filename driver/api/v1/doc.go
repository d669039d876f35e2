// Package v1 holds the types of API group secrets-store.csi.x-k8s.io, version
// v1, as the Secrets Store CSI driver defined them, so that its objects, its
// clients and its users' manifests keep working.
//
// Fields are only ever added, and all are optional: nothing that was accepted
// once may be refused.
//
// +kubebuilder:object:generate=true
// +groupName=secrets-store.csi.x-k8s.io
package v1
