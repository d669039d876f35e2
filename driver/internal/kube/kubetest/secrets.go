package kubetest

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const secretsPart = "/secrets"

func isSecret(path string) bool {
	return strings.HasSuffix(path, secretsPart) || strings.Contains(path, secretsPart+"/")
}

// handleSecret needs c.mu. Secrets know who owns which field, as server-side
// apply has it. kube's tests hold it to the answers of a real API server.
func (c *Cluster) handleSecret(r *http.Request, body []byte) (int, any) {
	code, result := c.answerSecret(r, body)
	object, ok := result.(map[string]any)
	if ok && code < http.StatusMultipleChoices && strings.Contains(r.Header.Get("Accept"), "as=PartialObjectMetadata;") {
		return code, map[string]any{"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": object["metadata"]}
	}
	return code, result
}

// answerSecret needs c.mu.
func (c *Cluster) answerSecret(r *http.Request, body []byte) (int, any) {
	path, manager := r.URL.Path, r.URL.Query().Get("fieldManager")
	live := c.objects[path]
	switch {
	case r.Method == http.MethodGet && strings.HasSuffix(path, secretsPart):
		return c.listSecrets(path, r.URL.Query().Get("labelSelector"))
	case r.Method == http.MethodPost:
		return c.createSecret(path, manager, body)
	case live == nil && r.Method == http.MethodPatch && applies(r):
		return c.applyNew(path, manager, body)
	case live == nil:
		return notFound(path)
	case r.Method == http.MethodGet:
		return http.StatusOK, live
	case r.Method == http.MethodDelete:
		return c.deleteSecret(path, live, body)
	case r.Method == http.MethodPatch:
		return c.patchSecret(path, live, body, author{manager: manager, apply: applies(r), force: r.URL.Query().Get("force") == "true"})
	default:
		return failure(http.StatusMethodNotAllowed, metav1.StatusReasonMethodNotAllowed, "method not allowed", path)
	}
}

func applies(r *http.Request) bool {
	return strings.HasPrefix(r.Header.Get("Content-Type"), "application/apply-patch")
}

// listSecrets needs c.mu.
func (c *Cluster) listSecrets(collection, selector string) (int, any) {
	label, value, _ := strings.Cut(selector, "=")
	items := []any{}
	for _, path := range slices.Sorted(maps.Keys(c.objects)) {
		if !strings.HasPrefix(path, collection+"/") {
			continue
		}
		meta := metadata(c.objects[path])
		labels, _ := meta["labels"].(map[string]any)
		if selector == "" || labels[label] == value {
			items = append(items, map[string]any{"metadata": meta})
		}
	}
	return http.StatusOK, map[string]any{
		"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList", "metadata": map[string]any{}, "items": items,
	}
}

// createSecret needs c.mu.
func (c *Cluster) createSecret(collection, manager string, body []byte) (int, any) {
	code, result := c.create(collection, body)
	if created, ok := result.(map[string]any); ok {
		owners := managers{author{manager: manager}: leaves(created)}
		metadata(created)["managedFields"] = owners.encode()
	}
	return code, result
}

// applyNew needs c.mu. A resource version counts for nothing then.
func (c *Cluster) applyNew(path, manager string, body []byte) (int, any) {
	var created map[string]any
	if err := json.Unmarshal(body, &created); err != nil {
		return failure(http.StatusBadRequest, metav1.StatusReasonBadRequest, err.Error(), path)
	}
	owners := managers{author{manager: manager, apply: true}: leaves(created)}
	metadata(created)["managedFields"] = owners.encode()
	c.store(path, created)
	return http.StatusCreated, created
}

// deleteSecret needs c.mu.
func (c *Cluster) deleteSecret(path string, live map[string]any, body []byte) (int, any) {
	var options metav1.DeleteOptions
	if len(body) > 0 {
		if err := json.Unmarshal(body, &options); err != nil {
			return failure(http.StatusBadRequest, metav1.StatusReasonBadRequest, err.Error(), path)
		}
	}
	meta := metadata(live)
	if p := options.Preconditions; p != nil {
		if p.UID != nil && string(*p.UID) != meta["uid"] || p.ResourceVersion != nil && *p.ResourceVersion != meta["resourceVersion"] {
			return failure(http.StatusConflict, metav1.StatusReasonConflict, "the preconditions do not hold", path)
		}
	}
	if finalizers, _ := meta["finalizers"].([]any); len(finalizers) > 0 {
		meta["deletionTimestamp"] = "2026-01-01T00:00:00Z"
		c.store(path, live)
		return http.StatusOK, live
	}
	delete(c.objects, path)
	return http.StatusOK, Status(http.StatusOK, "", "")
}

// patchSecret needs c.mu.
func (c *Cluster) patchSecret(path string, live map[string]any, body []byte, by author) (int, any) {
	var change map[string]any
	if err := json.Unmarshal(body, &change); err != nil {
		return failure(http.StatusBadRequest, metav1.StatusReasonBadRequest, err.Error(), path)
	}
	for _, field := range []string{"resourceVersion", "uid"} {
		if given, ok := metadata(change)[field]; ok && given != metadata(live)[field] {
			return failure(http.StatusConflict, metav1.StatusReasonConflict, "the object has been modified: "+field, path)
		}
		delete(metadata(change), field)
	}
	next := clone(live)
	owners := decodeManagers(metadata(live)["managedFields"])
	if force := by.force; by.apply {
		by.force = false
		if !owners.apply(next, change, by) && !force {
			return failure(http.StatusConflict, metav1.StatusReasonConflict, "others own what is applied", path)
		}
	} else {
		merge(next, change)
		if _, given := metadata(change)["managedFields"]; given {
			owners = decodeManagers(metadata(next)["managedFields"])
		}
		owners.update(leaves(live), leaves(next), by)
	}
	if refusal := refuse(live, next); refusal != "" {
		return failure(http.StatusUnprocessableEntity, metav1.StatusReasonInvalid, refusal, path)
	}
	metadata(next)["managedFields"] = owners.encode()
	if reflect.DeepEqual(clone(next), clone(live)) {
		return http.StatusOK, live // nothing is written
	}
	c.store(path, next)
	return http.StatusOK, next
}

// refuse is as much of the validation as matters.
func refuse(live, next map[string]any) string {
	switch {
	case live["type"] != next["type"]:
		return "type: Invalid value: field is immutable"
	case live["immutable"] == true && !reflect.DeepEqual(live["data"], next["data"]):
		return "data: Forbidden: field is immutable when `immutable` is set"
	default:
		return ""
	}
}

// author is who wrote, and how.
type author struct {
	manager string
	apply   bool
	// force is of one request, and false in managers.
	force bool
}

// path is a field's path, in the names of fieldsV1 and with pathEnd after each.
type path = string

const pathEnd = "\x00"

// managers are the fields that each author owns.
type managers map[author]map[path]any

// update notes what an author changed.
func (m managers) update(before, after map[path]any, by author) {
	mine := m[by]
	if mine == nil {
		mine = map[path]any{}
	}
	for field := range before {
		if _, stays := after[field]; !stays {
			m.disown(field)
		}
	}
	for field, value := range after {
		if old, ok := before[field]; !ok || !reflect.DeepEqual(old, value) {
			m.disown(field)
			mine[field] = true
		}
	}
	m[by] = mine
}

func (m managers) disown(field path) {
	for _, fields := range m {
		delete(fields, field)
	}
}

// apply writes an author's whole will, by force. It tells whether force was not
// needed.
func (m managers) apply(object, will map[string]any, by author) (gentle bool) {
	before, wanted := leaves(object), leaves(will)
	previous := m[by]
	delete(m, by)
	gentle = true
	for field, value := range wanted {
		if old, ok := before[field]; !ok || !reflect.DeepEqual(old, value) {
			gentle = gentle && !m.owned(field)
			m.disown(field)
		}
		set(object, field, value)
	}
	for field := range previous {
		if _, stays := wanted[field]; !stays && !m.owned(field) {
			set(object, field, nil)
		}
	}
	m[by] = wanted
	return gentle
}

func (m managers) owned(field path) bool {
	for _, fields := range m {
		if _, ok := fields[field]; ok {
			return true
		}
	}
	return false
}

func (m managers) encode() []any {
	entries := []any{}
	for _, by := range slices.SortedFunc(maps.Keys(m), func(a, b author) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) }) {
		tree := map[string]any{}
		for field := range m[by] {
			below := tree
			for _, name := range strings.Split(strings.TrimSuffix(field, pathEnd), pathEnd) {
				if _, ok := below[name]; !ok {
					below[name] = map[string]any{}
				}
				below = below[name].(map[string]any) //nolint:forcetypeassert // made above
			}
		}
		operation := "Update"
		if by.apply {
			operation = "Apply"
		}
		if len(tree) > 0 {
			entries = append(entries, map[string]any{
				"manager": by.manager, "operation": operation, "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": tree,
			})
		}
	}
	return entries
}

func decodeManagers(encoded any) managers {
	m := managers{}
	entries, _ := encoded.([]any)
	for _, entry := range entries {
		fields, _ := entry.(map[string]any)
		by := author{apply: fields["operation"] == "Apply"}
		by.manager, _ = fields["manager"].(string)
		tree, _ := fields["fieldsV1"].(map[string]any)
		m[by] = map[path]any{}
		walk(tree, "", func(field path) { m[by][field] = true })
	}
	return m
}

func walk(tree map[string]any, prefix path, leaf func(path)) {
	for name, below := range tree {
		if inner, ok := below.(map[string]any); ok && len(inner) > 0 {
			walk(inner, prefix+name+pathEnd, leaf)
			continue
		}
		leaf(prefix + name + pathEnd)
	}
}

// leaves are the fields of a Secret that somebody can own.
func leaves(object map[string]any) map[path]any {
	found := map[path]any{}
	for _, name := range []string{"type", "immutable"} {
		if value, ok := object[name]; ok {
			found["f:"+name+pathEnd] = value
		}
	}
	meta := metadata(object)
	for prefix, values := range map[path]any{
		"f:data" + pathEnd: object["data"], "f:metadata" + pathEnd + "f:labels" + pathEnd: meta["labels"],
		"f:metadata" + pathEnd + "f:annotations" + pathEnd: meta["annotations"],
	} {
		inner, _ := values.(map[string]any)
		for name, value := range inner {
			found[prefix+"f:"+name+pathEnd] = value
		}
	}
	owners, _ := meta["ownerReferences"].([]any)
	for _, owner := range owners {
		reference, _ := owner.(map[string]any)
		found["f:metadata"+pathEnd+"f:ownerReferences"+pathEnd+fmt.Sprintf(`k:{"uid":%q}`, reference["uid"])+pathEnd] = reference
	}
	return found
}

// set writes a field; nil removes it.
func set(object map[string]any, field path, value any) {
	names := strings.Split(strings.TrimSuffix(field, pathEnd), pathEnd)
	last := names[len(names)-1]
	if strings.HasPrefix(last, "k:") {
		setOwner(metadata(object), last, value)
		return
	}
	for _, name := range names[:len(names)-1] {
		name = strings.TrimPrefix(name, "f:")
		if _, ok := object[name].(map[string]any); !ok {
			object[name] = map[string]any{}
		}
		object = object[name].(map[string]any) //nolint:forcetypeassert // made above
	}
	if last = strings.TrimPrefix(last, "f:"); value == nil {
		delete(object, last)
		return
	}
	object[last] = value
}

func setOwner(meta map[string]any, key string, value any) {
	owners, _ := meta["ownerReferences"].([]any)
	owners = slices.DeleteFunc(slices.Clone(owners), func(owner any) bool {
		reference, _ := owner.(map[string]any)
		return fmt.Sprintf(`k:{"uid":%q}`, reference["uid"]) == key
	})
	if value != nil {
		owners = append(owners, value)
	}
	meta["ownerReferences"] = owners
}

// clone is a deep copy.
func clone(object map[string]any) map[string]any {
	encoded, _ := json.Marshal(object) // it was decoded from JSON
	var copied map[string]any
	_ = json.Unmarshal(encoded, &copied) // it was just encoded
	return copied
}
