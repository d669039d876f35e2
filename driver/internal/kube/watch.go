package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	apiv1 "github.com/postern-dev/postern/driver/api/v1"
	"github.com/postern-dev/postern/driver/internal/sleep"
	"github.com/postern-dev/postern/internal/logkey"
)

const (
	// The API server is asked to end a watch after a time between this and
	// twice as much, so that the watches of a cluster spread over its servers.
	watchLength = 5 * time.Minute
	// watchGrace is how long after that a watch is given up from this side.
	watchGrace = 30 * time.Second
	// The API server is shared by all nodes, so it is asked again ever later.
	firstWatchPause = time.Second
	lastWatchPause  = time.Minute
)

// WatchSecretProviderClass calls seen with the class's annotations as they
// are, if it is there, and again with each change of the class, until ctx ends.
// Of changes that come close together it may tell only the last. Whatever ends
// a watch, the next one begins with the class as it is then: no list is needed,
// and nothing that can be too old.
//
// It is without a reflector of client-go, which keeps several goroutines and a
// decoder of objects per watch. Trouble is logged once for all watches.
func (c *Client) WatchSecretProviderClass(ctx context.Context, namespace, name string, seen func(annotations map[string]string)) {
	w := &classWatch{client: c, namespace: namespace, name: name, seen: seen}
	defer w.recover(ctx)
	pause := firstWatchPause
	for ctx.Err() == nil {
		started := time.Now()
		err := w.once(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(started) >= lastWatchPause {
			pause = firstWatchPause
		}
		if pause == lastWatchPause && err != nil {
			w.fail(ctx, err)
		}
		// With jitter: an API server that ends ends the watches of all nodes.
		sleep.For(ctx, max(rand.N(pause), suggestedDelay(err))) //nolint:gosec // not for a secret
		pause = min(2*pause, lastWatchPause)
	}
}

// classWatch is one call of WatchSecretProviderClass.
type classWatch struct {
	client          *Client
	namespace, name string
	seen            func(annotations map[string]string)
	version         string // the resource version that was seen last
	failing         bool
}

// watchEvent is one line of a watch: of its object what is needed, be it a
// class's metadata or, where the type says so, the status of an error.
// https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
type watchEvent struct {
	Type   string `json:"type"`
	Object struct {
		Metadata struct {
			Annotations     map[string]string `json:"annotations"`
			ResourceVersion string            `json:"resourceVersion"`
		} `json:"metadata"`
		Reason  metav1.StatusReason `json:"reason"`
		Message string              `json:"message"`
		Code    int32               `json:"code"`
	} `json:"object"`
}

// errNoAnswer is the cause of a watch's end that did not begin.
var errNoAnswer = errors.New("no answer in time")

// once watches until the API server, the connection or ctx ends it. No error
// says that the API server did, as it does from time to time.
func (w *classWatch) once(ctx context.Context) error {
	length := watchLength + rand.N(watchLength) //nolint:gosec // not for a secret
	ctx, stop := context.WithTimeout(ctx, length+watchGrace)
	defer stop()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	opening := time.AfterFunc(w.client.http.Timeout, func() { cancel(errNoAnswer) })
	stream, err := w.request(length).Stream(ctx)
	opening.Stop()
	if err != nil {
		if cause := context.Cause(ctx); errors.Is(cause, errNoAnswer) {
			return cause
		}
		return err
	}
	defer stream.Close() //nolint:errcheck // it was only read
	w.recover(ctx)
	return w.follow(stream)
}

// request asks for the class's metadata "as of any version", with which a watch
// begins with the object as the API server has it in memory.
// https://kubernetes.io/docs/reference/using-api/api-concepts/#semantics-for-watch
func (w *classWatch) request(length time.Duration) *rest.Request {
	return w.client.watches.Get().Namespace(w.namespace).Resource(apiv1.ResourceSecretProviderClasses).
		SetHeader("Accept", acceptMetadata).
		Param("watch", "true").
		Param("fieldSelector", "metadata.name="+w.name).
		Param("resourceVersion", "0").
		Param("timeoutSeconds", strconv.Itoa(int(length.Seconds()))).
		MaxRetries(0) // it is repeated here, with the delay that the API server wants
}

func (w *classWatch) follow(stream io.Reader) error {
	events := json.NewDecoder(stream)
	for {
		var event watchEvent
		if err := events.Decode(&event); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		object := &event.Object
		switch event.Type {
		case "ADDED", "MODIFIED":
			if object.Metadata.ResourceVersion != w.version {
				w.version = object.Metadata.ResourceVersion
				w.seen(object.Metadata.Annotations)
			}
		case "ERROR":
			return &apierrors.StatusError{ErrStatus: metav1.Status{
				Status: metav1.StatusFailure, Code: object.Code, Reason: object.Reason, Message: object.Message,
			}}
		}
	}
}

func (w *classWatch) fail(ctx context.Context, err error) {
	if w.failing {
		return
	}
	w.failing = true
	what := fmt.Sprintf("watch secretproviderclass %s/%s", w.namespace, w.name)
	w.client.outage.begin(ctx, w.client.logger, explain(what, err))
}

func (w *classWatch) recover(ctx context.Context) {
	if !w.failing {
		return
	}
	w.failing = false
	w.client.outage.end(ctx, w.client.logger)
}

// outage logs when the first of several watches fails, and when none does any
// more. The zero value is ready.
type outage struct {
	mu      sync.Mutex
	failing int
}

func (o *outage) begin(ctx context.Context, logger *slog.Logger, err error) {
	o.mu.Lock()
	o.failing++
	first := o.failing == 1
	o.mu.Unlock()
	if first {
		logger.LogAttrs(ctx, slog.LevelWarn, "does not see requests to refresh at once", slog.String(logkey.Error, err.Error()))
	}
}

func (o *outage) end(ctx context.Context, logger *slog.Logger) {
	o.mu.Lock()
	o.failing--
	last := o.failing == 0
	o.mu.Unlock()
	if last && ctx.Err() == nil {
		logger.LogAttrs(ctx, slog.LevelInfo, "sees requests to refresh again")
	}
}

// suggestedDelay is how long the API server asks to be left alone, if it does.
func suggestedDelay(err error) time.Duration {
	seconds, _ := apierrors.SuggestsClientDelay(err)
	return time.Duration(seconds) * time.Second
}
