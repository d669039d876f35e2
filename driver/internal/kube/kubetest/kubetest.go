// Package kubetest is a small API server in memory, for tests: it speaks the
// routes that the driver uses, with resource versions, conflicts, merge
// patches and metadata-only answers. What it is asked can be looked at, and
// answered otherwise.
package kubetest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// Paths of collections.
const (
	coreV1    = "/api/v1"
	classesV1 = "/apis/secrets-store.csi.x-k8s.io/v1"
)

// Cluster is the API server with its objects.
//
// Invariants:
//  1. Every write gives the object a new resource version, larger than any before.
//  2. A write that names a resource version which is not the object's fails
//     with Conflict and changes nothing.
type Cluster struct {
	mu        sync.Mutex
	objects   map[string]map[string]any // by path
	version   int
	calls     []string
	intercept func(*http.Request) *metav1.Status
}

// New returns a cluster without objects.
func New() *Cluster {
	return &Cluster{objects: make(map[string]map[string]any)}
}

// RESTConfig reaches the cluster without a network, so that it may be used in
// a testing/synctest bubble.
func (c *Cluster) RESTConfig() *rest.Config {
	return &rest.Config{Host: "http://cluster.test", Transport: transport{c}}
}

// Intercept has f asked before each call. If it returns a status, that is the
// answer. It is called without any lock held, and may block.
func (c *Cluster) Intercept(f func(*http.Request) *metav1.Status) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.intercept = f
}

// Calls returns the calls so far, such as "GET /api/v1/nodes/a".
func (c *Cluster) Calls() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.calls)
}

// ResetCalls forgets the calls so far.
func (c *Cluster) ResetCalls() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = nil
}

// Put stores the object, which needs metadata.name, whether it is there or
// not. namespace "" is for nodes.
func (c *Cluster) Put(resource, namespace string, object any) error {
	encoded, err := json.Marshal(object)
	if err != nil {
		return fmt.Errorf("encode object: %w", err)
	}
	var stored map[string]any
	if err := json.Unmarshal(encoded, &stored); err != nil {
		return fmt.Errorf("decode object: %w", err)
	}
	name, _ := metadata(stored)["name"].(string)
	if name == "" {
		return errors.New("object has no name")
	}
	if namespace != "" {
		metadata(stored)["namespace"] = namespace
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.store(Path(resource, namespace, name), stored)
	return nil
}

// Get decodes an object into the given one and tells whether it is there.
func (c *Cluster) Get(resource, namespace, name string, into any) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	stored, ok := c.objects[Path(resource, namespace, name)]
	if !ok {
		return false, nil
	}
	encoded, err := json.Marshal(stored)
	if err != nil {
		return true, fmt.Errorf("encode object: %w", err)
	}
	return true, json.Unmarshal(encoded, into)
}

// Delete removes an object, if it is there.
func (c *Cluster) Delete(resource, namespace, name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.objects, Path(resource, namespace, name))
}

// Names returns the names of a namespace's objects of one kind, sorted.
func (c *Cluster) Names(resource, namespace string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	prefix := Path(resource, namespace, "")
	var names []string
	for _, path := range slices.Sorted(maps.Keys(c.objects)) {
		if name, ok := strings.CutPrefix(path, prefix); ok {
			names = append(names, name)
		}
	}
	return names
}

// Path is an object's path on the API server.
func Path(resource, namespace, name string) string {
	root := coreV1
	if strings.HasPrefix(resource, "secretprovider") {
		root = classesV1
	}
	if namespace == "" {
		return root + "/" + resource + "/" + name
	}
	return root + "/namespaces/" + namespace + "/" + resource + "/" + name
}

// Status is an answer for Intercept.
func Status(code int, reason metav1.StatusReason, message string) *metav1.Status {
	return &metav1.Status{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"},
		Status:   metav1.StatusFailure,
		Code:     int32(code),
		Reason:   reason,
		Message:  message,
	}
}

// ServeHTTP implements http.Handler.
func (c *Cluster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	c.calls = append(c.calls, r.Method+" "+r.URL.Path)
	intercept := c.intercept
	c.mu.Unlock()
	if intercept != nil {
		if status := intercept(r); status != nil {
			answer(w, int(status.Code), status)
			return
		}
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		answer(w, http.StatusBadRequest, Status(http.StatusBadRequest, metav1.StatusReasonBadRequest, err.Error()))
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	code, result := c.handle(r, body)
	answer(w, code, result)
}

// handle needs c.mu.
func (c *Cluster) handle(r *http.Request, body []byte) (int, any) {
	path := r.URL.Path
	if isSecret(path) {
		return c.handleSecret(r, body)
	}
	switch r.Method {
	case http.MethodGet:
		stored, ok := c.objects[path]
		if !ok {
			return notFound(path)
		}
		if strings.Contains(r.Header.Get("Accept"), "as=PartialObjectMetadata") {
			return http.StatusOK, map[string]any{
				"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": stored["metadata"],
			}
		}
		return http.StatusOK, stored
	case http.MethodPost:
		return c.create(path, body)
	case http.MethodPatch:
		if r.Header.Get("Content-Type") != "application/merge-patch+json" {
			return failure(http.StatusUnsupportedMediaType, metav1.StatusReasonUnsupportedMediaType, "only merge patches", path)
		}
		return c.patch(path, body)
	default:
		return failure(http.StatusMethodNotAllowed, metav1.StatusReasonMethodNotAllowed, "method not allowed", path)
	}
}

// create needs c.mu.
func (c *Cluster) create(collection string, body []byte) (int, any) {
	var created map[string]any
	if err := json.Unmarshal(body, &created); err != nil {
		return failure(http.StatusBadRequest, metav1.StatusReasonBadRequest, err.Error(), collection)
	}
	name, _ := metadata(created)["name"].(string)
	path := collection + "/" + name
	switch {
	case name == "":
		return failure(http.StatusUnprocessableEntity, metav1.StatusReasonInvalid, "name is required", path)
	case metadata(created)["resourceVersion"] != nil:
		return failure(http.StatusBadRequest, metav1.StatusReasonBadRequest, "resourceVersion should not be set on objects to be created", path)
	case c.objects[path] != nil:
		return failure(http.StatusConflict, metav1.StatusReasonAlreadyExists, fmt.Sprintf("%q already exists", name), path)
	}
	c.store(path, created)
	return http.StatusCreated, created
}

// patch needs c.mu.
func (c *Cluster) patch(path string, body []byte) (int, any) {
	var change map[string]any
	if err := json.Unmarshal(body, &change); err != nil {
		return failure(http.StatusBadRequest, metav1.StatusReasonBadRequest, err.Error(), path)
	}
	stored, ok := c.objects[path]
	if !ok {
		return notFound(path)
	}
	if meta, ok := change["metadata"].(map[string]any); ok {
		if version, ok := meta["resourceVersion"]; ok && version != metadata(stored)["resourceVersion"] {
			return failure(http.StatusConflict, metav1.StatusReasonConflict, "the object has been modified", path)
		}
	}
	merge(stored, change)
	c.store(path, stored)
	return http.StatusOK, stored
}

// store needs c.mu.
func (c *Cluster) store(path string, object map[string]any) {
	c.version++
	meta := metadata(object)
	meta["resourceVersion"] = strconv.Itoa(c.version)
	if meta["uid"] == nil {
		meta["uid"] = "uid-" + strconv.Itoa(c.version)
	}
	c.objects[path] = object
}

// merge applies a JSON merge patch (RFC 7386).
func merge(target, change map[string]any) {
	for key, value := range change {
		nested, isMap := value.(map[string]any)
		old, wasMap := target[key].(map[string]any)
		switch {
		case value == nil:
			delete(target, key)
		case isMap && wasMap:
			merge(old, nested)
		default:
			target[key] = value
		}
	}
}

func metadata(object map[string]any) map[string]any {
	meta, ok := object["metadata"].(map[string]any)
	if !ok {
		meta = make(map[string]any)
		object["metadata"] = meta
	}
	return meta
}

func notFound(path string) (int, any) {
	return failure(http.StatusNotFound, metav1.StatusReasonNotFound, "not found", path)
}

func failure(code int, reason metav1.StatusReason, message, path string) (int, any) {
	status := Status(code, reason, message)
	status.Details = &metav1.StatusDetails{Name: path[strings.LastIndex(path, "/")+1:]}
	return code, status
}

func answer(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body) // to a recorder, or to a client that left
}

// transport has the cluster answer in the caller's goroutine.
type transport struct{ cluster *Cluster }

// RoundTrip implements http.RoundTripper.
func (t transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body == nil {
		r = r.Clone(r.Context())
		r.Body = http.NoBody
	}
	defer r.Body.Close() //nolint:errcheck // it was read to its end
	recorder := httptest.NewRecorder()
	t.cluster.ServeHTTP(recorder, r)
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	response := recorder.Result()
	response.Request = r
	return response, nil
}
