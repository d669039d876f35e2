package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	apiv1 "github.com/postern-dev/postern/driver/api/v1"
)

// PodStatus reads a SecretProviderClassPodStatus as it is now.
func (c *Client) PodStatus(ctx context.Context, namespace, name string) (*apiv1.SecretProviderClassPodStatus, error) {
	status := &apiv1.SecretProviderClassPodStatus{}
	err := c.classes.Get().Namespace(namespace).Resource(apiv1.ResourceSecretProviderClassPodStatuses).Name(name).Do(ctx).Into(status)
	if err != nil {
		return nil, explain(describePodStatus("get", namespace, name), err)
	}
	return status, nil
}

// CreatePodStatus creates the status and returns what the API server made of
// it. apierrors.IsAlreadyExists tells that the name is taken.
func (c *Client) CreatePodStatus(ctx context.Context, status *apiv1.SecretProviderClassPodStatus) (*apiv1.SecretProviderClassPodStatus, error) {
	created := &apiv1.SecretProviderClassPodStatus{}
	err := c.classes.Post().Namespace(status.Namespace).Resource(apiv1.ResourceSecretProviderClassPodStatuses).Body(status).Do(ctx).Into(created)
	if err != nil {
		return nil, explain(describePodStatus("create", status.Namespace, status.Name), err)
	}
	return created, nil
}

// PatchPodStatus applies a JSON merge patch (RFC 7386). A patch with a
// metadata.resourceVersion fails with apierrors.IsConflict when the object was
// changed since.
func (c *Client) PatchPodStatus(ctx context.Context, namespace, name string, patch []byte) (*apiv1.SecretProviderClassPodStatus, error) {
	patched := &apiv1.SecretProviderClassPodStatus{}
	err := c.classes.Patch(types.MergePatchType).Namespace(namespace).Resource(apiv1.ResourceSecretProviderClassPodStatuses).Name(name).
		Body(patch).Do(ctx).Into(patched)
	if err != nil {
		return nil, explain(describePodStatus("patch", namespace, name), err)
	}
	return patched, nil
}

func describePodStatus(verb, namespace, name string) string {
	return fmt.Sprintf("%s secretproviderclasspodstatus %s/%s", verb, namespace, name)
}

// Event is an event on a pod, as kubectl describe pod shows it.
type Event struct {
	// Name is the event's own name, in the pod's namespace.
	Name string
	// Pod is the pod that it is about.
	Namespace, PodName, PodUID string
	// Type is Normal or Warning.
	Type, Reason, Message string
	// Component and Node say who tells it.
	Component, Node string
	// Count is how often it happened between First and Last.
	Count       int32
	First, Last time.Time
}

// wireEvent is an event of API v1, as far as the driver uses it.
// https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/
// The whole of k8s.io/api/core/v1 costs a megabyte of memory on every node.
type wireEvent struct {
	metav1.TypeMeta    `json:",inline"`
	metav1.ObjectMeta  `json:"metadata"`
	InvolvedObject     wireReference `json:"involvedObject"`
	Reason             string        `json:"reason"`
	Message            string        `json:"message"`
	Source             wireSource    `json:"source"`
	FirstTimestamp     metav1.Time   `json:"firstTimestamp"`
	LastTimestamp      metav1.Time   `json:"lastTimestamp"`
	Count              int32         `json:"count"`
	Type               string        `json:"type"`
	ReportingComponent string        `json:"reportingComponent"`
	ReportingInstance  string        `json:"reportingInstance"`
}

type wireReference struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Namespace  string `json:"namespace"`
	Name       string `json:"name"`
	UID        string `json:"uid"`
}

type wireSource struct {
	Component string `json:"component"`
	Host      string `json:"host,omitempty"`
}

// CreateEvent creates the event.
func (c *Client) CreateEvent(ctx context.Context, event Event) error {
	body, err := json.Marshal(wireEvent{
		TypeMeta:           metav1.TypeMeta{APIVersion: "v1", Kind: "Event"},
		ObjectMeta:         metav1.ObjectMeta{Namespace: event.Namespace, Name: event.Name},
		InvolvedObject:     wireReference{APIVersion: "v1", Kind: "Pod", Namespace: event.Namespace, Name: event.PodName, UID: event.PodUID},
		Reason:             event.Reason,
		Message:            event.Message,
		Source:             wireSource{Component: event.Component, Host: event.Node},
		FirstTimestamp:     metav1.NewTime(event.First),
		LastTimestamp:      metav1.NewTime(event.Last),
		Count:              event.Count,
		Type:               event.Type,
		ReportingComponent: event.Component,
		ReportingInstance:  event.Node,
	})
	if err != nil {
		return fmt.Errorf("encode event %s/%s: %w", event.Namespace, event.Name, err)
	}
	err = c.core.Post().Namespace(event.Namespace).Resource("events").SetHeader("Content-Type", "application/json").Body(body).Do(ctx).Error()
	return explain(fmt.Sprintf("create event %s/%s", event.Namespace, event.Name), err)
}

// RepeatEvent sets message, count and last time of an event that was created
// before. apierrors.IsNotFound tells that the API server dropped it since.
func (c *Client) RepeatEvent(ctx context.Context, event Event) error {
	patch, err := json.Marshal(map[string]any{
		"message":       event.Message,
		"count":         event.Count,
		"lastTimestamp": metav1.NewTime(event.Last),
	})
	if err != nil {
		return fmt.Errorf("encode event %s/%s: %w", event.Namespace, event.Name, err)
	}
	err = c.core.Patch(types.MergePatchType).Namespace(event.Namespace).Resource("events").Name(event.Name).Body(patch).Do(ctx).Error()
	return explain(fmt.Sprintf("patch event %s/%s", event.Namespace, event.Name), err)
}
