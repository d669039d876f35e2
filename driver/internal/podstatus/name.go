package podstatus

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

const (
	// maxObjectName is the longest name of an object: a DNS subdomain (RFC 1123).
	maxObjectName = 253
	// maxLabelValue is the longest value of a label.
	maxLabelValue = 63
	hashLength    = 10
)

// objectName is the name that the upstream driver gives, and that other
// people's tools look for. Where it is longer than a name may be, it is cut
// and ends in a hash of the whole.
func objectName(s Status) string {
	return bounded(s.Pod.Name+"-"+s.Pod.Namespace+"-"+s.SecretProviderClass, maxObjectName)
}

// volumeObjectName is for a volume whose objectName another volume has: a pod
// may mount one class twice, and x-n/n/y gives the same name as x/n/n-y.
func volumeObjectName(s Status) string {
	return suffixed(objectName(s), shortHash(s.VolumeID), maxObjectName)
}

// nodeLabel is the node's name as the value of a label.
func nodeLabel(node string) string { return bounded(node, maxLabelValue) }

// bounded returns name, or as much of it as fits with a hash of the whole.
func bounded(name string, limit int) string {
	if len(name) <= limit {
		return name
	}
	return suffixed(name, shortHash(name), limit)
}

// suffixed joins both with a dash, cutting name so that the result is at most
// limit bytes and still valid: no part of a DNS name or label value may end in
// a dot or dash.
func suffixed(name, suffix string, limit int) string {
	kept := name[:min(len(name), limit-len(suffix)-1)]
	return strings.TrimRight(kept, "-._") + "-" + suffix
}

func shortHash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])[:hashLength]
}
