package secretsync

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"maps"
	"slices"

	"github.com/postern-dev/postern/internal/redact"
)

// content is what the driver says about a Secret, but for its owners.
type content struct {
	kind        string // the Secret's type
	labels      map[string]string
	annotations map[string]string
	data        map[string]redact.Bytes
}

// digest is a keyed hash of content. It tells nothing of it to who does not
// have the key, which never leaves the process.
type digest [sha256.Size]byte

// hasher makes digests.
type hasher struct{ key [sha256.Size]byte }

func newHasher() hasher {
	var h hasher
	rand.Read(h.key[:]) // never fails
	return h
}

// sum leaves out the annotations that say when and of what a Secret was made:
// they are no reason to write it.
func (h hasher) sum(c *content) digest {
	mac := hmac.New(sha256.New, h.key[:])
	add(mac, []byte(c.kind))
	addTexts(mac, c.labels)
	annotations := maps.Clone(c.annotations)
	delete(annotations, annotationFetchedAt)
	delete(annotations, annotationRevision)
	addTexts(mac, annotations)
	addCount(mac, len(c.data))
	for _, key := range slices.Sorted(maps.Keys(c.data)) {
		add(mac, []byte(key))
		add(mac, c.data[key].Reveal())
	}
	return digest(mac.Sum(nil))
}

func addTexts(mac hash.Hash, texts map[string]string) {
	addCount(mac, len(texts))
	for _, key := range slices.Sorted(maps.Keys(texts)) {
		add(mac, []byte(key))
		add(mac, []byte(texts[key]))
	}
}

// add adds the length first, so that no two sequences look the same.
func add(mac hash.Hash, b []byte) {
	addCount(mac, len(b))
	mac.Write(b)
}

func addCount(mac hash.Hash, n int) {
	var size [8]byte
	binary.BigEndian.PutUint64(size[:], uint64(n))
	mac.Write(size[:])
}
