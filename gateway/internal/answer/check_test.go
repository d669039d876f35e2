package answer_test

import (
	"errors"
	"math"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/postern-dev/postern/gateway/internal/answer"
	"github.com/postern-dev/postern/internal/rpc"
	providerv1 "github.com/postern-dev/postern/proto/gen/go/postern/provider/v1"
	secretv1 "github.com/postern-dev/postern/proto/gen/go/postern/secret/v1"
)

const maxBytes = 1000

func valid() *providerv1.FetchResponse {
	return &providerv1.FetchResponse{
		Files: []*secretv1.File{
			{Path: "user", Mode: 0o644, Contents: []byte("web")},
			{Path: "tls/key.pem", Mode: 0o777},
			{Path: "tls/cert.pem"},
			{Path: "tls-old"},
			{Path: ".hidden"},
			{Path: `with\backslash`},
			{Path: "a..b/c.."},
		},
		Objects:      []*secretv1.ObjectVersion{{Id: "db", Version: "7"}, {Id: "tls"}},
		FreshFor:     durationpb.New(0),
		RefreshAfter: durationpb.New(time.Minute),
		Leases:       []*secretv1.Lease{{ObjectId: "db", Duration: durationpb.New(time.Hour)}, {ObjectId: "tls"}},
	}
}

func current() []*secretv1.ObjectVersion { return []*secretv1.ObjectVersion{{Id: "db", Version: "6"}} }

func TestCheck(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 256)
	deep := strings.Repeat("abcdefg/", 512) + "x"
	file := func(p string) func(*providerv1.FetchResponse) {
		return func(r *providerv1.FetchResponse) { r.Files[0].Path = p }
	}
	fix := ": correct the file name in the SecretProviderClass"
	tests := []struct {
		name   string
		mutate func(*providerv1.FetchResponse)
		// want is empty for an answer that passes.
		want string
		// reason is INVALID_RESPONSE if it is not given.
		reason string
	}{
		{name: "valid", mutate: func(*providerv1.FetchResponse) {}},
		{name: "path of 4096 bytes", mutate: func(r *providerv1.FetchResponse) { r.Files = []*secretv1.File{{Path: deep[:4095] + "x"}} }, reason: rpc.ReasonResponseTooLarge, want: "the answer has 4102 bytes, the limit is 1000: fetch fewer or smaller objects, or raise --max-response-bytes"},
		{name: "element of 255 bytes", mutate: file(long[:255])},
		{name: "empty path", mutate: file(""), want: `file "": its path is empty` + fix},
		{name: "absolute path", mutate: file("/etc/passwd"), want: `file "/etc/passwd": its path is absolute` + fix},
		{name: "parent", mutate: file(".."), want: `file "..": its path starts with ".."` + fix},
		{name: "atomic writer's own", mutate: file("..data/x"), want: `file "..data/x": its path starts with ".."` + fix},
		{name: "parent within", mutate: file("a/../../b"), want: `file "a/../../b": its path holds ".."` + fix},
		{name: "dot", mutate: file("."), want: `file ".": its path is not in clean form` + fix},
		{name: "dot within", mutate: file("a/./b"), want: `file "a/./b": its path is not in clean form` + fix},
		{name: "double slash", mutate: file("a//b"), want: `file "a//b": its path is not in clean form` + fix},
		{name: "slash at the end", mutate: file("a/"), want: `file "a/": its path is not in clean form` + fix},
		{name: "NUL", mutate: file("a\x00b"), want: `file "a\x00b": its path holds a NUL` + fix},
		{name: "long element", mutate: file("a/" + long), want: `file "a/` + long[:253] + `…": its path has an element longer than 255 bytes` + fix},
		{name: "mode", mutate: func(r *providerv1.FetchResponse) { r.Files[0].Mode = 0o1000 }, want: `file "user": mode 01000 is more than 0777: correct it in the SecretProviderClass`},
		{name: "negative mode of a legacy provider", mutate: func(r *providerv1.FetchResponse) { r.Files[0].Mode = math.MaxUint32 }, want: `file "user": mode 037777777777 is more than 0777: correct it in the SecretProviderClass`},
		{name: "twice", mutate: file("tls/key.pem"), want: `file "tls/key.pem" is in the answer twice: give each object of the SecretProviderClass a file of its own`},
		{name: "file and directory", mutate: file("tls"), want: `file "tls/cert.pem": "tls" is a file and cannot be a directory too: rename one of them in the SecretProviderClass`},
		{name: "no files", mutate: func(r *providerv1.FetchResponse) { r.Files = nil }, want: "the answer has no files: this is a defect of the provider"},
		{name: "no objects", mutate: func(r *providerv1.FetchResponse) { r.Objects = nil }, want: "the answer has no objects: check that the SecretProviderClass lists some"},
		{name: "object without id", mutate: func(r *providerv1.FetchResponse) { r.Objects[1].Id = "" }, want: "object 2 of the answer has no id: this is a defect of the provider"},
		{name: "object twice", mutate: func(r *providerv1.FetchResponse) { r.Objects[1].Id = "db" }, want: `object "db" is in the answer twice: give each entry of the SecretProviderClass a name of its own`},
		{name: "too large", mutate: func(r *providerv1.FetchResponse) { r.Files[0].Contents = make([]byte, maxBytes) }, reason: rpc.ReasonResponseTooLarge, want: "the answer has 1069 bytes, the limit is 1000: fetch fewer or smaller objects, or raise --max-response-bytes"},
		{name: "fresh for less than nothing", mutate: func(r *providerv1.FetchResponse) { r.FreshFor = durationpb.New(-1) }, want: "fresh_for is not a duration of zero or more: this is a defect of the provider"},
		{name: "refresh in the past", mutate: func(r *providerv1.FetchResponse) { r.RefreshAfter = durationpb.New(-1) }, want: "refresh_after is not a duration of zero or more: this is a defect of the provider"},
		{name: "endless", mutate: func(r *providerv1.FetchResponse) { r.FreshFor = &durationpb.Duration{Seconds: math.MaxInt64} }, want: "fresh_for is not a duration of zero or more: this is a defect of the provider"},
		{name: "lease of nothing", mutate: func(r *providerv1.FetchResponse) { r.Leases[0].ObjectId = "x" }, want: `a lease belongs to object "x", which is not in the answer: this is a defect of the provider`},
		{name: "lease of less than nothing", mutate: func(r *providerv1.FetchResponse) { r.Leases[0].Duration = durationpb.New(-1) }, want: `object "db": the duration of its lease is not zero or more: this is a defect of the provider`},
		{name: "not modified with files", mutate: func(r *providerv1.FetchResponse) { r.NotModified = true }, want: `the answer is "not modified" and has files or objects as well: this is a defect of the provider`},
		{name: "state", mutate: func(r *providerv1.FetchResponse) { r.State = make([]byte, 16<<10) }},
		{name: "too much state", mutate: func(r *providerv1.FetchResponse) {
			proto.Reset(r)
			r.NotModified, r.State = true, make([]byte, 16<<10+1)
		}, want: "the answer's state has 16385 bytes, the limit is 16384: this is a defect of the provider"},
		{name: "not modified", mutate: func(r *providerv1.FetchResponse) { proto.Reset(r); r.NotModified = true }},
		{name: "not modified with a lease", mutate: func(r *providerv1.FetchResponse) {
			proto.Reset(r)
			r.NotModified, r.Leases = true, []*secretv1.Lease{{ObjectId: "db"}}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			resp := valid()
			tt.mutate(resp)
			check(t, answer.Check(resp, answer.Rules{MaxBytes: maxBytes, CurrentObjects: current()}), tt.want, tt.reason)
		})
	}
}

func TestCheck_NotModifiedOfNothing(t *testing.T) {
	t.Parallel()
	err := answer.Check(&providerv1.FetchResponse{NotModified: true}, answer.Rules{MaxBytes: maxBytes})
	check(t, err, `the answer is "not modified" though the volume holds nothing yet: this is a defect of the provider`, "")
}

func TestCheck_LongPaths(t *testing.T) {
	t.Parallel()
	rules := answer.Rules{MaxBytes: 1 << 20}
	resp := valid()
	resp.Files[0].Path = strings.Repeat("abcdefg/", 511) + "abcdefgh"
	check(t, answer.Check(resp, rules), "", "")
	resp.Files[0].Path += "i"
	check(t, answer.Check(resp, rules), `file "`+resp.Files[0].Path[:255]+`…": its path is longer than 4096 bytes: correct the file name in the SecretProviderClass`, "")
}

func check(t *testing.T, err error, want, reason string) {
	t.Helper()
	if want == "" {
		if err != nil {
			t.Errorf("got %v, want that it passes", err)
		}
		return
	}
	if reason == "" {
		reason = rpc.ReasonInvalidResponse
	}
	e, ok := errors.AsType[*rpc.Error](err)
	if !ok {
		t.Fatalf("got %v, want an *rpc.Error", err)
	}
	if e.Reason != reason || status.Code(e) != codes.Internal {
		t.Errorf("got reason %s and code %s, want %s and Internal", e.Reason, status.Code(e), reason)
	}
	if diff := cmp.Diff(want, e.Message); diff != "" {
		t.Errorf("message (-want +got):\n%s", diff)
	}
}

// FuzzCheck holds whatever passes against a second, slower reading of the rules.
func FuzzCheck(f *testing.F) {
	f.Add("a", "b/c", uint32(0o644))
	f.Add("a/b", "a", uint32(0))
	f.Add("a-b", "a/b", uint32(0o777))
	f.Add("..", "a/../b", uint32(0o1000))
	f.Add("a\x00", "/", uint32(1))
	f.Fuzz(func(t *testing.T, first, second string, mode uint32) {
		resp := &providerv1.FetchResponse{
			Files:   []*secretv1.File{{Path: first, Mode: mode}, {Path: second, Mode: mode}, {Path: "a"}},
			Objects: []*secretv1.ObjectVersion{{Id: first}, {Id: second}},
		}
		if err := answer.Check(resp, answer.Rules{MaxBytes: 1 << 20}); err != nil {
			return
		}
		if first == second || mode > 0o777 {
			t.Errorf("passed: %q, %q, mode %#o", first, second, mode)
		}
		files := map[string]bool{}
		for _, file := range resp.GetFiles() {
			files[file.GetPath()] = true
		}
		for p := range files {
			const root = "/volume"
			if joined := path.Join(root, p); joined != root+"/"+p || strings.HasPrefix(p, "..") || strings.Contains(p, "\x00") {
				t.Errorf("passed: %q, which leads to %q", p, joined)
			}
			for dir := path.Dir(p); dir != "."; dir = path.Dir(dir) {
				if files[dir] {
					t.Errorf("passed: %q is a file and a directory", dir)
				}
			}
		}
		if len(files) != len(resp.GetFiles()) {
			t.Error("passed: a path is there twice")
		}
	})
}
