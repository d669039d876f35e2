package answer

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/postern-dev/postern/internal/rpc"
	providerv1 "github.com/postern-dev/postern/proto/gen/go/postern/provider/v1"
	secretv1 "github.com/postern-dev/postern/proto/gen/go/postern/secret/v1"
)

// Limits of a file, as the upstream driver has them.
const (
	maxPathBytes    = 4096
	maxElementBytes = 255
	maxMode         = 0o777
)

// maxStateBytes is what a provider may have kept for a volume. The driver keeps
// it for each.
const maxStateBytes = 16 << 10

// Rules is what an answer is held against.
type Rules struct {
	// MaxBytes bounds contents, paths and ids together.
	MaxBytes int
	// CurrentObjects is what the volume holds. Without any, an answer cannot
	// be "not modified".
	CurrentObjects []*secretv1.ObjectVersion
}

// Check returns nil for an answer that keeps the rules. The error is an
// [*rpc.Error] with INVALID_RESPONSE or RESPONSE_TOO_LARGE, which names the
// path or object and says what to do. It does not name the provider.
func Check(resp *providerv1.FetchResponse, rules Rules) error {
	if size := len(resp.GetState()); size > maxStateBytes {
		return invalid("the answer's state has %d bytes, the limit is %d: this is a defect of the provider", size, maxStateBytes)
	}
	if resp.GetNotModified() {
		return checkNotModified(resp, rules)
	}
	if size := sizeOf(resp); size > rules.MaxBytes {
		return &rpc.Error{
			Reason: rpc.ReasonResponseTooLarge,
			Message: fmt.Sprintf("the answer has %d bytes, the limit is %d: fetch fewer or smaller objects, or raise --max-response-bytes",
				size, rules.MaxBytes),
		}
	}
	ids, err := checkObjects(resp.GetObjects())
	if err != nil {
		return err
	}
	if err := checkFiles(resp.GetFiles()); err != nil {
		return err
	}
	return checkTimes(resp, ids)
}

func checkNotModified(resp *providerv1.FetchResponse, rules Rules) error {
	switch {
	case len(rules.CurrentObjects) == 0:
		return invalid("the answer is \"not modified\" though the volume holds nothing yet: this is a defect of the provider")
	case len(resp.GetFiles()) > 0 || len(resp.GetObjects()) > 0:
		return invalid("the answer is \"not modified\" and has files or objects as well: this is a defect of the provider")
	}
	ids := make(map[string]struct{}, len(rules.CurrentObjects))
	for _, o := range rules.CurrentObjects {
		ids[o.GetId()] = struct{}{}
	}
	return checkTimes(resp, ids)
}

func checkObjects(objects []*secretv1.ObjectVersion) (map[string]struct{}, error) {
	if len(objects) == 0 {
		return nil, invalid("the answer has no objects: check that the SecretProviderClass lists some")
	}
	ids := make(map[string]struct{}, len(objects))
	for i, o := range objects {
		id := o.GetId()
		if id == "" {
			return nil, invalid("object %d of the answer has no id: this is a defect of the provider", i+1)
		}
		if _, ok := ids[id]; ok {
			return nil, invalid("object %q is in the answer twice: give each entry of the SecretProviderClass a name of its own", abbreviated(id))
		}
		ids[id] = struct{}{}
	}
	return ids, nil
}

func checkFiles(files []*secretv1.File) error {
	if len(files) == 0 {
		return invalid("the answer has no files: this is a defect of the provider")
	}
	paths := make([]string, 0, len(files))
	for _, f := range files {
		p := f.GetPath()
		if problem := problemOf(p); problem != "" {
			return invalid("file %q: its path %s: correct the file name in the SecretProviderClass", abbreviated(p), problem)
		}
		if f.GetMode() > maxMode {
			return invalid("file %q: mode %#o is more than 0777: correct it in the SecretProviderClass", abbreviated(p), f.GetMode())
		}
		paths = append(paths, p)
	}
	return checkTree(paths)
}

// checkTree refuses paths that cannot all be files. Sorted as trees are walked,
// a file that is also a directory comes right before what is below it, so a
// look at neighbours is enough, however deep the paths are.
func checkTree(paths []string) error {
	slices.SortFunc(paths, compareInTree)
	for i := 1; i < len(paths); i++ {
		before, p := paths[i-1], paths[i]
		rest, below := strings.CutPrefix(p, before)
		switch {
		case !below:
		case rest == "":
			return invalid("file %q is in the answer twice: give each object of the SecretProviderClass a file of its own", abbreviated(p))
		case rest[0] == '/':
			return invalid("file %q: %q is a file and cannot be a directory too: rename one of them in the SecretProviderClass",
				abbreviated(p), abbreviated(before))
		}
	}
	return nil
}

// compareInTree orders paths by their bytes, with the slash before all others.
func compareInTree(a, b string) int {
	for i := range min(len(a), len(b)) {
		switch {
		case a[i] == b[i]:
		case a[i] == '/':
			return -1
		case b[i] == '/':
			return 1
		default:
			return cmp.Compare(a[i], b[i])
		}
	}
	return cmp.Compare(len(a), len(b))
}

// problemOf says what is wrong with a path, or nothing.
func problemOf(p string) string {
	switch {
	case p == "":
		return "is empty"
	case len(p) > maxPathBytes:
		return fmt.Sprintf("is longer than %d bytes", maxPathBytes)
	case strings.HasPrefix(p, "/"):
		return "is absolute"
	case strings.HasPrefix(p, ".."):
		// "..data" and the like belong to the atomic writer.
		return `starts with ".."`
	case strings.ContainsRune(p, 0):
		return "holds a NUL"
	}
	for element := range strings.SplitSeq(p, "/") {
		switch {
		case element == "..":
			return `holds ".."`
		case len(element) > maxElementBytes:
			return fmt.Sprintf("has an element longer than %d bytes", maxElementBytes)
		}
	}
	if path.Clean(p) != p || p == "." {
		return "is not in clean form"
	}
	return ""
}

// abbreviated keeps an overlong path from filling a message.
func abbreviated(p string) string {
	if len(p) <= maxElementBytes {
		return p
	}
	return strings.ToValidUTF8(p[:maxElementBytes], "") + "…"
}

func checkTimes(resp *providerv1.FetchResponse, ids map[string]struct{}) error {
	switch {
	case !validDuration(resp.GetFreshFor()):
		return invalid("fresh_for is not a duration of zero or more: this is a defect of the provider")
	case !validDuration(resp.GetRefreshAfter()):
		return invalid("refresh_after is not a duration of zero or more: this is a defect of the provider")
	}
	for _, lease := range resp.GetLeases() {
		id := lease.GetObjectId()
		if _, ok := ids[id]; !ok {
			return invalid("a lease belongs to object %q, which is not in the answer: this is a defect of the provider", abbreviated(id))
		}
		if !validDuration(lease.GetDuration()) {
			return invalid("object %q: the duration of its lease is not zero or more: this is a defect of the provider", abbreviated(id))
		}
	}
	return nil
}

// validDuration accepts a duration that is not set.
func validDuration(d *durationpb.Duration) bool {
	return d == nil || (d.IsValid() && d.AsDuration() >= 0)
}

// sizeOf is what an answer costs: all that is as long as a provider likes.
func sizeOf(resp *providerv1.FetchResponse) int {
	size := 0
	for _, f := range resp.GetFiles() {
		size += len(f.GetPath()) + len(f.GetContents())
	}
	for _, o := range resp.GetObjects() {
		size += len(o.GetId()) + len(o.GetVersion())
	}
	return size
}

func invalid(format string, args ...any) error {
	return &rpc.Error{
		Reason:  rpc.ReasonInvalidResponse,
		Message: fmt.Sprintf(format, args...),
	}
}
