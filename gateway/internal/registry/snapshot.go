package registry

import (
	"maps"
	"slices"
	"time"

	"github.com/postern-dev/postern/gateway/internal/provider"
)

// ProviderStatus is how one provider is.
type ProviderStatus struct {
	Name string
	// Alias is set where the name is not that of a directory or a legacy socket.
	Alias bool
	// Instances has the preferred one first; the first that serves is in use.
	Instances []InstanceStatus
}

// InstanceStatus is how one instance is.
type InstanceStatus struct {
	Socket   string
	Version  string
	Protocol Protocol
	State    State
	// ConnectedAt is zero where no connection is up.
	ConnectedAt time.Time
	// Message says why it does not serve.
	Message string
}

// Snapshot tells of all providers, by name.
func (r *Registry) Snapshot() []ProviderStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	// The value tells whether the name is an alias.
	names := map[string]bool{}
	for _, inst := range r.instances {
		for _, alias := range inst.description.GetNames() {
			if inst.socket.protocol == Native && provider.ValidName(alias) {
				names[alias] = true
			}
		}
	}
	for name := range r.directories {
		names[name] = false
	}
	for _, inst := range r.instances {
		names[inst.socket.provider] = false
	}
	statuses := make([]ProviderStatus, 0, len(names))
	for _, name := range slices.Sorted(maps.Keys(names)) {
		statuses = append(statuses, ProviderStatus{Name: name, Alias: names[name], Instances: r.statusesLocked(name)})
	}
	return statuses
}

func (r *Registry) statusesLocked(name string) []InstanceStatus {
	best := r.bestLocked(name)
	var statuses []InstanceStatus
	for _, inst := range r.orderedLocked(name) {
		status := InstanceStatus{
			Socket:      inst.socket.path,
			Version:     inst.description.GetVersion(),
			Protocol:    inst.socket.protocol,
			State:       inst.state,
			ConnectedAt: inst.connectedAt,
			Message:     inst.message,
		}
		if inst.state == Serving && inst != best {
			status.State = Draining
			status.Message = "another instance is preferred: " + best.socket.path
		}
		statuses = append(statuses, status)
	}
	return statuses
}

// orderedLocked lists the instances of a name, the preferred one first.
func (r *Registry) orderedLocked(name string) []*instance {
	ranks := map[*instance]int{}
	var ordered []*instance
	for _, inst := range r.instances {
		if rank := inst.rank(name, r.directories); rank >= 0 {
			ranks[inst] = rank
			ordered = append(ordered, inst)
		}
	}
	slices.SortFunc(ordered, func(a, b *instance) int {
		switch {
		case a == b:
			return 0
		case a.better(ranks[a], b, ranks[b]):
			return -1
		default:
			return 1
		}
	})
	return slices.Clip(ordered)
}
