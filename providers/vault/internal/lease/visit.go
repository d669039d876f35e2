package lease

import (
	"time"

	"github.com/postern-dev/postern/providers/vault/internal/session"
	"github.com/postern-dev/postern/providers/vault/internal/store"
)

// Visit is a fetch for a volume, from its begin to its end.
type Visit struct {
	keeper   *Keeper
	volumeID string
	// released is set when the volume is released meanwhile. The Keeper's mutex
	// guards it.
	released bool
}

// Enter begins a fetch for a volume. The caller ends it with Leave.
func (k *Keeper) Enter(volumeID string) *Visit {
	v := &Visit{keeper: k, volumeID: volumeID}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.visits[v] = struct{}{}
	return v
}

// Leave ends the fetch.
func (v *Visit) Leave() {
	v.keeper.mu.Lock()
	defer v.keeper.mu.Unlock()
	delete(v.keeper.visits, v)
}

// Get returns the volume's credential for key, if it can be given again to who
// has grant.
func (v *Visit) Get(key string, grant *session.Grant) (*Credential, bool) {
	k := v.keeper
	k.mu.Lock()
	defer k.mu.Unlock()
	known, ok := k.volumes[v.volumeID]
	if !ok {
		return nil, false
	}
	known.used = time.Now()
	c, ok := known.current[key]
	if !ok || !c.serves(grant, known.used) {
		return nil, false
	}
	return c, true
}

// Lease says how long a credential is valid from now, whether that is
// prolonged, and when to fetch again, at the latest.
func (v *Visit) Lease(c *Credential) (lease store.Lease, refresh time.Duration) {
	v.keeper.mu.Lock()
	defer v.keeper.mu.Unlock()
	now := time.Now()
	left := store.Lease{Duration: max(c.expires.Sub(now), 0), Renewable: c.renewing()}
	return left, max(c.refreshIn(now), 0)
}

// Commit makes these the volume's credentials, by key, and reports whether it
// did: not if the volume was released meanwhile.
func (v *Visit) Commit(credentials map[string]*Credential) bool {
	k := v.keeper
	k.mu.Lock()
	defer k.mu.Unlock()
	k.sweep()
	if v.released {
		return false
	}
	if _, ok := k.volumes[v.volumeID]; !ok && len(credentials) == 0 {
		return true
	}
	known := v.volume()
	for key, c := range known.current {
		if credentials[key] != c {
			k.retire(known, c)
		}
	}
	for _, c := range credentials {
		k.keep(v.volumeID, c)
	}
	known.current, known.used = credentials, time.Now()
	return true
}

// Retain keeps what a fetch that failed was issued and what cannot be revoked,
// so that the next one does not get another. Nobody renews it.
func (v *Visit) Retain(credentials map[string]*Credential) {
	k := v.keeper
	k.mu.Lock()
	defer k.mu.Unlock()
	if v.released || len(credentials) == 0 {
		for _, c := range credentials {
			c.end()
		}
		return
	}
	known := v.volume()
	for key, c := range credentials {
		if old, ok := known.current[key]; ok {
			k.retire(known, old)
		}
		known.current[key] = c
	}
}

// volume returns the volume's record, and makes it if need be. The mutex is
// held.
func (v *Visit) volume() *volume {
	known, ok := v.keeper.volumes[v.volumeID]
	if !ok {
		known = &volume{current: make(map[string]*Credential), used: time.Now()}
		v.keeper.volumes[v.volumeID] = known
	}
	return known
}
