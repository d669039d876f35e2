// Package key says which fetches may share one call and one answer: those with
// equal keys.
package key

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"slices"

	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
)

// Key identifies what a fetch may be answered with. It is compared with ==.
//
// In it is all that may change what a store answers:
//   - Provider: another provider is another store.
//   - Namespace and ServiceAccount: the identity as which the store sees the
//     pod. Always, so that two service accounts never share, whatever a provider
//     says.
//   - SecretProviderClass: its name. Its parameters alone would do for the
//     answer, but errors and spans name the class.
//   - FileMode: the mode of files whose object sets none is part of the answer.
//   - Digest: see [Input].
//   - PodUID and VolumeID: only of a private key. An answer that is for one pod
//     is for one of its volumes too, because leases belong to volumes.
//
// Not in it is what may not change an answer that is shared: the tokens, which
// differ from pod to pod and expire (whether a pod may have an answer is checked
// for each by itself), the pod's name, the volume's path, what the volume holds
// now, and the instance of the provider.
type Key struct {
	Provider            string
	Namespace           string
	ServiceAccount      string
	SecretProviderClass string
	FileMode            uint32
	Digest              [sha256.Size]byte
	PodUID              string
	VolumeID            string
}

// Private reports whether the key is of one volume only.
func (k Key) Private() bool { return k.VolumeID != "" }

// Shared is the key without the pod and its volume.
func (k Key) Shared() Key {
	k.PodUID, k.VolumeID = "", ""
	return k
}

// ForVolume is the private key of the volume that a request is for.
func (k Key) ForVolume(req *gatewayv1.FetchRequest) Key {
	k.PodUID, k.VolumeID = req.GetPod().GetUid(), req.GetVolumeId()
	return k
}

// Input is what a key is made of.
type Input struct {
	Request *gatewayv1.FetchRequest
	// Parameters are the request's without those that are for the gateway only.
	Parameters map[string]string
	// Secrets are the data of the request's nodePublishSecretRef, without
	// tokens.
	Secrets map[string]string
	// Audiences are those of the tokens that the provider is given, in any
	// order.
	Audiences []string
}

const (
	// encodingSize is enough for most inputs, so that growing leaves no copy of
	// a secret behind.
	encodingSize = 4 << 10
	// maxNames is enough for most classes.
	maxNames = 16
)

// Maker makes keys. Digests of two makers have nothing in common, so that one
// that is seen somewhere does not help to guess a secret that went into it.
type Maker struct{ seed [sha256.Size]byte }

// NewMaker returns a Maker with a random seed.
func NewMaker() *Maker {
	m := &Maker{}
	_, _ = rand.Read(m.seed[:]) // never fails, see package rand
	return m
}

// Shared returns the key of all pods of a service account that use the same
// class as it is now.
func (m *Maker) Shared(in Input) Key {
	req := in.Request
	account := req.GetPod().GetServiceAccount()
	e := encoding{bytes: make([]byte, 0, encodingSize), names: make([]string, 0, maxNames)}
	e.bytes = append(e.bytes, m.seed[:]...)
	e.pairs(in.Parameters)
	e.pairs(in.Secrets)
	e.pairs(account.GetAnnotations())
	e.pairs(req.GetNode().GetLabels())
	e.list(in.Audiences)
	k := Key{
		Provider:            req.GetProvider(),
		Namespace:           req.GetPod().GetNamespace(),
		ServiceAccount:      account.GetName(),
		SecretProviderClass: req.GetSecretProviderClass(),
		FileMode:            req.GetDefaultFileMode(),
	}
	// A secret prefix makes a good enough keyed hash where nobody sees digests
	// of inputs of his own, and costs no allocation.
	k.Digest = sha256.Sum256(e.bytes)
	clear(e.bytes)
	return k
}

// encoding is input as bytes. No two different inputs are the same: each list
// begins with its length, and so does each text.
type encoding struct {
	bytes []byte
	names []string
}

func (e *encoding) pairs(m map[string]string) {
	e.length(len(m))
	e.names = slices.AppendSeq(e.names[:0], maps.Keys(m))
	slices.Sort(e.names)
	for _, name := range e.names {
		e.text(name)
		e.text(m[name])
	}
}

func (e *encoding) list(values []string) {
	e.length(len(values))
	e.names = append(e.names[:0], values...)
	slices.Sort(e.names)
	for _, value := range e.names {
		e.text(value)
	}
}

func (e *encoding) text(s string) {
	e.length(len(s))
	e.bytes = append(e.bytes, s...)
}

func (e *encoding) length(n int) { e.bytes = binary.BigEndian.AppendUint64(e.bytes, uint64(n)) }
