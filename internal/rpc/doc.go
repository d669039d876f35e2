// Package rpc puts gRPC servers together, all in the same way, and carries
// errors over the wire with what a caller needs to act on them.
//
// A Server has a fixed order of work around each call, outermost first:
//
//	trace and measure (OpenTelemetry stats handler)
//	log               one line per call, never a payload; errors become statuses
//	recover           a panic becomes Internal
//	authorize         by the peer's unix credentials
//	the handler
//
// Health checks (grpc.health.v1) go through the same, but are neither traced nor
// logged.
package rpc
