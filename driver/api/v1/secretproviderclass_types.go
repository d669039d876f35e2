package v1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Provider names the provider that fetches the secrets, such as vault, aws,
// azure, gcp or akeyless.
type Provider string

// SecretObjectData maps one mounted file to a key of a Kubernetes Secret.
type SecretObjectData struct {
	// objectName is the path of the mounted file, relative to the volume.
	ObjectName string `json:"objectName,omitempty"`
	// key is the key in the Secret's data.
	Key string `json:"key,omitempty"`
}

// SecretObjectDataFrom maps many mounted files to keys of a Kubernetes Secret.
// The key is the file's path, with "_" for "/".
type SecretObjectDataFrom struct {
	// files is a pattern of the paths to take, such as "tls/*.pem"; "*" does not
	// match "/". Empty: all files.
	Files string `json:"files,omitempty"`
	// keyPrefix is put before each key.
	KeyPrefix string `json:"keyPrefix,omitempty"`
}

// SecretObject is a Kubernetes Secret that is made of mounted files.
type SecretObject struct {
	// secretName is the name of the Kubernetes Secret.
	SecretName string `json:"secretName,omitempty"`
	// type is the type of the Kubernetes Secret, such as kubernetes.io/tls. Empty:
	// Opaque.
	Type string `json:"type,omitempty"`
	// labels are put on the Kubernetes Secret.
	Labels map[string]string `json:"labels,omitempty"`
	// annotations are put on the Kubernetes Secret.
	Annotations map[string]string `json:"annotations,omitempty"`
	// data says which files become which keys.
	Data []*SecretObjectData `json:"data,omitempty"`
	// dataFrom takes many files at once. A key that data names wins.
	DataFrom []*SecretObjectDataFrom `json:"dataFrom,omitempty"`
}

// SecretProviderClassSpec says which secrets a pod gets, and from where.
type SecretProviderClassSpec struct {
	// provider names the provider that fetches the secrets.
	Provider Provider `json:"provider,omitempty"`
	// parameters are for the provider, which documents them.
	Parameters map[string]string `json:"parameters,omitempty"`
	// secretObjects are the Kubernetes Secrets to keep in sync with mounted files.
	SecretObjects []*SecretObject `json:"secretObjects,omitempty"`
}

// SecretProviderClassStatus is empty: what is known of each pod is in its
// SecretProviderClassPodStatus.
type SecretProviderClassStatus struct{}

// SecretProviderClass says which secrets the pods that name it get as files.
//
// +kubebuilder:object:root=true
// +kubebuilder:storageversion
// +kubebuilder:resource:shortName=spc,categories=secrets-store
// +kubebuilder:printcolumn:name="Provider",type=string,JSONPath=`.spec.provider`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type SecretProviderClass struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   SecretProviderClassSpec   `json:"spec,omitempty"`
	Status SecretProviderClassStatus `json:"status,omitempty"`
}

// SecretProviderClassList is a list of SecretProviderClass.
//
// +kubebuilder:object:root=true
type SecretProviderClassList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []SecretProviderClass `json:"items"`
}

// AnnotationRefresh on a SecretProviderClass asks for a refresh of its volumes
// at once, by any value that differs from the one before.
const AnnotationRefresh = "postern.dev/refresh"
