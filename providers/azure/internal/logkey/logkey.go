// Package logkey names the attributes of the provider's log records. The names
// are those that all processes of Postern use.
package logkey

// The keys.
const (
	Attempt        = "attempt"
	Client         = "client"
	Duration       = "duration"
	Error          = "error"
	Identity       = "identity"
	Namespace      = "namespace"
	Operation      = "operation"
	ServiceAccount = "service_account"
	Status         = "status"
	Tenant         = "tenant"
)
