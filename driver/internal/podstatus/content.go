package podstatus

import (
	"crypto/sha256"
	"encoding/json"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	apiv1 "github.com/postern-dev/postern/driver/api/v1"
)

const (
	conditionReasonFetched = "Fetched"
	conditionReasonFailed  = "FetchFailed"
)

// content is a digest of all in an object that is worth a write: times are
// not, nor is the wording of a failure that lasts.
type content [sha256.Size]byte

func (c content) equal(other content) bool { return c == other }

// contentInput is what goes into a content, in JSON.
type contentInput struct {
	Node             string
	Owners           []string
	Pod, Class       string
	Mounted          bool
	TargetPath       string
	VolumeID         string
	Objects          []apiv1.SecretProviderClassObject
	Refreshed        metav1.ConditionStatus
	RefreshedBecause string
}

func (i contentInput) digest() content {
	if len(i.Objects) == 0 {
		i.Objects = nil
	}
	// It cannot fail: there are but strings in it.
	encoded, _ := json.Marshal(i) //nolint:errchkjson // see above
	return sha256.Sum256(encoded)
}

// contentOf is what the volume's object is to say.
func (w *statusWriter) contentOf(s Status) content {
	condition := refreshedCondition(s)
	return contentInput{
		Node:             w.node,
		Owners:           []string{s.Pod.UID},
		Pod:              s.Pod.Name,
		Class:            s.SecretProviderClass,
		Mounted:          true,
		TargetPath:       s.TargetPath,
		VolumeID:         s.VolumeID,
		Objects:          apiObjects(s),
		Refreshed:        condition.Status,
		RefreshedBecause: condition.Reason,
	}.digest()
}

// writtenOf is what an object says.
func writtenOf(object *apiv1.SecretProviderClassPodStatus) written {
	last := written{name: object.Name, resourceVersion: object.ResourceVersion}
	if condition := meta.FindStatusCondition(object.Status.Conditions, apiv1.ConditionRefreshed); condition != nil {
		last.refreshed = *condition
	}
	owners := make([]string, 0, len(object.OwnerReferences))
	for _, owner := range object.OwnerReferences {
		owners = append(owners, string(owner.UID))
	}
	status := object.Status
	last.content = contentInput{
		Node:             object.Labels[apiv1.NodeNameLabel],
		Owners:           owners,
		Pod:              status.PodName,
		Class:            status.SecretProviderClassName,
		Mounted:          status.Mounted,
		TargetPath:       status.TargetPath,
		VolumeID:         status.VolumeID,
		Objects:          status.Objects,
		Refreshed:        last.refreshed.Status,
		RefreshedBecause: last.refreshed.Reason,
	}.digest()
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
		Status: apiStatus(s, metav1.Condition{}),
	}
}

// patch is a JSON merge patch: what it does not name stays, lists are replaced.
func (w *statusWriter) patch(s Status, last written) ([]byte, error) {
	status := apiStatus(s, last.refreshed)
	return json.Marshal(map[string]any{
		"metadata": map[string]any{
			"resourceVersion": last.resourceVersion,
			"labels":          map[string]string{apiv1.NodeNameLabel: w.node},
			"ownerReferences": []metav1.OwnerReference{owner(s.Pod)},
		},
		"status": map[string]any{
			"podName":                 status.PodName,
			"secretProviderClassName": status.SecretProviderClassName,
			"mounted":                 status.Mounted,
			"targetPath":              status.TargetPath,
			"objects":                 status.Objects,
			"volumeID":                status.VolumeID,
			"lastRefreshTime":         status.LastRefreshTime,
			"conditions":              status.Conditions,
		},
	})
}

// owner makes Kubernetes delete the status with the pod. It does not control
// it: nothing is to adopt or block on it.
func owner(pod Pod) metav1.OwnerReference {
	return metav1.OwnerReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: types.UID(pod.UID)}
}

func apiStatus(s Status, before metav1.Condition) apiv1.SecretProviderClassPodStatusStatus {
	refreshed := refreshedCondition(s)
	refreshed.LastTransitionTime = metav1.Now()
	if before.Status == refreshed.Status {
		refreshed.LastTransitionTime = before.LastTransitionTime
	}
	lastRefresh := metav1.NewTime(s.LastRefresh)
	return apiv1.SecretProviderClassPodStatusStatus{
		PodName:                 s.Pod.Name,
		SecretProviderClassName: s.SecretProviderClass,
		Mounted:                 true,
		TargetPath:              s.TargetPath,
		Objects:                 apiObjects(s),
		VolumeID:                s.VolumeID,
		LastRefreshTime:         &lastRefresh,
		Conditions:              []metav1.Condition{refreshed},
	}
}

func apiObjects(s Status) []apiv1.SecretProviderClassObject {
	objects := make([]apiv1.SecretProviderClassObject, 0, len(s.Objects))
	for _, object := range s.Objects {
		objects = append(objects, apiv1.SecretProviderClassObject{ID: object.ID, Version: object.Version})
	}
	return objects
}

func refreshedCondition(s Status) metav1.Condition {
	if s.Failure == nil {
		return metav1.Condition{Type: apiv1.ConditionRefreshed, Status: metav1.ConditionTrue, Reason: conditionReasonFetched}
	}
	return metav1.Condition{
		Type:    apiv1.ConditionRefreshed,
		Status:  metav1.ConditionFalse,
		Reason:  conditionReason(s.Failure.Reason),
		Message: cut(s.Failure.Message, maxMessage),
	}
}

// conditionReason returns reason if a condition may have it: the API server
// refuses an object with any other.
func conditionReason(reason string) string {
	const maxReason = 1024
	letter := func(r rune) bool { return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' }
	digit := func(r rune) bool { return r >= '0' && r <= '9' }
	other := func(r rune) bool { return !letter(r) && !digit(r) && r != '_' }
	if reason == "" || len(reason) > maxReason || !letter(rune(reason[0])) || strings.ContainsFunc(reason, other) {
		return conditionReasonFailed
	}
	return reason
}
