package store

import (
	"sync"
	"time"

	"github.com/postern-dev/postern/providers/sdk"
)

// maxProofs bounds what is remembered. What is not costs requests alone.
const maxProofs = 10_000

// numbered is a secret's version by its number.
type numbered struct {
	// secret is the full name of the secret, as it is asked for.
	secret, number string
}

// proofs make the versions of secrets' contents. A secret that is deleted and made
// anew begins at 1 again, so that the number does not tell which contents were read.
// The time at which a version was made does, but only those who ask for versions
// are told: so versions are of number and contents, and what they are can be told of
// a number and a time without reading once the contents were read between two
// times at which Google told that time.
//
// Its invariants:
//  1. Contents are proven to be of a time only if Google told it before the request
//     that read them began. That it tells it again is the second half of the proof.
//  2. There are at most maxProofs; any goes.
type proofs struct {
	// digest stands for contents: it is [sdk.ContentVersions.Of], and slow on purpose.
	digest func(salt string, contents []byte) (string, error)

	mu sync.Mutex
	// told counts what Google has told, to tell what came first.
	told uint64
	of   map[numbered]*proof
}

// proof is what is known of one number.
type proof struct {
	// made is what Google told last, as the told'th.
	made time.Time
	told uint64
	// version is of the contents that were read last, after Google had told before;
	// "" if it had told nothing.
	version string
	before  time.Time
}

func newProofs() *proofs {
	return &proofs{digest: sdk.NewContentVersions().Of, of: make(map[numbered]*proof)}
}

// begin is to be called before contents are asked for, and its result given to read.
func (p *proofs) begin() (began uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.told
}

// read returns the version of contents that were asked for.
func (p *proofs) read(v numbered, contents []byte, began uint64) (string, error) {
	digest, err := p.digest(v.secret+"/"+v.number, contents)
	if err != nil {
		return "", err
	}
	version := v.number + "@" + digest
	p.mu.Lock()
	defer p.mu.Unlock()
	one := p.entry(v)
	one.version = ""
	if one.told > 0 && one.told <= began {
		one.version, one.before = version, one.made
	}
	return version, nil
}

// tell returns the version of the contents of a number that was made at a time, if
// they are known.
func (p *proofs) tell(v numbered, made time.Time) (version string, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	one := p.entry(v)
	p.told++
	one.made, one.told = made, p.told
	if one.version == "" || !one.before.Equal(made) {
		return "", false
	}
	return one.version, true
}

func (p *proofs) entry(v numbered) *proof {
	one := p.of[v]
	if one == nil {
		if len(p.of) >= maxProofs {
			for surplus := range p.of {
				delete(p.of, surplus)
				break
			}
		}
		one = new(proof)
		p.of[v] = one
	}
	return one
}
