package secretsync

import (
	"maps"
	"slices"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// maxVolumes bounds the volumes that are remembered: many times what a node has.
// What is forgotten costs reads, and never a write.
const maxVolumes = 4096

type (
	// classKey is a class's namespace and name.
	classKey types.NamespacedName
	// secretKey is a Secret's.
	secretKey types.NamespacedName
)

func (k secretKey) String() string { return k.Namespace + "/" + k.Name }

// share is what a volume has put into a Secret.
type share struct {
	digest digest
	// since is when this content was first fetched: it does not change while a
	// fetch brings the same content. So of two volumes whose contents differ
	// for good, the last that changed has its way, and neither the last that
	// was refreshed nor the two in turn.
	since  time.Time
	owners []types.UID
	// synced is false if the last Sync failed.
	synced bool
}

// sighting is a Secret as it was last seen or written.
type sighting struct {
	class           classKey
	uid             types.UID
	resourceVersion string
	digest          digest // of what the driver owns
	fetchedAt       time.Time
	revision        revision
	owners          []types.UID
	// at is when it was seen.
	at time.Time
}

func (s *sighting) has(owners []types.UID) bool {
	for _, uid := range owners {
		if !slices.Contains(s.owners, uid) {
			return false
		}
	}
	return true
}

type volumeMemory struct {
	class    classKey
	revision revision
	shares   map[string]share // by Secret
}

type classMemory struct {
	volumes  int
	revision revision
	// secrets are those that the class asks for, and those that it asked for
	// and that are not yet removed.
	secrets map[string]bool
}

// namespaceMemory is what was there of a namespace when it was first looked at.
type namespaceMemory struct {
	classes int
	listed  time.Time
	// found are the Secrets of each class that no Sync has asked for yet.
	found map[string][]string
}

// memory is what a Syncer remembers.
//
// Invariants:
//  1. A class is remembered while a volume of it is, a namespace while a class.
//  2. A Secret's sighting is remembered while its class is.
type memory struct {
	mu         sync.Mutex
	volumes    map[string]*volumeMemory
	classes    map[classKey]*classMemory
	namespaces map[string]*namespaceMemory
	secrets    map[secretKey]sighting
}

func newMemory() memory {
	return memory{
		volumes: map[string]*volumeMemory{}, classes: map[classKey]*classMemory{},
		namespaces: map[string]*namespaceMemory{}, secrets: map[secretKey]sighting{},
	}
}

// enter remembers the volume, of this state of its class. It tells whether it
// was known, of the same state.
func (m *memory) enter(volumeID string, class classKey, rev revision) (same bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	volume, ok := m.volumes[volumeID]
	if ok && volume.class != class {
		m.drop(volumeID)
		ok = false
	}
	if !ok {
		m.makeRoom()
		volume = &volumeMemory{class: class, revision: rev, shares: map[string]share{}}
		m.volumes[volumeID] = volume
		m.enterClass(class)
		return false
	}
	same = volume.revision == rev
	volume.revision = rev
	return same
}

// enterClass needs m.mu.
func (m *memory) enterClass(class classKey) {
	known, ok := m.classes[class]
	if !ok {
		known = &classMemory{secrets: map[string]bool{}}
		m.classes[class] = known
		namespace, ok := m.namespaces[class.Namespace]
		if !ok {
			namespace = &namespaceMemory{}
			m.namespaces[class.Namespace] = namespace
		}
		namespace.classes++
	}
	known.volumes++
}

// makeRoom needs m.mu.
func (m *memory) makeRoom() {
	for volumeID := range m.volumes {
		if len(m.volumes) < maxVolumes {
			return
		}
		m.drop(volumeID)
	}
}

func (m *memory) forget(volumeID string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.drop(volumeID)
}

// drop needs m.mu.
func (m *memory) drop(volumeID string) {
	volume, ok := m.volumes[volumeID]
	if !ok {
		return
	}
	delete(m.volumes, volumeID)
	class := m.classes[volume.class]
	if class.volumes--; class.volumes > 0 {
		return
	}
	delete(m.classes, volume.class)
	maps.DeleteFunc(m.secrets, func(_ secretKey, s sighting) bool { return s.class == volume.class })
	namespace := m.namespaces[volume.class.Namespace]
	if namespace.classes--; namespace.classes == 0 {
		delete(m.namespaces, volume.class.Namespace)
	}
}

// share returns what the volume has put into the Secret.
func (m *memory) share(volumeID, secret string) (share, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	volume, ok := m.volumes[volumeID]
	if !ok {
		return share{}, false
	}
	s, ok := volume.shares[secret]
	return s, ok
}

func (m *memory) setShare(volumeID, secret string, s share) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if volume, ok := m.volumes[volumeID]; ok {
		volume.shares[secret] = s
	}
}

// sighting returns the Secret as it was last seen, if it was this class's: to
// another one it says nothing.
func (m *memory) sighting(key secretKey, class classKey) (sighting, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, ok := m.secrets[key]
	if !ok || s.class != class {
		return sighting{}, false
	}
	return s, true
}

// see remembers the Secret, if a volume of its class is remembered.
func (m *memory) see(key secretKey, s sighting) {
	m.mu.Lock()
	defer m.mu.Unlock()
	known, ok := m.classes[s.class]
	if !ok {
		return
	}
	known.secrets[key.Name] = true
	s.at = time.Now()
	m.secrets[key] = s
}

// miss forgets a Secret that is not there, or not as it was remembered.
func (m *memory) miss(key secretKey, class classKey) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.secrets[key].class == class {
		delete(m.secrets, key)
	}
}

// declare notes the Secrets that this state of the class asks for, and returns
// those that it asked for before and that are not removed yet. A Sync that is
// behind another one's state of the class gets none.
func (m *memory) declare(class classKey, rev revision, names map[string]bool) (gone []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	known, ok := m.classes[class]
	if !ok || rev.before(known.revision) {
		return nil
	}
	known.revision = rev
	if namespace := m.namespaces[class.Namespace]; namespace != nil {
		for _, name := range namespace.found[class.Name] {
			known.secrets[name] = true
		}
		delete(namespace.found, class.Name)
	}
	for name := range names {
		known.secrets[name] = true
	}
	for name := range known.secrets {
		if !names[name] {
			gone = append(gone, name)
		}
	}
	slices.Sort(gone)
	return gone
}

// removed notes that the class has no such Secret any more.
func (m *memory) removed(class classKey, name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if key := (secretKey{class.Namespace, name}); m.secrets[key].class == class {
		delete(m.secrets, key)
	}
	if known, ok := m.classes[class]; ok {
		delete(known.secrets, name)
	}
	for _, volume := range m.volumes {
		if volume.class == class {
			delete(volume.shares, name)
		}
	}
}

// listDue tells whether the namespace's Secrets are to be listed: once, and
// again only if that failed, after a while.
func (m *memory) listDue(namespace string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	known, ok := m.namespaces[namespace]
	return ok && known.found == nil && time.Since(known.listed) >= recheckInterval
}

// list notes the namespace's Secrets; nil: they could not be listed.
func (m *memory) list(namespace string, found map[string][]string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if known, ok := m.namespaces[namespace]; ok {
		known.listed, known.found = time.Now(), found
	}
}

func uids(owners []metav1.OwnerReference) []types.UID {
	ids := make([]types.UID, 0, len(owners))
	for _, owner := range owners {
		ids = append(ids, owner.UID)
	}
	return ids
}
