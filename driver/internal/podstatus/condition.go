package podstatus

import (
	"cmp"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	apiv1 "github.com/postern-dev/postern/driver/api/v1"
)

// Reasons of conditions; of a failure's, only where it gives none itself.
const (
	conditionReasonInPlace     = "InPlace"
	conditionReasonSyncFailed  = "SyncFailed"
	conditionReasonFetched     = "Fetched"
	conditionReasonFetchFailed = "FetchFailed"
)

// conditions are all that the volume's object is to have, whatever it has now:
// of those that it has, only the times count, and not even they if they are of
// another volume.
func conditions(s Status, last written) []metav1.Condition {
	if last.former {
		last = written{}
	}
	now := time.Now()
	return []metav1.Condition{
		since(readyCondition(s), last.ready, s.Unsynced, now),
		since(freshCondition(s), last.fresh, s.Stale, now),
	}
}

func readyCondition(s Status) metav1.Condition {
	return condition(apiv1.ConditionReady, s.Unsynced, conditionReasonInPlace, conditionReasonSyncFailed)
}

func freshCondition(s Status) metav1.Condition {
	return condition(apiv1.ConditionFresh, s.Stale, conditionReasonFetched, conditionReasonFetchFailed)
}

// condition is True unless there is a failure. It has no time yet.
func condition(kind string, failure *Failure, good, bad string) metav1.Condition {
	if failure == nil {
		return metav1.Condition{Type: kind, Status: metav1.ConditionTrue, Reason: good}
	}
	return metav1.Condition{
		Type:    kind,
		Status:  metav1.ConditionFalse,
		Reason:  cmp.Or(conditionReason(failure.Reason), bad),
		Message: failure.Message,
	}
}

// since sets the time of the last transition, which stays while the status
// does. A write may come long after the failure began.
func since(condition, before metav1.Condition, failure *Failure, now time.Time) metav1.Condition {
	switch {
	case before.Status == condition.Status:
		condition.LastTransitionTime = before.LastTransitionTime
	case failure != nil && !failure.Since.IsZero() && failure.Since.Before(now):
		condition.LastTransitionTime = metav1.NewTime(failure.Since)
	default:
		condition.LastTransitionTime = metav1.NewTime(now)
	}
	return condition
}

// findCondition returns the object's condition without its message, or none.
func findCondition(object *apiv1.SecretProviderClassPodStatus, kind string) metav1.Condition {
	found := meta.FindStatusCondition(object.Status.Conditions, kind)
	if found == nil {
		return metav1.Condition{}
	}
	return metav1.Condition{Type: kind, Status: found.Status, Reason: found.Reason, LastTransitionTime: found.LastTransitionTime}
}

// conditionReason returns reason if a condition may have it, else nothing: the
// API server refuses an object with any other.
func conditionReason(reason string) string {
	const maxReason = 1024
	letter := func(r rune) bool { return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' }
	digit := func(r rune) bool { return r >= '0' && r <= '9' }
	other := func(r rune) bool { return !letter(r) && !digit(r) && r != '_' }
	if reason == "" || len(reason) > maxReason || !letter(rune(reason[0])) || strings.ContainsFunc(reason, other) {
		return ""
	}
	return reason
}
