// Package redact holds the types in which secrets travel through the process.
//
// A value of these types shows itself as "[redacted]" in every way that Go
// prints or encodes a value: each fmt verb, log/slog, encoding/json and text
// encodings. The secret itself comes out only through Reveal, so a search for
// "Reveal(" finds each place where one is used.
//
// Package fmt calls no methods on the unexported fields of a struct, but prints
// what they hold. Therefore both types keep the secret behind a pointer of a
// kind that fmt never follows: such a field shows as an address.
package redact

import (
	"crypto/subtle"
	"encoding"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"unique"
)

// Placeholder is what stands in for a secret's contents.
const Placeholder = "[redacted]"

// String is a secret text, such as a token or a password. Two Strings are equal
// (==) if and only if their contents are, so a String can be part of a map's
// key. The zero value is the empty secret.
type String struct {
	// h is the zero handle if and only if the secret is empty. Handles of equal
	// strings are equal.
	h unique.Handle[string]
}

// NewString returns s as a secret.
func NewString(s string) String {
	if s == "" {
		return String{}
	}
	return String{h: unique.Make(s)}
}

// Reveal returns the secret itself.
func (s String) Reveal() string {
	if s.IsZero() {
		return ""
	}
	return s.h.Value()
}

// IsZero reports whether the secret is empty. It also makes `json:",omitzero"`
// work.
func (s String) IsZero() bool { return s == String{} }

// Equal reports s == other, for packages that compare by such a method.
func (s String) Equal(other String) bool { return s == other }

// String implements fmt.Stringer; it does not reveal the secret.
func (String) String() string { return Placeholder }

// GoString implements fmt.GoStringer; it does not reveal the secret.
func (String) GoString() string { return Placeholder }

// Format implements fmt.Formatter for every verb; it does not reveal the secret.
func (String) Format(f fmt.State, _ rune) { writePlaceholder(f) }

// LogValue implements slog.LogValuer; it does not reveal the secret.
func (String) LogValue() slog.Value { return slog.StringValue(Placeholder) }

// MarshalJSON implements json.Marshaler; it does not reveal the secret.
func (String) MarshalJSON() ([]byte, error) { return []byte(`"` + Placeholder + `"`), nil }

// MarshalText implements encoding.TextMarshaler; it does not reveal the secret.
func (String) MarshalText() ([]byte, error) { return []byte(Placeholder), nil }

// Bytes is secret content, such as a file's. Copies share the same memory: a
// Wipe of one is a Wipe of all. The zero value is the empty secret.
type Bytes struct {
	// p is nil if the secret is empty. fmt follows a pointer to a slice, in
	// some of its error texts, but not a pointer to a pointer.
	p **[]byte
}

// NewBytes returns b as a secret. It takes b over without a copy: the caller
// must not use b afterwards.
func NewBytes(b []byte) Bytes {
	if len(b) == 0 {
		return Bytes{}
	}
	p := &b
	return Bytes{p: &p}
}

// Reveal returns the secret itself, without a copy. The caller must neither
// change it nor keep it beyond the next Wipe.
func (b Bytes) Reveal() []byte {
	if b.p == nil {
		return nil
	}
	return **b.p
}

// Len returns the length of the secret in bytes.
func (b Bytes) Len() int { return len(b.Reveal()) }

// IsZero reports whether the secret is empty. It also makes `json:",omitzero"`
// work.
func (b Bytes) IsZero() bool { return b.p == nil }

// Equal reports whether two secrets have the same content, in a time that
// depends on their lengths only.
func (b Bytes) Equal(other Bytes) bool {
	return subtle.ConstantTimeCompare(b.Reveal(), other.Reveal()) == 1
}

// Wipe overwrites the secret, in all copies of b, with zero bytes.
func (b Bytes) Wipe() { clear(b.Reveal()) }

// String implements fmt.Stringer; it does not reveal the secret.
func (Bytes) String() string { return Placeholder }

// GoString implements fmt.GoStringer; it does not reveal the secret.
func (Bytes) GoString() string { return Placeholder }

// Format implements fmt.Formatter for every verb; it does not reveal the secret.
func (Bytes) Format(f fmt.State, _ rune) { writePlaceholder(f) }

// LogValue implements slog.LogValuer; it does not reveal the secret.
func (Bytes) LogValue() slog.Value { return slog.StringValue(Placeholder) }

// MarshalJSON implements json.Marshaler; it does not reveal the secret.
func (Bytes) MarshalJSON() ([]byte, error) { return []byte(`"` + Placeholder + `"`), nil }

// MarshalText implements encoding.TextMarshaler; it does not reveal the secret.
func (Bytes) MarshalText() ([]byte, error) { return []byte(Placeholder), nil }

// writePlaceholder ignores the error: a Formatter has no way to report one.
func writePlaceholder(w io.Writer) { _, _ = io.WriteString(w, Placeholder) }

// safe is every way out that has to be closed.
type safe interface {
	fmt.Formatter
	fmt.GoStringer
	slog.LogValuer
	json.Marshaler
	encoding.TextMarshaler
}

var (
	_ safe = String{}
	_ safe = Bytes{}
)
