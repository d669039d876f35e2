// Package logkey names the attributes of the provider's log records. The names
// are those that all processes of Postern use.
package logkey

// The keys.
const (
	Error          = "error"
	Namespace      = "namespace"
	Region         = "region"
	Role           = "role"
	ServiceAccount = "service_account"
)
