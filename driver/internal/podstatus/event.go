package podstatus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/postern-dev/postern/driver/internal/kube"
)

// Component is who the driver's events come from.
const Component = "secrets-store-csi-driver"

// Reason is why there is an event: a short name that users may filter by.
type Reason string

// The reasons of the driver's events.
const (
	// ReasonMountFailed: the volume could not be put in place; kubelet tries again.
	ReasonMountFailed Reason = "SecretsMountFailed"
	// ReasonRotationFailed: a mounted volume keeps its content, which may be old.
	ReasonRotationFailed Reason = "MountRotationFailed"
	// ReasonRotationComplete: a mounted volume has other content than before.
	ReasonRotationComplete Reason = "MountRotationComplete"
	// ReasonStale: the volume was mounted with an answer that is not new, because
	// the store is unreachable.
	ReasonStale Reason = "SecretsStale"
	// ReasonWaitingForProvider: the provider does not answer yet.
	ReasonWaitingForProvider Reason = "WaitingForProvider"
	// ReasonWaitingForGateway: the node's gateway is not there yet.
	ReasonWaitingForGateway Reason = "WaitingForGateway"
	// ReasonAttributesIgnored: the pod sets parameters that it may not set.
	ReasonAttributesIgnored Reason = "VolumeAttributesIgnored"
	// ReasonSecretFailed: a Kubernetes Secret that the class asks for is not as
	// it should be.
	ReasonSecretFailed Reason = "FailedToCreateSecret"
	// ReasonSecretComplete: a refresh changed a Kubernetes Secret.
	ReasonSecretComplete Reason = "SecretRotationComplete"
)

const (
	typeNormal  = "Normal"
	typeWarning = "Warning"

	// maxMessage is the longest message in bytes. The API has this limit for
	// the note of events.k8s.io, which shows the same events.
	maxMessage = 1024
	// maxDetail is the longest detail, so that the message keeps its place.
	maxDetail = 256
	// seriesWindow is how long an event is counted rather than told again.
	seriesWindow = 10 * time.Minute
	// repeatInterval is how often at most a count is written. It doubles with
	// each write up to repeatMax: a store may be away for hours, for the pods of
	// all nodes.
	repeatInterval = time.Minute
	repeatMax      = 10 * time.Minute
	// lateAfter is how old what could not be written is not worth it any more.
	// The API server itself keeps events for an hour.
	lateAfter = time.Hour
	// maxSeries bounds what is kept of all pods' events.
	maxSeries = 1024
	// maxDistinct is how many different messages of one reason a pod gets
	// within the window. Stores put request ids into their errors: each would
	// be an event of its own.
	maxDistinct = 5

	combinedPrefix = "(combined from similar events): "
)

// Event is what happened to a volume of a pod.
type Event struct {
	Pod Pod
	// Normal is set unless it is a warning.
	Normal bool
	Reason Reason
	// Message says what is wrong and what to do, in 1024 bytes. It must hold
	// no secret.
	Message string
	// Key, if set, tells events of one pod and reason apart instead of Message:
	// that of a lasting failure changes, with the store's request ids, and is
	// still one event.
	Key string
	// Detail (such as "42m old") and TraceID, if set, are added to the message.
	// They do not make an event differ from the one before.
	Detail, TraceID string
}

// seriesKey identifies events that are counted as one.
type seriesKey struct {
	podUID  string
	reason  Reason
	subject string // a hash of the key or message; empty: all further ones of this reason
}

// String is the key's place in the queue.
func (k seriesKey) String() string {
	return "event/" + k.podUID + "/" + string(k.reason) + "/" + k.subject
}

// series is one event of the API, with what is counted but not written yet.
type series struct {
	event  kube.Event
	writes int // that worked
	wrote  time.Time
}

// due tells whether the series is worth a write. Until there was one it is:
// the queue has it once only.
func (s *series) due(now time.Time) bool {
	const doublings = 4 // beyond repeatMax, and far from an overflow
	return s.writes == 0 || now.Sub(s.wrote) >= min(repeatInterval<<min(s.writes-1, doublings), repeatMax)
}

// noteResult is what became of an event that was noted.
type noteResult int

const (
	noteCounted noteResult = iota // no write is due
	noteDue                       // its series is to be written
	noteFull                      // there are too many series
)

// eventWriter writes events on pods.
//
// Invariants:
//  1. What is the same is told once per window and pod, then counted, at most
//     once a minute and ever more rarely.
//  2. A pod gets at most maxDistinct+1 events of one reason per window.
//  3. A pod that is gone gets none.
//  4. There are at most maxSeries series.
type eventWriter struct {
	api  Events
	node string

	mu     sync.Mutex
	series map[seriesKey]*series
}

func newEventWriter(api Events, node string) *eventWriter {
	return &eventWriter{api: api, node: node, series: make(map[seriesKey]*series)}
}

// note counts the event, and tells whether its series is to be written now.
func (w *eventWriter) note(e Event, now time.Time) (seriesKey, noteResult) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.expire(now)
	key := seriesKey{podUID: e.Pod.UID, reason: e.Reason, subject: shortHash(cmp.Or(e.Key, e.Message))}
	message := eventMessage("", e)
	noted, ok := w.series[key]
	if !ok && w.distinct(e) >= maxDistinct {
		key.subject = ""
		message = eventMessage(combinedPrefix, e)
		noted, ok = w.series[key]
	}
	if !ok {
		if len(w.series) >= maxSeries {
			return key, noteFull
		}
		noted = &series{event: w.newEvent(e, key, now)}
		w.series[key] = noted
	}
	noted.event.Message = message
	noted.event.Count++
	noted.event.Last = now
	if !noted.due(now) {
		return key, noteCounted
	}
	return key, noteDue
}

// expire needs w.mu. What was not written yet stays longer: the API server may
// be away.
func (w *eventWriter) expire(now time.Time) {
	for key, old := range w.series {
		age := now.Sub(old.event.Last)
		if age >= lateAfter || age >= seriesWindow && old.writes > 0 {
			delete(w.series, key)
		}
	}
}

// distinct needs w.mu. It counts the series of the event's pod and reason.
func (w *eventWriter) distinct(e Event) int {
	count := 0
	for key := range w.series {
		if key.podUID == e.Pod.UID && key.reason == e.Reason && key.subject != "" {
			count++
		}
	}
	return count
}

func (w *eventWriter) newEvent(e Event, key seriesKey, now time.Time) kube.Event {
	unique := shortHash(key.String() + strconv.FormatInt(now.UnixNano(), 16))
	kind := typeWarning
	if e.Normal {
		kind = typeNormal
	}
	return kube.Event{
		Name:      bounded(e.Pod.Name, maxObjectName-len(unique)-1) + "." + unique,
		Namespace: e.Pod.Namespace,
		PodName:   e.Pod.Name,
		PodUID:    e.Pod.UID,
		Type:      kind,
		Reason:    string(e.Reason),
		Component: Component,
		Node:      w.node,
		First:     now,
	}
}

// write writes the series as it is now.
func (w *eventWriter) write(ctx context.Context, key seriesKey) error {
	event, created, ok := w.begin(key)
	if !ok {
		return nil
	}
	if created {
		err := w.api.RepeatEvent(ctx, event)
		if !apierrors.IsNotFound(err) {
			return w.end(key, event, err)
		}
		// The API server keeps events for an hour.
	}
	exists, err := w.api.PodExists(ctx, event.Namespace, event.PodName, event.PodUID)
	switch {
	case apierrors.IsForbidden(err): // then it is not known, and most do
	case err != nil:
		return w.end(key, event, err)
	case !exists:
		w.forget(key)
		return nil
	}
	err = w.api.CreateEvent(ctx, event)
	if apierrors.IsAlreadyExists(err) {
		err = nil // an attempt whose answer was lost
	}
	return w.end(key, event, err)
}

// begin returns the series as it is now, unless that is too old to be told.
func (w *eventWriter) begin(key seriesKey) (event kube.Event, created, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.expire(time.Now())
	noted, ok := w.series[key]
	if !ok {
		return kube.Event{}, false, false
	}
	return noted.event, noted.writes > 0, true
}

// end notes what was written, or forgets what cannot be.
func (w *eventWriter) end(key seriesKey, event kube.Event, err error) error {
	if err != nil {
		if apierrors.IsNotFound(err) { // the namespace is
			err = fmt.Errorf("%w: %w", errDrop, err)
		}
		err = classify(err)
		if errors.Is(err, errDrop) {
			w.forget(key)
		}
		return fmt.Errorf("write event %s for pod %s/%s: %w", event.Reason, event.Namespace, event.PodName, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if noted, ok := w.series[key]; ok {
		noted.writes++
		noted.wrote = time.Now()
	}
	return nil
}

func (w *eventWriter) forget(key seriesKey) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.series, key)
}

// eventMessage is the message within its bounds; the trace id is never cut.
func eventMessage(prefix string, e Event) string {
	var added []string
	if e.Detail != "" {
		added = append(added, cut(e.Detail, maxDetail))
	}
	if e.TraceID != "" {
		added = append(added, "trace "+e.TraceID)
	}
	suffix := ""
	if len(added) > 0 {
		suffix = " (" + strings.Join(added, ", ") + ")"
	}
	return cut(prefix+e.Message, maxMessage-len(suffix)) + suffix
}

// cut returns as much of s as fits into limit bytes, as valid UTF-8.
func cut(s string, limit int) string {
	const ellipsis = "..."
	s = strings.ToValidUTF8(s, "?")
	if len(s) <= limit {
		return s
	}
	end := limit - len(ellipsis)
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + ellipsis
}
