package kube

import (
	"context"
	"encoding/json"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/postern-dev/postern/internal/redact"
)

// SecretFieldManager owns what the driver writes of a Secret.
const SecretFieldManager = "secrets-store-csi-driver"

const (
	resourceSecrets = "secrets"
	kindSecret      = "Secret"
	// acceptMetadataList is acceptMetadata for lists.
	acceptMetadataList = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
	// listPage bounds one answer to a list.
	listPage = "500"
	// namespaceTerminating is the cause of a refusal to create anything in a
	// namespace that is being deleted.
	// https://pkg.go.dev/k8s.io/api/core/v1#NamespaceTerminatingCause
	namespaceTerminating metav1.CauseType = "NamespaceTerminating"
)

// Secret is a Kubernetes Secret. Its contents are whoever's made it to wipe.
type Secret struct {
	Metadata metav1.ObjectMeta
	Type     string
	// Immutable is set by people, never by the driver.
	Immutable bool
	Data      map[string]redact.Bytes
}

// Wipe overwrites the contents.
func (s *Secret) Wipe() {
	for _, contents := range s.Data {
		contents.Wipe()
	}
}

// wireSecret is a Secret of API version v1, as much of it as the driver reads
// and writes: k8s.io/api costs more memory than all the rest of this package.
// https://kubernetes.io/docs/reference/kubernetes-api/config-and-storage-resources/secret-v1/
type wireSecret struct {
	metav1.TypeMeta `json:",inline"`
	Metadata        wireSecretMetadata `json:"metadata"`
	Type            string             `json:"type,omitempty"`
	Immutable       bool               `json:"immutable,omitempty"`
	Data            map[string][]byte  `json:"data,omitempty"`
}

// wireSecretMetadata is what is written of a Secret's metadata: with
// server-side apply, a field more would be a field that the driver owns.
type wireSecretMetadata struct {
	Name            string                  `json:"name"`
	Namespace       string                  `json:"namespace"`
	ResourceVersion string                  `json:"resourceVersion,omitempty"`
	Labels          map[string]string       `json:"labels,omitempty"`
	Annotations     map[string]string       `json:"annotations,omitempty"`
	OwnerReferences []metav1.OwnerReference `json:"ownerReferences,omitempty"`
}

// Secret reads the Secret with its contents, which are the caller's.
func (c *Client) Secret(ctx context.Context, namespace, name string) (*Secret, error) {
	what := describeSecret("get", namespace, name)
	result := c.core.Get().SetHeader("Accept", "application/json").Namespace(namespace).Resource(resourceSecrets).Name(name).Do(ctx)
	if err := result.Error(); err != nil { // says more than Raw's error
		return nil, explainSecret(what, err)
	}
	body, err := result.Raw()
	if err != nil {
		return nil, explainSecret(what, err)
	}
	defer clear(body)
	var read struct {
		wireSecret
		Metadata metav1.ObjectMeta `json:"metadata"`
	}
	if err := json.Unmarshal(body, &read); err != nil {
		// The error may quote what could not be decoded.
		return nil, fmt.Errorf("%s: the answer is no Secret", what)
	}
	secret := &Secret{
		Metadata: read.Metadata, Type: read.Type, Immutable: read.Immutable, Data: make(map[string]redact.Bytes, len(read.Data)),
	}
	for key, contents := range read.Data {
		secret.Data[key] = redact.NewBytes(contents)
	}
	return secret, nil
}

// SecretMetadata reads the Secret without its contents.
func (c *Client) SecretMetadata(ctx context.Context, namespace, name string) (*metav1.ObjectMeta, error) {
	object, err := c.metadata(ctx, resourceSecrets, namespace, name)
	if err != nil {
		return nil, explainSecret(describeSecret("get the metadata of", namespace, name), err)
	}
	return &object.ObjectMeta, nil
}

// SecretsMetadata lists the Secrets that have this label, without contents.
func (c *Client) SecretsMetadata(ctx context.Context, namespace, label, value string) ([]metav1.ObjectMeta, error) {
	var found []metav1.ObjectMeta
	for page := ""; ; {
		list := &metav1.PartialObjectMetadataList{}
		request := c.core.Get().SetHeader("Accept", acceptMetadataList).Namespace(namespace).Resource(resourceSecrets).
			Param("labelSelector", label+"="+value).Param("limit", listPage)
		if page != "" {
			request = request.Param("continue", page)
		}
		if err := request.Do(ctx).Into(list); err != nil {
			return nil, explainSecret("list the Secrets of namespace "+namespace, err)
		}
		for i := range list.Items {
			found = append(found, list.Items[i].ObjectMeta)
		}
		if page = list.Continue; page == "" {
			return found, nil
		}
	}
}

// CreateSecret creates the Secret and returns its metadata.
// apierrors.IsAlreadyExists tells that the name is taken.
func (c *Client) CreateSecret(ctx context.Context, secret *Secret) (*metav1.ObjectMeta, error) {
	return c.writeSecret(ctx, "create", c.core.Post(), secret)
}

// ApplySecret makes the fields of the Secret that the driver owns those given,
// and leaves all others alone; what the driver owned and is not given goes. It
// returns the Secret's metadata. apierrors.IsConflict tells that the Secret is
// not of the resource version that secret names. One that is gone is made anew.
func (c *Client) ApplySecret(ctx context.Context, secret *Secret) (*metav1.ObjectMeta, error) {
	request := c.core.Patch(types.ApplyPatchType).Name(secret.Metadata.Name).Param("force", "true")
	return c.writeSecret(ctx, "apply", request, secret)
}

// writeSecret has the API server answer without the contents. The encoded
// contents are left to the garbage collector: the transport may still read
// them when the call has ended.
func (c *Client) writeSecret(ctx context.Context, verb string, request *rest.Request, secret *Secret) (*metav1.ObjectMeta, error) {
	namespace := secret.Metadata.Namespace
	what := describeSecret(verb, namespace, secret.Metadata.Name)
	body, err := encodeSecret(secret)
	if err != nil {
		return nil, fmt.Errorf("%s: encode it: %w", what, err)
	}
	if verb == "create" {
		request = request.SetHeader("Content-Type", "application/json")
	}
	written := &metav1.PartialObjectMetadata{}
	err = request.SetHeader("Accept", acceptMetadata).Namespace(namespace).Resource(resourceSecrets).
		Param("fieldManager", SecretFieldManager).Body(body).Do(ctx).Into(written)
	if err != nil {
		return nil, explainSecret(what, err)
	}
	return &written.ObjectMeta, nil
}

func encodeSecret(secret *Secret) ([]byte, error) {
	meta := &secret.Metadata
	written := wireSecret{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: kindSecret},
		Metadata: wireSecretMetadata{
			Name: meta.Name, Namespace: meta.Namespace, ResourceVersion: meta.ResourceVersion,
			Labels: meta.Labels, Annotations: meta.Annotations, OwnerReferences: meta.OwnerReferences,
		},
		Type: secret.Type,
		Data: make(map[string][]byte, len(secret.Data)),
	}
	for key, contents := range secret.Data {
		// Not null, which would not be a key with an empty value.
		written.Data[key] = append([]byte{}, contents.Reveal()...)
	}
	defer func() {
		for _, contents := range written.Data {
			clear(contents)
		}
	}()
	return json.Marshal(written)
}

// PatchSecret applies a JSON merge patch (RFC 7386) of metadata.
// apierrors.IsConflict tells that the Secret is not of the resource version
// that the patch names.
func (c *Client) PatchSecret(ctx context.Context, namespace, name string, patch []byte) (*metav1.ObjectMeta, error) {
	patched := &metav1.PartialObjectMetadata{}
	err := c.core.Patch(types.MergePatchType).SetHeader("Accept", acceptMetadata).Namespace(namespace).Resource(resourceSecrets).Name(name).
		Param("fieldManager", SecretFieldManager).Body(patch).Do(ctx).Into(patched)
	if err != nil {
		return nil, explainSecret(describeSecret("patch", namespace, name), err)
	}
	return &patched.ObjectMeta, nil
}

// DeleteSecret deletes the Secret if it is the very one that seen shows, and
// unchanged. apierrors.IsConflict tells that it is not.
func (c *Client) DeleteSecret(ctx context.Context, seen *metav1.ObjectMeta) error {
	what := describeSecret("delete", seen.Namespace, seen.Name)
	body, err := json.Marshal(metav1.DeleteOptions{
		TypeMeta:      metav1.TypeMeta{APIVersion: "v1", Kind: "DeleteOptions"},
		Preconditions: &metav1.Preconditions{UID: &seen.UID, ResourceVersion: &seen.ResourceVersion},
	})
	if err != nil {
		return fmt.Errorf("%s: encode the request: %w", what, err)
	}
	// The answer may be the deleted Secret.
	err = c.core.Delete().SetHeader("Accept", acceptMetadata).SetHeader("Content-Type", "application/json").
		Namespace(seen.Namespace).Resource(resourceSecrets).Name(seen.Name).Body(body).Do(ctx).Error()
	return explainSecret(what, err)
}

// PodOwners returns who is to own what is made for a pod: the pod's
// controller, so that it outlives single pods, or the pod's other owners, or
// else the pod. There is none if the pod is gone, replaced or being deleted.
func (c *Client) PodOwners(ctx context.Context, namespace, name, uid string) ([]metav1.OwnerReference, error) {
	pod, err := c.metadata(ctx, "pods", namespace, name)
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, explain(fmt.Sprintf("get pod %s/%s", namespace, name), err)
	case !isPod(pod, uid), pod.DeletionTimestamp != nil:
		return nil, nil
	}
	owners := pod.OwnerReferences
	if controller := metav1.GetControllerOf(pod); controller != nil {
		owners = []metav1.OwnerReference{*controller}
	}
	if len(owners) == 0 {
		owners = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID}}
	}
	for i := range owners {
		// What is owned is not managed, and must hold nothing up.
		owners[i].Controller, owners[i].BlockOwnerDeletion = nil, nil
	}
	return owners, nil
}

// IsNamespaceTerminating tells that something could not be made since its
// namespace is being deleted.
func IsNamespaceTerminating(err error) bool {
	return apierrors.HasStatusCause(err, namespaceTerminating)
}

func describeSecret(verb, namespace, name string) string {
	return fmt.Sprintf("%s Secret %s/%s", verb, namespace, name)
}

// explainSecret is explain for Secrets, which the driver's ClusterRole usually
// says nothing of.
func explainSecret(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case IsNamespaceTerminating(err):
		return fmt.Errorf("%s: the namespace is being deleted: %w", what, err)
	case apierrors.IsForbidden(err):
		return fmt.Errorf("%s: the API server refuses it; for the driver's rights in a namespace, name it in the Helm value "+
			"driver.syncSecret.namespaces: %w", what, err)
	case apierrors.IsRequestEntityTooLargeError(err):
		return fmt.Errorf("%s: it is too large for the API server; take fewer files: %w", what, err)
	default:
		return explain(what, err)
	}
}
