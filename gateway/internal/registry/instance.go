package registry

import (
	"context"
	"log/slog"
	"time"

	"github.com/postern-dev/postern/gateway/internal/provider"
	"github.com/postern-dev/postern/internal/logkey"
	providerv1 "github.com/postern-dev/postern/proto/gen/go/postern/provider/v1"
)

// State is how an instance is. What others see is reckoned: an instance that
// serves is Draining where a better one serves too.
type State int

// The states.
const (
	Connecting State = iota
	Serving
	NotServing
	Draining
	Refused
)

// String is the state's name in metrics and logs.
func (s State) String() string {
	return [...]string{"connecting", "serving", "not_serving", "draining", "refused"}[s]
}

// States lists all of them.
func States() []State { return []State{Connecting, Serving, NotServing, Draining, Refused} }

// instance is one process of a provider. The first three fields never change,
// the others are guarded by Registry.mu.
type instance struct {
	id     uint64
	socket socket
	// end makes the instance's goroutine close the connection and leave.
	end context.CancelFunc

	state State
	// message says why it does not serve.
	message     string
	connectedAt time.Time
	description *providerv1.DescribeResponse
	provider    provider.Provider
	// calls counts handles that are not done.
	calls int
	// gone is set once the socket's file is not there any more. The connection
	// works on while the process does.
	gone bool
}

// rank says how well an instance fits a name: the lower the better, and
// negative for not at all. Called with the registry's lock held.
func (i *instance) rank(name string, directories map[string]bool) int {
	switch {
	case i.socket.protocol == Legacy:
		if i.socket.provider == name {
			return 2
		}
	case i.socket.provider == name:
		return 0
	case directories[name]:
		// Whoever has the name's directory has the name.
	case contains(i.description.GetNames(), name):
		return 1
	}
	return -1
}

// attrs is what log records say of an instance.
func (i *instance) attrs(more ...slog.Attr) []slog.Attr {
	return append([]slog.Attr{
		slog.String(logkey.Provider, i.socket.provider),
		slog.String(logkey.Instance, i.socket.name()),
		slog.String(logkey.Socket, i.socket.path),
	}, more...)
}

func contains(names []string, name string) bool {
	for _, n := range names {
		if n == name && provider.ValidName(n) {
			return true
		}
	}
	return false
}

// better reports whether i is to be preferred to other; both have ranks that
// are not negative.
func (i *instance) better(rank int, other *instance, otherRank int) bool {
	switch {
	case rank != otherRank:
		return rank < otherRank
	case i.socket.provider != other.socket.provider:
		// Two providers with one alias: the same one wins every time.
		return i.socket.provider < other.socket.provider
	case i.gone != other.gone:
		return other.gone
	}
	if c := compareNewest(&i.socket, &other.socket); c != 0 {
		return c < 0
	}
	return i.id > other.id
}

// Handle is the right to make calls of one instance. Its connection stays until
// Done was called.
type Handle struct {
	// Provider is what to call.
	Provider provider.Provider
	// Description is what the instance said of itself; empty for a legacy one.
	Description *providerv1.DescribeResponse
	// ID identifies the instance as long as the gateway runs.
	ID uint64
	// Socket is the path at which the instance was found.
	Socket string
	// ProviderName is the name of the instance's directory or legacy socket.
	ProviderName string
	// Protocol is what the instance speaks.
	Protocol Protocol

	// registry is nil for an instance that is in none.
	registry *Registry
	instance *instance
}

// Done ends the use of a handle. It is called once.
func (h *Handle) Done() {
	r := h.registry
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	h.instance.calls--
	r.retireLocked(h.instance)
}
