package kube_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	apiv1 "github.com/postern-dev/postern/driver/api/v1"
	"github.com/postern-dev/postern/driver/internal/kube"
	"github.com/postern-dev/postern/driver/internal/kube/kubetest"
)

// watchAPI is the part of an API server that answers watches, as the test says.
type watchAPI struct {
	// answer is asked for each request, which are counted from 0.
	answer func(n int, r *http.Request) (*http.Response, error)

	mu       sync.Mutex
	requests []*http.Request
	times    []time.Time
}

// RoundTrip implements http.RoundTripper.
func (a *watchAPI) RoundTrip(r *http.Request) (*http.Response, error) {
	a.mu.Lock()
	n := len(a.requests)
	a.requests = append(a.requests, r)
	a.times = append(a.times, time.Now())
	a.mu.Unlock()
	return a.answer(n, r)
}

func (a *watchAPI) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.requests)
}

// watch watches class shop/db until the test ends; what is seen comes out of
// the channel: the value of the annotation for refreshes.
func (a *watchAPI) watch(t *testing.T, logger *slog.Logger) <-chan string {
	t.Helper()
	seen := make(chan string, 100)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	client := a.client(t, logger)
	go func() {
		defer close(ended)
		client.WatchSecretProviderClass(ctx, "shop", "db", func(annotations map[string]string) {
			seen <- annotations[apiv1.AnnotationRefresh]
		})
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return seen
}

func (a *watchAPI) client(t *testing.T, logger *slog.Logger) *kube.Client {
	t.Helper()
	client, err := kube.New(kube.Config{RESTConfig: &rest.Config{Host: "http://cluster.test", Transport: a}, Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// event is a line of a watch.
func event(kind, version, refresh string) string {
	return fmt.Sprintf(`{"type":%q,"object":{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1",`+
		`"metadata":{"name":"db","resourceVersion":%q,"annotations":{"postern.dev/refresh":%q}}}}`+"\n", kind, version, refresh)
}

// stream answers with a watch that tells this, and then what is written to the
// pipe. It ends with the request.
func stream(r *http.Request, events ...string) (*http.Response, *io.PipeWriter) {
	reader, writer := io.Pipe()
	context.AfterFunc(r.Context(), func() { writer.CloseWithError(context.Cause(r.Context())) })
	return &http.Response{
		StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Request: r,
		Body: struct {
			io.Reader
			io.Closer
		}{io.MultiReader(strings.NewReader(strings.Join(events, "")), reader), reader},
	}, writer
}

func steady(r *http.Request, events ...string) (*http.Response, error) {
	response, _ := stream(r, events...)
	return response, nil
}

func refused(r *http.Request, status *metav1.Status) (*http.Response, error) {
	body, err := json.Marshal(status)
	if err != nil {
		return nil, err
	}
	header := http.Header{"Content-Type": {"application/json"}}
	return &http.Response{StatusCode: int(status.Code), Header: header, Request: r, Body: io.NopCloser(bytes.NewReader(body))}, nil
}

// tooEarly is the answer of an API server that starts.
func tooEarly(seconds int32) *metav1.Status {
	status := kubetest.Status(429, metav1.StatusReasonTooManyRequests, "storage is (re)initializing")
	status.Details = &metav1.StatusDetails{RetryAfterSeconds: seconds}
	return status
}

// received returns what came so far.
func received(seen <-chan string) []string {
	var all []string
	for {
		select {
		case value := <-seen:
			all = append(all, value)
		default:
			return all
		}
	}
}

// refusing is an API server that refuses while it is told to.
type refusing struct {
	watchAPI

	mu  sync.Mutex
	yes bool
}

func newRefusing() *refusing {
	a := &refusing{yes: true}
	a.answer = func(_ int, r *http.Request) (*http.Response, error) {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.yes {
			return refused(r, kubetest.Status(403, metav1.StatusReasonForbidden, "cannot watch"))
		}
		response, open := stream(r, event("ADDED", "1", "a"))
		time.AfterFunc(5*time.Minute, func() { _ = open.Close() })
		return response, nil
	}
	return a
}

func (a *refusing) set(yes bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.yes = yes
}
