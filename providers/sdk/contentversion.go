package sdk

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"sync"
)

const (
	// contentVersionRounds make a guess cost about 20 ms of one core, and as much an
	// honest answer that was not seen lately.
	contentVersionRounds = 100_000
	contentVersionSize   = 16
	// maxContentVersions bounds the memory of ContentVersions; 64 bytes each.
	maxContentVersions = 4096
)

// ContentVersions makes versions of contents to which the store gives none. They
// change if and only if the contents do, are the same in every process and on
// every node, and tell so little of the contents that guessing costs as much as
// with a file of passwords: PBKDF2 with SHA-256. A secret that can be guessed in a
// few million tries is not safe behind that.
//
// Versions of lately seen contents are remembered, under a keyed hash whose key the
// process alone has. It is safe for concurrent use.
type ContentVersions struct {
	key []byte

	mu         sync.Mutex
	remembered map[[sha256.Size]byte]string
}

// NewContentVersions returns one that remembers nothing.
func NewContentVersions() *ContentVersions {
	return &ContentVersions{key: []byte(rand.Text()), remembered: make(map[[sha256.Size]byte]string)}
}

// Of returns the version of contents. What they are of (the store's address, the
// object, how it is written) is the salt, and so another version.
func (v *ContentVersions) Of(salt string, contents []byte) (string, error) {
	mac := hmac.New(sha256.New, v.key)
	fmt.Fprintf(mac, "%d:%s", len(salt), salt)
	mac.Write(contents)
	known := [sha256.Size]byte(mac.Sum(nil))
	v.mu.Lock()
	version, ok := v.remembered[known]
	v.mu.Unlock()
	if ok {
		return version, nil
	}
	// HMAC hashes a long password at once: the cost does not depend on its size.
	sum, err := pbkdf2.Key(sha256.New, string(contents), []byte(salt), contentVersionRounds, contentVersionSize)
	if err != nil {
		return "", fmt.Errorf("derive version: %w", err)
	}
	version = base64.RawURLEncoding.EncodeToString(sum)
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.remembered) >= maxContentVersions {
		clear(v.remembered)
	}
	v.remembered[known] = version
	return version, nil
}
