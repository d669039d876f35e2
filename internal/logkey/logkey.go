// Package logkey names the attributes of log records and of spans.
//
// One name for one thing in every process, so that a search over the logs of
// driver, gateway and providers finds all that concerns a pod or a volume.
package logkey

// The keys, in snake_case. What a value looks like is said where that is not
// plain from the name.
const (
	// Address is a network address, host:port.
	Address = "address"
	// Attempt counts from 1.
	Attempt = "attempt"
	// Code is a gRPC status code's name, such as PermissionDenied.
	Code = "code"
	// Component is the part of a process that speaks.
	Component = "component"
	// Count is how many there are of what the message names.
	Count = "count"
	// Duration is how long something took.
	Duration = "duration"
	// Error is the text of an error.
	Error = "error"
	// Instance is one of several processes of a provider.
	Instance = "instance"
	// Message is the text of an event.
	Message = "message"
	// Method is a full RPC method name, such as /postern.gateway.v1.GatewayService/Fetch.
	Method = "method"
	// Name is the name of what the message is about, where no other key fits.
	Name = "name"
	// Namespace is a Kubernetes namespace.
	Namespace = "namespace"
	// Object is the id of an object in a store.
	Object = "object"
	// Path is a file's path.
	Path = "path"
	// PeerPID is the process id of the other end of a unix socket.
	PeerPID = "peer_pid"
	// PeerUID is the user id of the other end of a unix socket.
	PeerUID = "peer_uid"
	// Pod is a pod's name.
	Pod = "pod"
	// Provider is the name of a provider, such as vault.
	Provider = "provider"
	// Reason is an error's reason, such as OBJECT_NOT_FOUND.
	Reason = "reason"
	// Role is the part a process plays.
	Role = "role"
	// Rule is the name of a rule of the gateway's policy.
	Rule = "rule"
	// SecretProviderClass is the name of a SecretProviderClass.
	SecretProviderClass = "secret_provider_class"
	// ServiceAccount is the name of a pod's service account.
	ServiceAccount = "service_account"
	// Socket is the path of a unix socket.
	Socket = "socket"
	// SpanID is a W3C span id, 16 hex digits.
	SpanID = "span_id"
	// Stack is a goroutine's stack.
	Stack = "stack"
	// State is the state something is in now.
	State = "state"
	// TargetPath is where kubelet wants a volume.
	TargetPath = "target_path"
	// TraceID is a W3C trace id, 32 hex digits.
	TraceID = "trace_id"
	// Version is the version of a process or an object.
	Version = "version"
	// VolumeID is the CSI volume id.
	VolumeID = "volume_id"
	// Warning is the text of something that is no error but wants attention.
	Warning = "warning"
)
