package file

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"

	"github.com/postern-dev/postern/providers/sdk"
)

// attempts is how often a file that changes while it is read is read again.
const attempts = 3

// maxDepth ends the descent into directories that symbolic links make endless.
const maxDepth = 16

// reader reads objects below a root.
type reader struct {
	root     *os.Root
	maxBytes int
	maxFiles int
}

// content is a file that was read.
type content struct {
	// path is where it goes in the volume.
	path     string
	contents sdk.Secret
	stamp    stamp
}

// version names the state of what an object puts into the volume, without
// saying anything about its content: it is made of the file's own metadata,
// which change whenever someone writes to the file, and of what the object
// makes of it.
func (c *content) version(o object, mode fs.FileMode) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%+v %q %q %o", c.stamp, c.path, o.ObjectEncoding, mode))
	return hex.EncodeToString(sum[:16])
}

// read reads an object: one file, or all below a directory.
func (r *reader) read(ctx context.Context, o object) ([]content, error) {
	info, err := r.root.Stat(o.ObjectName)
	if err != nil {
		return nil, problem(o, err)
	}
	if !info.IsDir() {
		c, err := r.readFile(ctx, o, o.ObjectName)
		if err != nil {
			return nil, err
		}
		c.path = o.Path
		return []content{c}, nil
	}
	names, err := r.list(ctx, o, o.ObjectName, 1)
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return nil, sdk.NotFound(o.ObjectName, "the directory holds no files: put some there")
	}
	contents := make([]content, 0, len(names))
	for _, name := range names {
		c, err := r.readFile(ctx, o, name)
		if err != nil {
			return nil, err
		}
		below := name // of the directory "."
		if o.ObjectName != "." {
			below = strings.TrimPrefix(name, o.ObjectName+"/")
		}
		c.path = path.Join(o.Path, below)
		contents = append(contents, c)
	}
	return contents, nil
}

// list returns the names of all files below a directory, which may be behind
// symbolic links: that is how Kubernetes lays out the volumes that it mounts.
// What starts with ".." is left out: there it keeps the same files again.
func (r *reader) list(ctx context.Context, o object, dir string, depth int) ([]string, error) {
	if depth > maxDepth {
		return nil, r.tooMuch(o, "directories nested more than %d deep", maxDepth)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	entries, err := fs.ReadDir(r.root.FS(), dir)
	if err != nil {
		return nil, problem(o, err)
	}
	var names []string
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), "..") {
			continue
		}
		name := path.Join(dir, entry.Name())
		info, err := r.root.Stat(name)
		if err != nil {
			return nil, problem(o, err)
		}
		below := []string{name}
		if info.IsDir() {
			if below, err = r.list(ctx, o, name, depth+1); err != nil {
				return nil, err
			}
		}
		if names = append(names, below...); len(names) > r.maxFiles {
			return nil, r.tooMuch(o, "more than %d files", r.maxFiles)
		}
	}
	return names, nil
}

func (r *reader) tooMuch(o object, format string, limit int) error {
	return &sdk.Error{
		Reason: sdk.ReasonResponseTooLarge, Object: o.ObjectName,
		Message: "the directory holds " + fmt.Sprintf(format, limit) + ": ask for fewer files",
	}
}

// readFile reads one file of an object, in a state that it was in.
func (r *reader) readFile(ctx context.Context, o object, name string) (content, error) {
	for range attempts {
		if err := ctx.Err(); err != nil {
			return content{}, err
		}
		c, stable, err := r.readOnce(o, name)
		if err != nil || stable {
			return c, err
		}
	}
	return content{}, sdk.StoreUnavailable("object %q: the file %q changes while it is read: replace it by renaming a "+
		"new one", o.ObjectName, name)
}

func (r *reader) readOnce(o object, name string) (content, bool, error) {
	f, err := r.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // so that a pipe does not hang
	if err != nil {
		return content{}, false, problem(o, err)
	}
	defer func() { _ = f.Close() }() // opened for reading only
	before, err := f.Stat()
	if err != nil {
		return content{}, false, problem(o, err)
	}
	if !before.Mode().IsRegular() {
		return content{}, false, sdk.AccessDenied(o.ObjectName, "%q is no regular file", name)
	}
	b, err := io.ReadAll(io.LimitReader(f, int64(r.maxBytes)+1))
	if err != nil {
		return content{}, false, problem(o, err)
	}
	if len(b) > r.maxBytes {
		return content{}, false, &sdk.Error{
			Reason: sdk.ReasonResponseTooLarge, Object: o.ObjectName,
			Message: fmt.Sprintf("the file %q is larger than %d bytes: make it smaller, or raise --max-file-bytes", name, r.maxBytes),
		}
	}
	after, err := f.Stat()
	if err != nil {
		return content{}, false, problem(o, err)
	}
	if b, err = decode(o, name, b); err != nil {
		return content{}, false, err
	}
	return content{contents: sdk.NewSecret(b), stamp: stampOf(before)}, stampOf(before) == stampOf(after), nil
}

// decode undoes an object's encoding. What cannot be decoded is not repeated.
func decode(o object, name string, b []byte) ([]byte, error) {
	var (
		out []byte
		err error
	)
	switch o.ObjectEncoding {
	case encodingBase64:
		out, err = base64.StdEncoding.DecodeString(strings.TrimSpace(string(b)))
	case encodingHex:
		out, err = hex.DecodeString(strings.TrimSpace(string(b)))
	default:
		return b, nil
	}
	if err != nil {
		return nil, &sdk.Error{
			Reason: sdk.ReasonInvalidParameters, Object: o.ObjectName,
			Message: fmt.Sprintf("the file %q is not in the objectEncoding %s: correct one of them", name, o.ObjectEncoding),
			Fields:  []sdk.FieldViolation{{Field: "objectEncoding", Description: "the file is not in this encoding"}},
		}
	}
	return out, nil
}

// problem says what a file system's error means for the object. Its text holds
// paths only.
func problem(o object, err error) error {
	if e, ok := errors.AsType[*sdk.Error](err); ok {
		return e
	}
	errno, isErrno := errors.AsType[syscall.Errno](err)
	switch {
	case errors.Is(err, fs.ErrNotExist), errno == syscall.ENOTDIR:
		return sdk.NotFound(o.ObjectName, "there is no such file for this namespace: put it below the provider's "+
			"directory, or correct objectName").WithCause(err)
	case errors.Is(err, fs.ErrPermission):
		return sdk.AccessDenied(o.ObjectName, "the provider may not read the file: let user id %d read it and enter "+
			"the directories above it", os.Getuid()).WithCause(err)
	case !isErrno, errno == syscall.ELOOP: // os.Root says so in an error of its own
		return sdk.AccessDenied(o.ObjectName, "the file is, or is behind, a symbolic link that leaves the provider's "+
			"directory or never ends: replace the link").WithCause(err)
	default:
		return sdk.StoreUnavailable("object %q: the file cannot be read: %v", o.ObjectName, err).WithCause(err)
	}
}
