package kube

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	apiv1 "github.com/postern-dev/postern/driver/api/v1"
)

const (
	// acceptMetadata asks for an object's metadata alone: the driver has no
	// use for the rest, and of some kinds (pods) the rest is large.
	acceptMetadata = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"

	// defaultServiceAccount is whom a pod runs as that names nobody.
	defaultServiceAccount = "default"

	// mirrorAnnotation on a static pod's mirror holds the uid that kubelet
	// knows the pod by. https://kubernetes.io/docs/reference/labels-annotations-taints/
	mirrorAnnotation = "kubernetes.io/config.mirror"
)

// SecretProviderClass reads the class as it is now. Those who ask for one
// class at the same time share a request; the result is the caller's own.
// It fails with the errors of package spc.
func (c *Client) SecretProviderClass(ctx context.Context, namespace, name string) (*apiv1.SecretProviderClass, error) {
	shared, err := c.classFlights.do(ctx, namespace+"/"+name, func(ctx context.Context) (*apiv1.SecretProviderClass, error) {
		class := &apiv1.SecretProviderClass{}
		err := c.classes.Get().Namespace(namespace).Resource(apiv1.ResourceSecretProviderClasses).Name(name).Do(ctx).Into(class)
		return class, err
	})
	if err != nil {
		return nil, explainClass(err)
	}
	return shared.DeepCopy(), nil
}

// ServiceAccountAnnotations reads those annotations of the service account
// that keys name; keys that it does not have are left out. An empty name is
// the namespace's default account.
func (c *Client) ServiceAccountAnnotations(ctx context.Context, namespace, name string, keys []string) (map[string]string, error) {
	if len(keys) == 0 {
		return map[string]string{}, nil
	}
	if name == "" {
		name = defaultServiceAccount
	}
	object, err := c.metadata(ctx, "serviceaccounts", namespace, name)
	if err != nil {
		return nil, explain(fmt.Sprintf("get service account %s/%s", namespace, name), err)
	}
	return pick(object.Annotations, keys), nil
}

// PodExists tells whether the pod is there, and is the one with this uid
// rather than a later one of the same name.
func (c *Client) PodExists(ctx context.Context, namespace, name, uid string) (bool, error) {
	object, err := c.metadata(ctx, "pods", namespace, name)
	switch {
	case apierrors.IsNotFound(err):
		return false, nil
	case err != nil:
		return false, explain(fmt.Sprintf("get pod %s/%s", namespace, name), err)
	}
	return isPod(object, uid), nil
}

// isPod tells whether the object is the pod that kubelet knows by this uid.
func isPod(object *metav1.PartialObjectMetadata, uid string) bool {
	return string(object.UID) == uid || object.Annotations[mirrorAnnotation] == uid
}

func (c *Client) metadata(ctx context.Context, resource, namespace, name string) (*metav1.PartialObjectMetadata, error) {
	object := &metav1.PartialObjectMetadata{}
	request := c.core.Get().SetHeader("Accept", acceptMetadata).Resource(resource).Name(name)
	if namespace != "" {
		request = request.Namespace(namespace)
	}
	if err := request.Do(ctx).Into(object); err != nil {
		return nil, err
	}
	return object, nil
}

// pick returns the entries of all that keys name.
func pick(all map[string]string, keys []string) map[string]string {
	picked := make(map[string]string, len(keys))
	for _, key := range keys {
		if value, ok := all[key]; ok {
			picked[key] = value
		}
	}
	return picked
}
