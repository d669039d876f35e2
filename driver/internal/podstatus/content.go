package podstatus

import (
	"crypto/sha256"
	"encoding/json"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	apiv1 "github.com/postern-dev/postern/driver/api/v1"
)

// content is all in an object that is worth a write, as digests: times are not,
// nor is the wording of a failure that lasts.
type content struct {
	volume  digest
	objects digest
}

type digest [sha256.Size]byte

// digestOf is of the value in JSON.
func digestOf(v any) digest {
	// It cannot fail: there are but strings and booleans in what it is given.
	encoded, _ := json.Marshal(v) //nolint:errchkjson // see above
	return sha256.Sum256(encoded)
}

func digestOfObjects(objects []apiv1.SecretProviderClassObject) digest {
	if len(objects) == 0 {
		objects = nil
	}
	return digestOf(objects)
}

// volumeContent is what goes into the digest of a volume.
type volumeContent struct {
	Node         string
	Owners       []string
	Pod, Class   string
	Mounted      bool
	TargetPath   string
	VolumeID     string
	Ready, Fresh conditionState
}

// conditionState is what is worth a write of a condition.
type conditionState struct {
	Status metav1.ConditionStatus
	Reason string
}

func stateOf(condition metav1.Condition) conditionState {
	return conditionState{Status: condition.Status, Reason: condition.Reason}
}

// contentOf is what the volume's object is to say, whose content is as last now.
func (w *statusWriter) contentOf(s Status, last written) content {
	wanted := content{
		volume: digestOf(volumeContent{
			Node:       w.node,
			Owners:     []string{s.Pod.UID},
			Pod:        s.Pod.Name,
			Class:      s.SecretProviderClass,
			Mounted:    true,
			TargetPath: s.TargetPath,
			VolumeID:   s.VolumeID,
			Ready:      stateOf(readyCondition(s)),
			Fresh:      stateOf(freshCondition(s)),
		}),
		objects: digestOfObjects(apiObjects(s)),
	}
	if keepsObjects(s, last) {
		wanted.objects = last.content.objects
	}
	return wanted
}

// keepsObjects tells that what the object says of the volume's objects stays:
// this process does not know better.
func keepsObjects(s Status, last written) bool { return s.LastRefresh.IsZero() && !last.former }

// writtenOf is what an object says.
func writtenOf(object *apiv1.SecretProviderClassPodStatus) written {
	last := written{
		name:            object.Name,
		resourceVersion: object.ResourceVersion,
		ready:           findCondition(object, apiv1.ConditionReady),
		fresh:           findCondition(object, apiv1.ConditionFresh),
	}
	owners := make([]string, 0, len(object.OwnerReferences))
	for _, owner := range object.OwnerReferences {
		owners = append(owners, string(owner.UID))
	}
	status := object.Status
	last.content.objects = digestOfObjects(status.Objects)
	last.content.volume = digestOf(volumeContent{
		Node:       object.Labels[apiv1.NodeNameLabel],
		Owners:     owners,
		Pod:        status.PodName,
		Class:      status.SecretProviderClassName,
		Mounted:    status.Mounted,
		TargetPath: status.TargetPath,
		VolumeID:   status.VolumeID,
		Ready:      stateOf(last.ready),
		Fresh:      stateOf(last.fresh),
	})
	return last
}

func (w *statusWriter) newObject(s Status, name string) *apiv1.SecretProviderClassPodStatus {
	return &apiv1.SecretProviderClassPodStatus{
		TypeMeta: metav1.TypeMeta{
			APIVersion: apiv1.GroupVersion().String(),
			Kind:       apiv1.KindSecretProviderClassPodStatus,
		},
		ObjectMeta: metav1.ObjectMeta{
			Namespace:       s.Pod.Namespace,
			Name:            name,
			Labels:          map[string]string{apiv1.NodeNameLabel: w.node},
			OwnerReferences: []metav1.OwnerReference{owner(s.Pod)},
		},
		Status: apiStatus(s, written{}),
	}
}

// patch is a JSON merge patch: what it does not name stays, lists are replaced.
func (w *statusWriter) patch(s Status, last written) ([]byte, error) {
	status := apiStatus(s, last)
	patched := map[string]any{
		"podName":                 status.PodName,
		"secretProviderClassName": status.SecretProviderClassName,
		"mounted":                 status.Mounted,
		"targetPath":              status.TargetPath,
		"volumeID":                status.VolumeID,
		"conditions":              status.Conditions,
	}
	if !keepsObjects(s, last) {
		patched["objects"] = status.Objects
		patched["lastRefreshTime"] = status.LastRefreshTime
	}
	return json.Marshal(map[string]any{
		"metadata": map[string]any{
			"resourceVersion": last.resourceVersion,
			"labels":          map[string]string{apiv1.NodeNameLabel: w.node},
			"ownerReferences": []metav1.OwnerReference{owner(s.Pod)},
		},
		"status": patched,
	})
}

// owner makes Kubernetes delete the status with the pod. It does not control
// it: nothing is to adopt or block on it.
func owner(pod Pod) metav1.OwnerReference {
	return metav1.OwnerReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: types.UID(pod.UID)}
}

func apiStatus(s Status, last written) apiv1.SecretProviderClassPodStatusStatus {
	status := apiv1.SecretProviderClassPodStatusStatus{
		PodName:                 s.Pod.Name,
		SecretProviderClassName: s.SecretProviderClass,
		Mounted:                 true,
		TargetPath:              s.TargetPath,
		Objects:                 apiObjects(s),
		VolumeID:                s.VolumeID,
		Conditions:              conditions(s, last),
	}
	if !s.LastRefresh.IsZero() {
		lastRefresh := metav1.NewTime(s.LastRefresh)
		status.LastRefreshTime = &lastRefresh
	}
	return status
}

// apiObjects are none while they are not known.
func apiObjects(s Status) []apiv1.SecretProviderClassObject {
	if s.LastRefresh.IsZero() {
		return []apiv1.SecretProviderClassObject{}
	}
	objects := make([]apiv1.SecretProviderClassObject, 0, len(s.Objects))
	for _, object := range s.Objects {
		objects = append(objects, apiv1.SecretProviderClassObject{ID: object.ID, Version: object.Version})
	}
	return objects
}
