package secretsync

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/postern-dev/postern/driver/internal/kube"
	"github.com/postern-dev/postern/internal/redact"
)

// upstreamFieldManager is how the API server knows what the upstream driver
// wrote: the first part of its user agent.
const upstreamFieldManager = "csi-secrets-store"

// fields is a set of fields in the form in which the API server keeps it.
// https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management
type fields map[string]any

// at returns the fields below a path such as "metadata", "labels".
func (f fields) at(path ...string) fields {
	for _, name := range path {
		below, ok := f["f:"+name].(map[string]any)
		if !ok {
			return nil
		}
		f = below
	}
	return f
}

// names returns the names of the fields.
func (f fields) names() []string {
	var names []string
	for key := range f {
		if name, ok := strings.CutPrefix(key, "f:"); ok {
			names = append(names, name)
		}
	}
	return names
}

// add makes f the union of both.
func (f fields) add(other fields) {
	for key, value := range other {
		below, ok := value.(map[string]any)
		mine, both := f[key].(map[string]any)
		if ok && both {
			fields(mine).add(below)
		} else if !both {
			f[key] = value
		}
	}
}

// ownership is which fields of a Secret the driver owns.
type ownership struct {
	// all is what it owns in whatever way.
	all fields
	// written is what it owns since it created the Secret, or the upstream
	// driver did: an apply that leaves such a field out does not remove it.
	written fields
}

func isOurs(entry *metav1.ManagedFieldsEntry) bool {
	return entry.Subresource == "" && (entry.Manager == kube.SecretFieldManager || entry.Manager == upstreamFieldManager)
}

func ownershipOf(meta *metav1.ObjectMeta) ownership {
	owned := ownership{all: fields{}, written: fields{}}
	for i := range meta.ManagedFields {
		entry := &meta.ManagedFields[i]
		if !isOurs(entry) {
			continue
		}
		// Each use decodes for itself, since a union shares what it is made of.
		owned.all.add(decodeFields(entry))
		if entry.Operation != metav1.ManagedFieldsOperationApply {
			owned.written.add(decodeFields(entry))
		}
	}
	return owned
}

// decodeFields returns no fields for what it does not understand: then they are
// applied again, and owned.
func decodeFields(entry *metav1.ManagedFieldsEntry) fields {
	decoded := fields{}
	if entry.FieldsV1 == nil || json.Unmarshal(entry.FieldsV1.Raw, &decoded) != nil {
		return fields{}
	}
	return decoded
}

// of returns that part of a Secret which the driver owns.
func (o ownership) of(secret *kube.Secret) *content {
	c := &content{kind: secret.Type, labels: map[string]string{}, annotations: map[string]string{}, data: map[string]redact.Bytes{}}
	pick(c.labels, secret.Metadata.Labels, o.all.at("metadata", "labels"))
	pick(c.annotations, secret.Metadata.Annotations, o.all.at("metadata", "annotations"))
	pick(c.data, secret.Data, o.all.at("data"))
	return c
}

func pick[T any](into, from map[string]T, owned fields) {
	for _, name := range owned.names() {
		if value, ok := from[name]; ok {
			into[name] = value
		}
	}
}

// keeps tells whether an apply of c would leave a field that c does not have.
func (o ownership) keeps(c *content) bool {
	return keepsAny(o.written.at("data"), c.data) || keepsAny(o.written.at("metadata", "labels"), c.labels) ||
		keepsAny(o.written.at("metadata", "annotations"), c.annotations)
}

func keepsAny[T any](written fields, applied map[string]T) bool {
	return slices.ContainsFunc(written.names(), func(name string) bool {
		_, ok := applied[name]
		return !ok
	})
}

// takeOver returns a merge patch that makes all that the driver owns its own by
// apply, so that the next apply removes what it leaves out.
func takeOver(meta *metav1.ObjectMeta) ([]byte, error) {
	owned := ownershipOf(meta)
	raw, err := json.Marshal(owned.all)
	if err != nil {
		return nil, fmt.Errorf("encode managed fields: %w", err)
	}
	entries := slices.DeleteFunc(slices.Clone(meta.ManagedFields), func(entry metav1.ManagedFieldsEntry) bool { return isOurs(&entry) })
	now := metav1.Now()
	entries = append(entries, metav1.ManagedFieldsEntry{
		Manager: kube.SecretFieldManager, Operation: metav1.ManagedFieldsOperationApply, APIVersion: "v1", Time: &now,
		FieldsType: "FieldsV1", FieldsV1: &metav1.FieldsV1{Raw: raw},
	})
	return json.Marshal(map[string]any{"metadata": map[string]any{
		"uid": meta.UID, "resourceVersion": meta.ResourceVersion, "managedFields": entries,
	}})
}

// union returns the owners that are there, as they are, and those that are not
// there yet.
func union(present, wanted []metav1.OwnerReference) []metav1.OwnerReference {
	all := slices.Clone(present)
	for _, owner := range wanted {
		if !slices.ContainsFunc(all, func(o metav1.OwnerReference) bool { return o.UID == owner.UID }) {
			all = append(all, owner)
		}
	}
	return all
}

func copyOf[T any](m map[string]T, more map[string]T) map[string]T {
	all := make(map[string]T, len(m)+len(more))
	maps.Copy(all, m)
	maps.Copy(all, more)
	return all
}
