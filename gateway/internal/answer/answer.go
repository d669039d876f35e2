// Package answer holds what providers answered: it checks an answer before
// anything of it goes on to the driver, which writes it to the node as root, and
// overwrites it when nobody needs it any more.
//
// The rules for files are the upstream driver's and the atomic writer's. An
// answer passes as a whole or not at all.
package answer

import (
	"cmp"
	"fmt"
	"sync/atomic"
	"time"

	providerv1 "github.com/postern-dev/postern/proto/gen/go/postern/provider/v1"
)

// Answer is a checked answer of a provider, shared by all who serve it.
//
// Invariants:
//  1. Nobody changes the response while there is a reference, and nobody
//     touches it without one.
//  2. The Release of the last reference overwrites the contents of all files.
//  3. An answer that confirms an older one holds a reference to the one that
//     brought the contents, which all that confirm it share.
type Answer struct {
	response  *providerv1.FetchResponse
	fetchedAt time.Time
	size      int
	// confirmed is the answer that brought the contents, if this one did not.
	confirmed *Answer
	refs      atomic.Int64
}

// New returns an answer with one reference, the caller's. The response belongs
// to it from now on. fetchedAt is when its provider was asked.
func New(response *providerv1.FetchResponse, fetchedAt time.Time) *Answer {
	a := &Answer{response: response, fetchedAt: fetchedAt, size: sizeOf(response)}
	a.refs.Store(1)
	return a
}

// Confirmed returns the answer that a provider gave with "not modified": the
// contents of a, which the caller has to hold, and what the provider says of
// freshness now. It has one reference, the caller's, beside the caller's of a.
func (a *Answer) Confirmed(by *providerv1.FetchResponse, fetchedAt time.Time) *Answer {
	c := New(&providerv1.FetchResponse{
		Files:        a.response.GetFiles(),
		Objects:      a.response.GetObjects(),
		Sharing:      by.GetSharing(),
		FreshFor:     by.GetFreshFor(),
		RefreshAfter: by.GetRefreshAfter(),
		Leases:       by.GetLeases(),
		State:        by.GetState(),
	}, fetchedAt)
	// Not a itself if that confirms another one: a chain would grow for ever.
	c.confirmed = cmp.Or(a.confirmed, a).Retain()
	return c
}

// Response is what the provider answered. It is only to be read.
func (a *Answer) Response() *providerv1.FetchResponse { return a.response }

// FetchedAt is when the provider was asked for it, or asked to confirm it:
// nothing in it is older.
func (a *Answer) FetchedAt() time.Time { return a.fetchedAt }

// Size is how many bytes its contents, paths and ids have.
func (a *Answer) Size() int { return a.size }

// Retain adds a reference. Only who holds one may do so.
func (a *Answer) Retain() *Answer {
	if a.refs.Add(1) <= 1 {
		panic("answer: retained after its last release")
	}
	return a
}

// Release gives a reference back.
func (a *Answer) Release() {
	switch refs := a.refs.Add(-1); {
	case refs > 0:
	case refs < 0:
		panic("answer: released more often than retained")
	case a.confirmed != nil:
		a.confirmed.Release()
	default:
		for _, file := range a.response.GetFiles() {
			clear(file.GetContents())
		}
	}
}

// String says nothing of the contents.
func (a *Answer) String() string {
	return fmt.Sprintf("answer of %d files, %d bytes", len(a.response.GetFiles()), a.size)
}

// GoString says nothing of the contents.
func (a *Answer) GoString() string { return a.String() }
