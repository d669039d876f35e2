package podstatus

import (
	"context"
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
	// ReasonRefreshFailed: a mounted volume keeps its content, which may be old.
	ReasonRefreshFailed Reason = "SecretsRefreshFailed"
	// ReasonStale: the volume was mounted with an answer that is not new, because
	// the store is unreachable.
	ReasonStale Reason = "SecretsStale"
	// ReasonWaitingForProvider: the provider does not answer yet.
	ReasonWaitingForProvider Reason = "WaitingForProvider"
	// ReasonWaitingForGateway: the node's gateway is not there yet.
	ReasonWaitingForGateway Reason = "WaitingForGateway"
	// ReasonAttributesIgnored: the pod sets parameters that it may not set.
	ReasonAttributesIgnored Reason = "VolumeAttributesIgnored"
)

const (
	typeWarning = "Warning"

	// maxMessage is the longest message in bytes. The API has this limit for
	// the note of events.k8s.io, which shows the same events.
	maxMessage = 1024
	// seriesWindow is how long an event is counted rather than told again.
	seriesWindow = 10 * time.Minute
	// repeatInterval is how often at most a count is written.
	repeatInterval = time.Minute
	// maxSeries bounds what is kept of all pods' events.
	maxSeries = 1024
	// maxDistinct is how many different messages of one reason a pod gets
	// within the window. Stores put request ids into their errors: each would
	// be an event of its own.
	maxDistinct = 5

	combinedPrefix = "(combined from similar events): "
)

// Event is a warning on a pod.
type Event struct {
	Pod    Pod
	Reason Reason
	// Message says what is wrong and what to do, in 1024 bytes. It must hold
	// no secret.
	Message string
	// TraceID, if known, is added to the message. It does not make an event
	// differ from the one before.
	TraceID string
}

// seriesKey identifies events that are counted as one.
type seriesKey struct {
	podUID  string
	reason  Reason
	message string // a hash; empty: all further messages of this reason
}

// String is the key's place in the queue.
func (k seriesKey) String() string {
	return "event/" + k.podUID + "/" + string(k.reason) + "/" + k.message
}

// series is one event of the API, with what is counted but not written yet.
type series struct {
	event   kube.Event
	created bool
	wrote   time.Time
}

// eventWriter writes events on pods.
//
// Invariants:
//  1. A message is told once per window and pod, then counted, at most once a
//     minute.
//  2. A pod gets at most maxDistinct+1 events of one reason per window.
//  3. A pod that is gone gets none.
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
func (w *eventWriter) note(e Event, now time.Time) (seriesKey, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.expire(now)
	key := seriesKey{podUID: e.Pod.UID, reason: e.Reason, message: shortHash(e.Message)}
	message := eventMessage("", e)
	noted, ok := w.series[key]
	if !ok && w.distinct(e) >= maxDistinct {
		key.message = ""
		message = eventMessage(combinedPrefix, e)
		noted, ok = w.series[key]
	}
	if !ok {
		if len(w.series) >= maxSeries {
			return key, false
		}
		noted = &series{event: w.newEvent(e, now)}
		w.series[key] = noted
	}
	noted.event.Message = message
	noted.event.Count++
	noted.event.Last = now
	// Until it is created it is to be written: the queue has it once only.
	return key, !noted.created || now.Sub(noted.wrote) >= repeatInterval
}

// expire needs w.mu.
func (w *eventWriter) expire(now time.Time) {
	for key, old := range w.series {
		if now.Sub(old.event.Last) >= seriesWindow {
			delete(w.series, key)
		}
	}
}

// distinct needs w.mu. It counts the messages of the event's pod and reason.
func (w *eventWriter) distinct(e Event) int {
	count := 0
	for key := range w.series {
		if key.podUID == e.Pod.UID && key.reason == e.Reason && key.message != "" {
			count++
		}
	}
	return count
}

func (w *eventWriter) newEvent(e Event, now time.Time) kube.Event {
	unique := shortHash(e.Pod.UID + string(e.Reason) + e.Message + strconv.FormatInt(now.UnixNano(), 16))
	return kube.Event{
		Name:      bounded(e.Pod.Name, maxObjectName-len(unique)-1) + "." + unique,
		Namespace: e.Pod.Namespace,
		PodName:   e.Pod.Name,
		PodUID:    e.Pod.UID,
		Type:      typeWarning,
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

// begin returns the series as it is now.
func (w *eventWriter) begin(key seriesKey) (event kube.Event, created, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	noted, ok := w.series[key]
	if !ok {
		return kube.Event{}, false, false
	}
	return noted.event, noted.created, true
}

// end notes what was written, or forgets what cannot be.
func (w *eventWriter) end(key seriesKey, event kube.Event, err error) error {
	if err != nil {
		err = fmt.Errorf("write event %s for pod %s/%s: %w", event.Reason, event.Namespace, event.PodName, err)
		if isNamespaceGone(err) || apierrors.IsNotFound(err) {
			w.forget(key)
			return fmt.Errorf("%w: %w", errDrop, err)
		}
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if noted, ok := w.series[key]; ok {
		noted.created, noted.wrote = true, time.Now()
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
	suffix := ""
	if e.TraceID != "" {
		suffix = " (trace " + e.TraceID + ")"
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
