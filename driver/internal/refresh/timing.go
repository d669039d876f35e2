package refresh

import (
	"encoding/binary"
	"hash/fnv"
	"time"

	"github.com/postern-dev/postern/internal/rpc"
)

const (
	// maxJitter bounds by how much a refresh comes late.
	maxJitter = time.Second
	// jitterShare is the part of an interval that jitter takes at most.
	jitterShare = 10

	// transientBase is the first pause after a failure that may pass at any
	// moment, and transientLimit the longest.
	transientBase  = time.Second
	transientLimit = time.Minute
	// refusedBase is the first pause after a failure that lasts until somebody
	// changes something. The longest is the interval.
	refusedBase = 30 * time.Second
	// throttledBase is the first pause for a store that asks to slow down and does
	// not say for how long, and throttledLimit the longest.
	throttledBase  = 10 * time.Second
	throttledLimit = 2 * time.Minute
	// defaultLimit stands for the interval of a volume that has none.
	defaultLimit = 2 * time.Minute
)

// Content is what a volume holds, as far as it matters for when to look again.
type Content struct {
	// Class is the volume's SecretProviderClass, with its namespace.
	Class string
	// FetchedAt is when the store was asked for it.
	FetchedAt time.Time
	// Interval is how old it may get. 0: as old as it likes.
	Interval time.Duration
	// First says that the volume has just been mounted.
	First bool
}

// Timing says when volumes are due. What it adds to an interval is no chance:
// it depends on the node, so that the nodes of a cluster do not ask at once, but
// is the same for all volumes of a class that hold the same answer, so that
// these are due at once and cost one call.
type Timing struct {
	// Node is this node's name.
	Node string
}

// Next is when content is due; the zero time is never. What has just been
// mounted is due after half an interval at the earliest: many nodes mount a
// class at once when it is rolled out, and would ask at once ever after.
func (t Timing) Next(c Content) time.Time {
	if c.Interval <= 0 {
		return time.Time{}
	}
	share := t.share(c.Class, c.FetchedAt.UnixNano())
	if c.First {
		return c.FetchedAt.Add(c.Interval/2 + time.Duration(share*float64(c.Interval/2)))
	}
	return c.FetchedAt.Add(c.Interval + time.Duration(share*float64(min(c.Interval/jitterShare, maxJitter))))
}

// Failure is an attempt to refresh a volume that failed.
type Failure struct {
	Class string
	// Err is why.
	Err *rpc.Error
	// Attempts counts the failures since the last success, this one included.
	Attempts int
	// Interval is the volume's.
	Interval time.Duration
}

// Retry is how long to wait before the next attempt: each time twice as long,
// up to a limit that depends on what is wrong, and never less than the store
// asked for. Between nothing and a fifth is added, so that the nodes of a cluster do not
// come back to a store at once.
func (t Timing) Retry(f Failure) time.Duration {
	limit := f.Interval
	if limit == 0 {
		limit = defaultLimit
	}
	base := transientBase
	switch OutlookOf(f.Err) {
	case Transient, NeedsToken:
		limit = min(limit, transientLimit)
	case Throttled:
		base, limit = throttledBase, max(limit, throttledLimit)
	case Refused:
		base = min(refusedBase, limit)
	}
	const doublings = 20 // beyond every limit, and far from an overflow
	pause := max(min(base<<min(f.Attempts-1, doublings), limit), f.Err.RetryAfter)
	return pause + time.Duration(t.share(f.Class, int64(f.Attempts))*float64(pause/5))
}

// share is a number from 0 to 1 that looks like chance.
func (t Timing) share(class string, moment int64) float64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(t.Node + "\x00" + class + "\x00"))
	_, _ = h.Write(binary.BigEndian.AppendUint64(nil, uint64(moment)))
	// The upper bits of FNV hardly depend on the last bytes.
	mixed := h.Sum64() * 0x9e3779b97f4a7c15
	return float64(mixed>>11) / (1 << 53)
}

// Outlook is what another attempt may bring after a failure.
type Outlook int

// The outlooks.
const (
	// Transient: it may work at any moment.
	Transient Outlook = iota
	// Throttled: it works when asked less often.
	Throttled
	// Refused: it fails until somebody changes something.
	Refused
	// NeedsToken: it fails until kubelet brings new tokens.
	NeedsToken
)

// OutlookOf tells a failure's outlook.
func OutlookOf(err *rpc.Error) Outlook {
	switch err.Reason {
	case rpc.ReasonRateLimited, rpc.ReasonBudgetExhausted:
		return Throttled
	case rpc.ReasonTokenInvalid, rpc.ReasonTokenMissing:
		return NeedsToken
	case rpc.ReasonAccessDenied, rpc.ReasonObjectNotFound, rpc.ReasonLoginFailed, rpc.ReasonInvalidParameters,
		rpc.ReasonPolicyDenied, rpc.ReasonSecretProviderClassNotFound, rpc.ReasonResponseTooLarge,
		rpc.ReasonInvalidResponse, rpc.ReasonCallerRefused, rpc.ReasonMountFailed:
		return Refused
	default:
		return Transient
	}
}
