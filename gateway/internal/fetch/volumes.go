package fetch

import (
	"slices"
	"sync"
	"time"

	"github.com/postern-dev/postern/gateway/internal/key"
)

// maxInstances bounds the instances that are remembered of a volume. It sees
// one more with each upgrade of its provider.
const maxInstances = 8

// volumes remembers who served which volume, and counts.
//
// Invariants:
//  1. mu guards all below it.
//  2. It holds at most limit volumes; the one whose last fetch is longest ago
//     makes room. A volume that is not here can be released all the same: then
//     every provider is told.
//  3. counts holds, by provider, exactly the volumes of byID, and no zeros.
//  4. uses holds, by key, exactly those of the volumes of byID, each with how
//     many have it. When the last of them is gone unused is called.
type volumes struct {
	limit int
	// unused is called with mu held.
	unused func(k key.Key, keep time.Duration)

	mu       sync.Mutex
	byID     map[string]*volume
	clock    uint64
	counts   map[string]uint32
	inFlight map[string]uint32
	uses     map[key.Key]*use
}

// volume is one that was fetched for and not released.
type volume struct {
	provider string
	// instances are the ids of those that were asked. None for a volume that was
	// served what another one's fetch had brought.
	instances []uint64
	// last is the clock at its last fetch.
	last uint64
	// use is of the kept answer that it was served, nil for one that is not kept.
	use *use
}

// use is what mounted volumes make of a kept answer.
type use struct {
	key     key.Key
	volumes int
	// keep is how long the answer is of use without them.
	keep time.Duration
}

func newVolumes(limit int, unused func(key.Key, time.Duration)) *volumes {
	return &volumes{
		limit:    limit,
		unused:   unused,
		byID:     map[string]*volume{},
		counts:   map[string]uint32{},
		inFlight: map[string]uint32{},
		uses:     map[key.Key]*use{},
	}
}

// served records that a volume has got an answer that is not kept, whoever was
// asked for it.
func (v *volumes) served(id, provider string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.endUseLocked(v.touchLocked(id, provider))
}

// servedKept records that a volume has got an answer that is kept under a key,
// and for how long that is of use without it.
func (v *volumes) servedKept(id, provider string, k key.Key, keep time.Duration) {
	v.mu.Lock()
	defer v.mu.Unlock()
	vol := v.touchLocked(id, provider)
	if vol.use == nil || vol.use.key != k {
		v.endUseLocked(vol)
		vol.use = v.uses[k]
		if vol.use == nil {
			vol.use = &use{key: k}
			v.uses[k] = vol.use
		}
		vol.use.volumes++
	}
	vol.use.keep = keep
}

func (v *volumes) endUseLocked(vol *volume) {
	u := vol.use
	vol.use = nil
	if u == nil {
		return
	}
	if u.volumes--; u.volumes == 0 {
		delete(v.uses, u.key)
		v.unused(u.key, u.keep)
	}
}

// asked records that an instance is asked for a volume.
func (v *volumes) asked(id, provider string, instance uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	vol := v.touchLocked(id, provider)
	if slices.Contains(vol.instances, instance) {
		return
	}
	if len(vol.instances) == maxInstances {
		vol.instances = slices.Delete(vol.instances, 0, 1)
	}
	vol.instances = append(vol.instances, instance)
}

// touchLocked returns a volume, which was just used, and makes it if need be.
func (v *volumes) touchLocked(id, provider string) *volume {
	vol, ok := v.byID[id]
	if ok && vol.provider != provider {
		v.dropLocked(id)
		ok = false
	}
	if !ok {
		if len(v.byID) >= v.limit {
			v.dropLocked(v.oldestLocked())
		}
		vol = &volume{provider: provider}
		v.byID[id] = vol
		v.counts[provider]++
	}
	v.clock++
	vol.last = v.clock
	return vol
}

// released forgets a volume and returns what was known of it.
func (v *volumes) released(id string) (volume, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	vol, ok := v.byID[id]
	if !ok {
		return volume{}, false
	}
	v.dropLocked(id)
	return *vol, true
}

func (v *volumes) dropLocked(id string) {
	vol := v.byID[id]
	provider := vol.provider
	v.endUseLocked(vol)
	delete(v.byID, id)
	if v.counts[provider]--; v.counts[provider] == 0 {
		delete(v.counts, provider)
	}
}

// oldestLocked looks at all: it is called only where a driver never releases.
func (v *volumes) oldestLocked() string {
	var oldest string
	var last uint64
	for id, vol := range v.byID {
		if last == 0 || vol.last < last {
			oldest, last = id, vol.last
		}
	}
	return oldest
}

// begin counts a fetch under way, until end.
func (v *volumes) begin(provider string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.inFlight[provider]++
}

func (v *volumes) end(provider string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.inFlight[provider]--; v.inFlight[provider] == 0 {
		delete(v.inFlight, provider)
	}
}

// usage tells how much a provider is used.
func (v *volumes) usage(provider string) Usage {
	v.mu.Lock()
	defer v.mu.Unlock()
	return Usage{InFlight: v.inFlight[provider], Volumes: v.counts[provider]}
}
