package registry

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/postern-dev/postern/gateway/internal/provider"
)

// Protocol is what a provider's socket speaks.
type Protocol int

// The protocols. Where both are there for a name, native wins.
const (
	Native Protocol = iota + 1
	Legacy
)

const socketSuffix = ".sock"

// root is one directory in which sockets are found.
type root struct {
	dir      string
	protocol Protocol
	// order among roots of one protocol: the first wins.
	order int
}

// socket is one listening process, as its file tells of it. It is comparable:
// two sockets are equal if and only if they are the same process' under the
// same ownership. A file that was removed and made again differs in inode or
// time, even at the same path.
type socket struct {
	path     string
	provider string
	protocol Protocol
	order    int
	// created is the file's modification time, in ns since the epoch. That of a
	// socket is set by bind(2) and, unlike the change time, by nothing after it.
	created int64
	inode   inode
	// owner is the uid that the listening process has to have: for a native
	// socket its directory's owner, for a legacy one the socket's.
	owner uint32
}

// refusal says why a process of this uid may not serve the socket, or "".
func (s *socket) refusal(uid uint32) string {
	switch {
	case uid == s.owner || (s.protocol == Legacy && uid == 0):
		return ""
	case s.protocol == Legacy:
		return fmt.Sprintf("the listening process has uid %d, but the socket belongs to uid %d: "+
			"only the socket's owner or root may serve it", uid, s.owner)
	default:
		return fmt.Sprintf("the listening process has uid %d, but its directory %s belongs to uid %d: "+
			"run the provider under that uid or give the directory to uid %d", uid, filepath.Dir(s.path), s.owner, uid)
	}
}

// name is the socket's file name without suffix: for a native one, the instance.
func (s *socket) name() string { return strings.TrimSuffix(filepath.Base(s.path), socketSuffix) }

// finding is what one look at the roots found.
type finding struct {
	sockets []socket
	// directories are the native providers that have a directory, with or
	// without sockets in it.
	directories map[string]bool
	// unread is why not all directories could be read, so that what is not here
	// may be there all the same.
	unread error
	// enter is called before a native provider's directory is listed.
	enter func(dir string) bool
}

// look lists a root. What is missing or vanishes meanwhile is not an error;
// what cannot be read is, and the rest is listed all the same.
func (f *finding) look(r root) error {
	entries, err := os.ReadDir(r.dir)
	if err != nil {
		return ignoreMissing(err)
	}
	var failed error
	for _, entry := range entries {
		switch {
		case r.protocol == Legacy:
			failed = errors.Join(failed, f.lookLegacy(r, entry))
		case entry.IsDir() && provider.ValidName(entry.Name()):
			failed = errors.Join(failed, f.lookNative(r, entry))
		}
	}
	return failed
}

// lookNative lists a native provider's directory.
func (f *finding) lookNative(r root, directory fs.DirEntry) error {
	info, err := directory.Info()
	if err != nil {
		return ignoreMissing(err)
	}
	name := directory.Name()
	f.directories[name] = true
	dir := filepath.Join(r.dir, name)
	f.enter(dir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return ignoreMissing(err)
	}
	owner, _ := ownerOf(info)
	var failed error
	for _, entry := range entries {
		info, err := socketInfo(entry)
		if err != nil || info == nil {
			failed = errors.Join(failed, err)
			continue
		}
		_, file := ownerOf(info)
		f.sockets = append(f.sockets, socket{
			path: filepath.Join(dir, entry.Name()), provider: name, protocol: Native,
			created: info.ModTime().UnixNano(), inode: file, owner: owner,
		})
	}
	return failed
}

// lookLegacy adds one entry of a legacy root, if it is a provider's socket.
func (f *finding) lookLegacy(r root, entry fs.DirEntry) error {
	info, err := socketInfo(entry)
	if err != nil || info == nil {
		return err
	}
	name := strings.TrimSuffix(entry.Name(), socketSuffix)
	if !provider.ValidName(name) {
		return nil
	}
	owner, file := ownerOf(info)
	f.sockets = append(f.sockets, socket{
		path: filepath.Join(r.dir, entry.Name()), provider: name, protocol: Legacy, order: r.order,
		created: info.ModTime().UnixNano(), inode: file, owner: owner,
	})
	return nil
}

// socketInfo is nil for whatever is not a socket by type and name. Links are
// not followed. Hidden names are sockets on their way to their real name.
func socketInfo(entry fs.DirEntry) (fs.FileInfo, error) {
	name := entry.Name()
	if !strings.HasSuffix(name, socketSuffix) || strings.HasPrefix(name, ".") {
		return nil, nil
	}
	info, err := entry.Info()
	if err != nil {
		return nil, ignoreMissing(err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return nil, nil
	}
	return info, nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return fmt.Errorf("look for providers: %w", err)
}

// compareNewest orders sockets of one provider, the preferred one first. The
// kernel's clock for files ticks in milliseconds, so two can be as new.
func compareNewest(a, b *socket) int {
	return cmp.Or(
		cmp.Compare(a.protocol, b.protocol),
		cmp.Compare(a.order, b.order),
		cmp.Compare(b.created, a.created),
	)
}
