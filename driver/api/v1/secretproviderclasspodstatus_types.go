package v1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Types of conditions.
const (
	// ConditionReady tells whether all is in place that the class asks for: the
	// volume with its files, and the Kubernetes Secrets made of them.
	ConditionReady = "Ready"
	// ConditionFresh tells whether the volume holds what the store holds, as far
	// as its interval goes. While it is False, refreshing it fails, and it keeps
	// its last good contents.
	ConditionFresh = "Fresh"
)

// SecretProviderClassObject is a version of an object that is mounted.
type SecretProviderClassObject struct {
	// id names the object in the provider's terms.
	ID string `json:"id,omitempty"`
	// version is the version that is mounted.
	Version string `json:"version,omitempty"`
}

// SecretProviderClassPodStatusStatus is what is known of one volume. It is
// output only: nothing reads it to decide what to do, least of all the target
// path.
type SecretProviderClassPodStatusStatus struct {
	// podName is the name of the pod that mounts the volume.
	PodName string `json:"podName,omitempty"`
	// secretProviderClassName is the name of the SecretProviderClass.
	SecretProviderClassName string `json:"secretProviderClassName,omitempty"`
	// mounted is true once the volume is in place with all its files.
	Mounted bool `json:"mounted,omitempty"`
	// targetPath is where the volume is on the node.
	TargetPath string `json:"targetPath,omitempty"`
	// objects are the mounted objects with their versions, sorted by id.
	Objects []SecretProviderClassObject `json:"objects,omitempty"`

	// volumeID is the CSI volume id. It tells two volumes of one pod apart
	// that use the same SecretProviderClass.
	VolumeID string `json:"volumeID,omitempty"`
	// lastRefreshTime is when the secrets were last fetched with success, as
	// of the last write of this status. A refresh that changes nothing writes
	// nothing; a failure writes the time from which on the contents may be old.
	LastRefreshTime *metav1.Time `json:"lastRefreshTime,omitempty"`
	// conditions tell how the volume is. Type Ready: all is in place that the
	// class asks for. Type Fresh: refreshing it works.
	//
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// SecretProviderClassPodStatus tells which versions of which objects a pod has
// mounted. Its pod owns it.
//
// +kubebuilder:object:root=true
// +kubebuilder:storageversion
// +kubebuilder:resource:shortName=spcps,categories=secrets-store
// +kubebuilder:printcolumn:name="Pod",type=string,JSONPath=`.status.podName`
// +kubebuilder:printcolumn:name="Class",type=string,JSONPath=`.status.secretProviderClassName`
// +kubebuilder:printcolumn:name="Mounted",type=boolean,JSONPath=`.status.mounted`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Fresh",type=string,JSONPath=`.status.conditions[?(@.type=="Fresh")].status`
// +kubebuilder:printcolumn:name="Last Refresh",type=date,JSONPath=`.status.lastRefreshTime`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type SecretProviderClassPodStatus struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Status SecretProviderClassPodStatusStatus `json:"status,omitempty"`
}

// SecretProviderClassPodStatusList is a list of SecretProviderClassPodStatus.
//
// +kubebuilder:object:root=true
type SecretProviderClassPodStatusList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []SecretProviderClassPodStatus `json:"items"`
}
