package lease

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"time"

	"github.com/postern-dev/postern/providers/sdk"
	"github.com/postern-dev/postern/providers/vault/internal/session"
	"github.com/postern-dev/postern/providers/vault/internal/store"
)

// state is what the driver keeps of a volume, for the process that comes after
// this one: the names of what was issued, without which nobody can go on with
// it, and neither tokens nor contents, which are lost with this process.
//
// # Decision
//
// The store ends a lease with the login that it was issued with. To go on with
// that login as well, the next process would need its token, and nobody but this
// process may have that: not the driver, no disk. So there is the accessor, which
// names a token and is none. A policy may allow to renew a token by it; else the
// lease is replaced once, before the login ends.
type state struct {
	Version int `json:"version"`
	// Identity is a digest.
	Identity    string   `json:"identity"`
	Credentials []record `json:"credentials"`
}

const stateVersion = 1

// record is one credential.
type record struct {
	// Key is a digest of the request.
	Key       string    `json:"key"`
	ID        string    `json:"id"`
	Leased    bool      `json:"leased,omitempty"`
	Renewable bool      `json:"renewable,omitempty"`
	Expires   time.Time `json:"expires"`
	Reissue   time.Time `json:"reissue"`
	// First is how long it lasted when it was issued, in seconds.
	First float64 `json:"first"`
	// Login is what a lease hangs on.
	Login *login `json:"login,omitempty"`
}

type login struct {
	Accessor string `json:"accessor,omitempty"`
	// Expires is not set if it does not.
	Expires time.Time `json:"expires,omitzero"`
}

// State says what another process needs to go on with these credentials of one
// identity: nothing for none. What does not fit is left out.
func (v *Visit) State(identity session.Identity, credentials map[string]*Credential) sdk.Secret {
	if len(credentials) == 0 {
		return sdk.Secret{}
	}
	s := state{Version: stateVersion, Identity: identity.Digest()}
	v.keeper.mu.Lock()
	for key, c := range credentials {
		s.Credentials = append(s.Credentials, c.record(key))
	}
	v.keeper.mu.Unlock()
	for {
		encoded, err := json.Marshal(s)
		if err == nil && len(encoded) <= sdk.MaxStateBytes {
			return sdk.NewSecret(encoded)
		}
		if err != nil || len(s.Credentials) == 0 {
			return sdk.Secret{}
		}
		s.Credentials = s.Credentials[:len(s.Credentials)/2]
	}
}

func (c *Credential) record(key string) record {
	r := record{
		Key: digest(key), ID: c.id, Leased: c.leased, Renewable: c.lease.Renewable,
		Expires: c.expires, Reissue: c.reissue, First: c.first.Seconds(),
	}
	if !c.leased {
		return r
	}
	r.Login = &login{}
	if c.former != nil {
		r.Login.Accessor = c.former.key.accessor
	} else {
		r.Login.Accessor = c.grant.Accessor()
	}
	r.Login.Expires, _ = c.loginEnds()
	return r
}

func digest(key string) string {
	sum := sha256.Sum256([]byte(key))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// TakeOver makes the credentials that an earlier process left the volume's, as
// far as the store says that they live. keys are those that are asked for now.
// An error says that the store could not be asked.
//
// A volume that is known needs nothing: what this process knows is newer.
func (v *Visit) TakeOver(ctx context.Context, grant *session.Grant, encoded sdk.Secret, keys []string) error {
	k := v.keeper
	k.mu.Lock()
	_, known := k.volumes[v.volumeID]
	k.mu.Unlock()
	if known || encoded.IsZero() {
		return nil
	}
	var s state
	if err := json.Unmarshal(encoded.Reveal(), &s); err != nil || s.Version != stateVersion || s.Identity != grant.Identity().Digest() {
		return nil //nolint:nilerr // of a version that is not understood, or of another identity: all is issued anew
	}
	byDigest := make(map[string]string, len(keys))
	for _, key := range keys {
		byDigest[digest(key)] = key
	}
	taken := make(map[string]*Credential)
	for _, r := range s.Credentials {
		key, ok := byDigest[r.Key]
		if !ok {
			key = r.Key // it is not asked for any more, and revoked with the volume
		}
		c, err := k.takeOver(ctx, grant, r)
		if err != nil {
			return err
		}
		if c != nil {
			taken[key] = c
		}
	}
	v.took(taken)
	return nil
}

// took makes these the volume's, unless another fetch has been faster.
func (v *Visit) took(taken map[string]*Credential) {
	k := v.keeper
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, known := k.volumes[v.volumeID]; known || v.released || len(taken) == 0 {
		return
	}
	v.volume().current = taken
	for _, c := range taken {
		k.keep(v.volumeID, c)
	}
}

// takeOver returns a credential of an earlier process, or nil if it does not
// live any more.
func (k *Keeper) takeOver(ctx context.Context, grant *session.Grant, r record) (*Credential, error) {
	now := time.Now()
	c := &Credential{
		id: r.ID, leased: r.Leased, identity: grant.Identity(), first: time.Duration(r.First * float64(time.Second)),
		lease: store.Lease{Duration: r.Expires.Sub(now), Renewable: r.Renewable}, expires: r.Expires, reissue: r.Reissue,
	}
	if r.ID == "" || now.After(r.Expires) && !r.Renewable {
		return nil, nil //nolint:nilnil // see above
	}
	if !r.Leased {
		return c, nil
	}
	lease, err := k.inquire(ctx, grant, r)
	switch {
	case err == nil:
	case store.Refused(err):
		k.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "a credential that an earlier process was given has ended: another is issued", c.attrs(err)...)
		return nil, nil //nolint:nilnil // see above
	default:
		return nil, err
	}
	if r.Renewable {
		lease.Renewable = lease.Renewable && lease.Duration*2 >= c.first
		c.prolong(lease, now)
	}
	if r.Login != nil {
		c.former = k.follow(ctx, formerKey{identity: c.identity, accessor: r.Login.Accessor}, r.Login.Expires)
	}
	return c, nil
}

// inquire asks whether a lease lives, by renewing it if that is possible.
func (k *Keeper) inquire(ctx context.Context, grant *session.Grant, r record) (store.Lease, error) {
	if r.Renewable {
		return k.cfg.Store.RenewLease(ctx, grant.Identity().Endpoint, grant.Token(), r.ID)
	}
	return k.cfg.Store.LookupLease(ctx, grant.Identity().Endpoint, grant.Token(), r.ID)
}
