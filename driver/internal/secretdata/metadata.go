package secretdata

import (
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

const (
	// LabelManaged marks the Secrets that the driver keeps.
	LabelManaged = "secrets-store.csi.k8s.io/managed"
	// LabelManagedValue is what LabelManaged is set to. A class may do so too,
	// as it could with the upstream driver.
	LabelManagedValue = "true"

	// reservedPrefix is that of the driver's own labels and annotations.
	reservedPrefix = "postern.dev/"
	// lastApplied is kubectl's: with it, "kubectl apply" of something else
	// would take fields away.
	lastApplied = "kubectl.kubernetes.io/last-applied-configuration"

	// maxAnnotations is the API server's limit of all annotations' bytes. Half
	// of it is left for the driver's own.
	maxAnnotations = 256 << 10 / 2
)

func checkMetadata(secret Secret, found *problems) {
	if secret.Name == "" {
		found.add("secretName", "is not set: name the Kubernetes Secret")
	} else {
		for _, problem := range validation.IsDNS1123Subdomain(secret.Name) {
			found.add("secretName", "is not a name for a Secret: %s", problem)
		}
	}
	checkLabels(secret.Labels, found)
	checkAnnotations(secret.Annotations, found)
}

func checkLabels(labels map[string]string, found *problems) {
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		value := labels[key]
		for _, problem := range validation.IsQualifiedName(key) {
			found.add("labels", "key %.100q is not valid: %s", key, problem)
		}
		for _, problem := range validation.IsValidLabelValue(value) {
			found.add("labels", "value of %.100q is not valid: %s", key, problem)
		}
		if isReserved(key, value) {
			found.add("labels", "key %.100q is the driver's own: remove it", key)
		}
	}
}

func checkAnnotations(annotations map[string]string, found *problems) {
	size := 0
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		value := annotations[key]
		size += len(key) + len(value)
		// The API server does not mind capitals here.
		for _, problem := range validation.IsQualifiedName(strings.ToLower(key)) {
			found.add("annotations", "key %.100q is not valid: %s", key, problem)
		}
		switch {
		case isReserved(key, value):
			found.add("annotations", "key %.100q is the driver's own: remove it", key)
		case key == lastApplied:
			found.add("annotations", "key %q is kubectl's own: remove it", key)
		}
	}
	if size > maxAnnotations {
		found.add("annotations", "have %d bytes in sum: shorten them to %d", size, maxAnnotations)
	}
}

func isReserved(key, value string) bool {
	if key == LabelManaged {
		return value != LabelManagedValue
	}
	return strings.HasPrefix(key, reservedPrefix)
}
