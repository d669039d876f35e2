package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "github.com/postern-dev/postern/driver/api/v1"
)

// Version is the version of the types of this package, in v1's group.
const Version = "v1alpha1"

// ByPodStatus names a pod that uses a SecretProviderClass.
type ByPodStatus struct {
	// id of the pod.
	ID string `json:"id,omitempty"`
	// namespace of the pod.
	Namespace string `json:"namespace,omitempty"`
}

// SecretProviderClassStatus was how pods were listed before each had its
// SecretProviderClassPodStatus.
type SecretProviderClassStatus struct {
	ByPod []*ByPodStatus `json:"byPod,omitempty"`
}

// SecretProviderClass says which secrets the pods that name it get as files.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:shortName=spc,categories=secrets-store
// +kubebuilder:deprecatedversion:warning="secrets-store.csi.x-k8s.io/v1alpha1 SecretProviderClass is deprecated; use secrets-store.csi.x-k8s.io/v1"
// +kubebuilder:printcolumn:name="Provider",type=string,JSONPath=`.spec.provider`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type SecretProviderClass struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   v1.SecretProviderClassSpec `json:"spec,omitempty"`
	Status SecretProviderClassStatus  `json:"status,omitempty"`
}

// SecretProviderClassList is a list of SecretProviderClass.
//
// +kubebuilder:object:root=true
type SecretProviderClassList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []SecretProviderClass `json:"items"`
}

// SecretProviderClassPodStatus tells which versions of which objects a pod has
// mounted. Its pod owns it.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:shortName=spcps,categories=secrets-store
// +kubebuilder:deprecatedversion:warning="secrets-store.csi.x-k8s.io/v1alpha1 SecretProviderClassPodStatus is deprecated; use secrets-store.csi.x-k8s.io/v1"
// +kubebuilder:printcolumn:name="Pod",type=string,JSONPath=`.status.podName`
// +kubebuilder:printcolumn:name="Class",type=string,JSONPath=`.status.secretProviderClassName`
// +kubebuilder:printcolumn:name="Mounted",type=boolean,JSONPath=`.status.mounted`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type SecretProviderClassPodStatus struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Status v1.SecretProviderClassPodStatusStatus `json:"status,omitempty"`
}

// SecretProviderClassPodStatusList is a list of SecretProviderClassPodStatus.
//
// +kubebuilder:object:root=true
type SecretProviderClassPodStatusList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []SecretProviderClassPodStatus `json:"items"`
}
