package v1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Names of the API group and of its resources.
const (
	Group   = "secrets-store.csi.x-k8s.io"
	Version = "v1"

	// KindSecretProviderClass is the kind of a SecretProviderClass.
	KindSecretProviderClass = "SecretProviderClass"
	// KindSecretProviderClassPodStatus is the kind of a SecretProviderClassPodStatus.
	KindSecretProviderClassPodStatus = "SecretProviderClassPodStatus"

	// ResourceSecretProviderClasses is the plural that appears in URLs and RBAC rules.
	ResourceSecretProviderClasses = "secretproviderclasses"
	// ResourceSecretProviderClassPodStatuses is the plural that appears in URLs and RBAC rules.
	ResourceSecretProviderClassPodStatuses = "secretproviderclasspodstatuses"
)

// NodeNameLabel is on every SecretProviderClassPodStatus and names the pod's
// node. A name longer than a label's value may be (63) is cut and ends in a
// hash of the whole.
const NodeNameLabel = "internal.secrets-store.csi.k8s.io/node-name"

// GroupVersion is the group and version of the types of this package.
func GroupVersion() schema.GroupVersion {
	return schema.GroupVersion{Group: Group, Version: Version}
}

// AddToScheme registers the types of this package.
func AddToScheme(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion(),
		&SecretProviderClass{}, &SecretProviderClassList{},
		&SecretProviderClassPodStatus{}, &SecretProviderClassPodStatusList{},
	)
	metav1.AddToGroupVersion(scheme, GroupVersion())
	return nil
}
