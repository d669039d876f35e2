// Package logkey names the attributes of the provider's log records. The names
// are those that all processes of Postern use.
package logkey

// The keys.
const (
	Address        = "address"
	Error          = "error"
	Namespace      = "namespace"
	Object         = "object"
	Path           = "path"
	Pod            = "pod"
	Role           = "role"
	ServiceAccount = "service_account"
	VolumeID       = "volume_id"
	Warning        = "warning"
)
