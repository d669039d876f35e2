package store

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/hashicorp/vault/api"
)

// Answer is what the store answered to a [Request]. It prints as "[redacted]".
type Answer struct {
	secret *api.Secret
}

// NewAnswer makes an Answer of a decoded response, which belongs to it from
// then on.
func NewAnswer(secret *api.Secret) *Answer { return &Answer{secret: secret} }

// Data is the response's data; numbers are [json.Number].
func (a *Answer) Data() map[string]any { return a.secret.Data }

// Versioned returns the data of a version of a kv version 2 secret, and its
// metadata. ok is false for other answers.
func (a *Answer) Versioned() (data, metadata map[string]any, ok bool) {
	data, ok = a.secret.Data["data"].(map[string]any)
	metadata, _ = a.secret.Data["metadata"].(map[string]any)
	return data, metadata, ok
}

// Envelope is the whole response in JSON, with or without the request's id,
// which differs in each.
func (a *Answer) Envelope(requestID bool) ([]byte, error) {
	secret := *a.secret
	if !requestID {
		secret.RequestID = ""
	}
	return json.Marshal(&secret)
}

// Warnings are the server's.
func (a *Answer) Warnings() []string { return a.secret.Warnings }

// LeaseID is set if the answer is a credential that was issued for it.
func (a *Answer) LeaseID() string { return a.secret.LeaseID }

// Lease is the answer's own, see LeaseID.
func (a *Answer) Lease() Lease {
	return Lease{Duration: seconds(a.secret.LeaseDuration), Renewable: a.secret.Renewable}
}

// Expiration is when an issued certificate ends, for answers of the pki and
// similar engines, which issue without a lease.
func (a *Answer) Expiration() (time.Time, bool) {
	n, ok := a.secret.Data["expiration"].(json.Number)
	if !ok {
		return time.Time{}, false
	}
	unix, err := n.Int64()
	if err != nil || unix <= 0 {
		return time.Time{}, false
	}
	return time.Unix(unix, 0), true
}

const placeholder = "[redacted]"

// Format implements [fmt.Formatter] for every verb.
func (*Answer) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, placeholder) }

// LogValue implements [slog.LogValuer].
func (*Answer) LogValue() slog.Value { return slog.StringValue(placeholder) }

// MarshalJSON implements [json.Marshaler].
func (*Answer) MarshalJSON() ([]byte, error) { return []byte(`"` + placeholder + `"`), nil }
