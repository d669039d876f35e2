package credentials

import "time"

const (
	// maxMargin is how long before its end a credential is replaced; one with a
	// short life has a margin of a tenth of it.
	maxMargin = 5 * time.Minute
	// marginOfLife is that tenth.
	marginOfLife = 10
	// lastUse is how long before its end a credential is not used any more, as a
	// part of the margin: a fetch that begins now has to end before.
	lastUse = 10
)

// entry is a credential that is kept. It does not change, but for used, which the
// Cache's mutex guards.
type entry[C Credential] struct {
	credential C
	expires    time.Time
	margin     time.Duration
	used       uint64
}

// newEntry is of a credential that has arrived now.
func newEntry[C Credential](credential C, now time.Time) *entry[C] {
	expires := credential.Expires()
	return &entry[C]{
		credential: credential, expires: expires,
		margin: min(maxMargin, expires.Sub(now)/marginOfLife),
	}
}

// fresh reports whether a credential is good for longer than the margin.
func (e *entry[C]) fresh(now time.Time) bool { return e != nil && e.expires.Sub(now) > e.margin }

// lasts reports whether it is good for a fetch that begins now.
func (e *entry[C]) lasts(now time.Time) bool {
	return e != nil && e.expires.Sub(now) > e.margin/lastUse
}
