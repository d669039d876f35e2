package sdk

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func completeRequest() *Request {
	return &Request{
		VolumeID: "volume", Pod: Pod{Namespace: "ns", Name: "pod", UID: "uid", ServiceAccount: ServiceAccount{Name: "sa"}},
		DefaultFileMode: 0o600,
	}
}

func TestRequest_Complete(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		mutate func(*Request)
		field  string
	}{
		{"volume", func(r *Request) { r.VolumeID = "" }, "volume_id"},
		{"namespace", func(r *Request) { r.Pod.Namespace = "" }, "pod.namespace"},
		{"name", func(r *Request) { r.Pod.Name = "" }, "pod.name"},
		{"uid", func(r *Request) { r.Pod.UID = "" }, "pod.uid"},
		{"service account", func(r *Request) { r.Pod.ServiceAccount.Name = "" }, "pod.service_account.name"},
		{"mode", func(r *Request) { r.DefaultFileMode = 0o1644 }, "default_file_mode"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := completeRequest()
			tt.mutate(r)
			e, ok := errors.AsType[*Error](r.complete(&Definition{}))
			if !ok || e.Reason != ReasonInvalidParameters || len(e.Fields) != 1 || e.Fields[0].Field != tt.field {
				t.Errorf("complete() = %+v, want INVALID_PARAMETERS of %s", e, tt.field)
			}
		})
	}
	r := completeRequest()
	r.DefaultFileMode = 0
	if err := r.complete(&Definition{}); err != nil || r.DefaultFileMode != 0o644 {
		t.Errorf("complete() = %v, mode %o, want 0644", err, r.DefaultFileMode)
	}
}

// A provider is shown no token that its definition does not ask for.
func TestRequest_CompleteKeepsDeclaredTokens(t *testing.T) {
	t.Parallel()
	def := &Definition{Audiences: []Audience{
		{Value: "fixed"},
		{Parameter: "audience", ParameterDefault: "default"},
		{Parameter: "other"},
	}}
	all := Tokens{{Audience: "fixed"}, {Audience: "default"}, {Audience: "mine"}, {Audience: "foreign"}, {Audience: ""}}
	for _, tt := range []struct {
		name       string
		parameters Parameters
		want       []string
	}{
		{"default", nil, []string{"fixed", "default"}},
		{"empty", Parameters{"audience": ""}, []string{"fixed", "default"}},
		{"set", Parameters{"audience": "mine"}, []string{"fixed", "mine"}},
		{"without a default", Parameters{"other": "foreign"}, []string{"fixed", "default", "foreign"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := completeRequest()
			r.Parameters, r.Tokens = tt.parameters, all
			if err := r.complete(def); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, token := range r.Tokens {
				got = append(got, token.Audience)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("audiences (-want +got):\n%s", diff)
			}
		})
	}
}

// Whatever prints a request or a response shows no token and no content.
func TestSecretsDoNotPrint(t *testing.T) {
	t.Parallel()
	const canary = "canary-0123456789"
	req := completeRequest()
	req.Tokens = Tokens{{Audience: "a", Token: NewSecretString(canary)}}
	req.Secrets = map[string]SecretString{"key": NewSecretString(canary)}
	resp := &Response{Files: []File{{Path: "p", Mode: 0o644, Contents: NewSecret([]byte(canary))}}}
	for _, v := range []any{req, *req, resp, *resp, req.Tokens, req.Tokens[0], req.Secrets, resp.Files, resp.Files[0]} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			leaks(t, verb, fmt.Sprintf(verb, v), canary)
		}
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		leaks(t, "JSON", string(b), canary)
		var log bytes.Buffer
		slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "v", v)
		slog.New(slog.NewTextHandler(&log, nil)).Info("x", "v", v)
		leaks(t, "slog", log.String(), canary)
	}
}

func leaks(t *testing.T, how, text, canary string) {
	t.Helper()
	for _, form := range []string{canary, fmt.Sprintf("%x", canary), fmt.Sprintf("%d", []byte(canary))} {
		if strings.Contains(text, form) {
			t.Errorf("%s shows the secret: %s", how, text)
		}
	}
}

func TestValidateResponse(t *testing.T) {
	t.Parallel()
	all := &Definition{Name: "x", NotModified: true, Leases: true}
	current := []ObjectVersion{{ID: "o", Version: "1"}}
	for _, tt := range []struct {
		name   string
		def    *Definition
		mutate func(*Request, *Response)
		reason Reason
		want   string
	}{
		{name: "valid", mutate: func(*Request, *Response) {}},
		{name: "lease", mutate: func(_ *Request, r *Response) { r.Leases = []Lease{{ObjectID: "o"}} }},
		{name: "not modified", mutate: func(q *Request, r *Response) { q.CurrentObjects = current; *r = Response{NotModified: true} }},
		{name: "no files", mutate: func(_ *Request, r *Response) { r.Files = nil }, want: "no files"},
		{name: "no objects", mutate: func(_ *Request, r *Response) { r.Objects = nil }, want: "no objects"},
		{name: "no id", mutate: func(_ *Request, r *Response) { r.Objects[0].ID = "" }, want: "an object has no id"},
		{name: "no version", mutate: func(_ *Request, r *Response) { r.Objects[0].Version = "" }, want: `object "o" has no version`},
		{
			name: "same id", mutate: func(_ *Request, r *Response) { r.Objects = append(r.Objects, r.Objects[0]) },
			want: `two objects have the id "o"`,
		},
		{name: "version not UTF-8", mutate: func(_ *Request, r *Response) { r.Objects[0].Version = "\xff" }, want: "is not UTF-8"},
		{name: "bad path", mutate: func(_ *Request, r *Response) { r.Files[0].Path = "/f" }, want: `file "/f": the path is absolute`},
		{
			name: "too large", mutate: func(_ *Request, r *Response) { r.Files[0].Contents = NewSecret(make([]byte, MaxResponseBytes)) },
			reason: ReasonResponseTooLarge, want: "the files take 15728705 bytes, and a volume may take 15728640",
		},
		{name: "negative time", mutate: func(_ *Request, r *Response) { r.FreshFor = -1 }, want: "a time is negative"},
		{name: "sharing", mutate: func(_ *Request, r *Response) { r.Sharing = 9 }, want: "sharing 9 is not defined"},
		{name: "foreign lease", mutate: func(_ *Request, r *Response) { r.Leases = []Lease{{ObjectID: "x"}} }, want: `a lease is of object "x"`},
		{
			name: "negative lease", mutate: func(_ *Request, r *Response) { r.Leases = []Lease{{ObjectID: "o", Duration: -1}} },
			want: "negative duration",
		},
		{
			name: "leases not announced", def: &Definition{}, mutate: func(_ *Request, r *Response) { r.Leases = []Lease{{ObjectID: "o"}} },
			want: "leases, which the provider's definition does not announce",
		},
		{name: "not modified, not announced", def: &Definition{}, mutate: func(q *Request, r *Response) {
			q.CurrentObjects = current
			*r = Response{NotModified: true}
		}, want: "not modified, which the provider's definition does not announce"},
		{
			name: "not modified, of nothing", mutate: func(_ *Request, r *Response) { *r = Response{NotModified: true} },
			want: "though the volume holds nothing",
		},
		{
			name: "not modified, with files", mutate: func(q *Request, r *Response) { q.CurrentObjects = current; r.NotModified = true },
			want: "not modified, but with files or objects",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			def := all
			if tt.def != nil {
				def = tt.def
			}
			req := completeRequest()
			resp := &Response{
				Files:   []File{{Path: "f", Mode: fs.FileMode(0o644), Contents: NewSecret([]byte("x"))}},
				Objects: []ObjectVersion{{ID: "o", Version: "1"}},
			}
			tt.mutate(req, resp)
			err := validateResponse(def, req, resp)
			if tt.want == "" {
				if err != nil {
					t.Fatalf("validateResponse() = %v", err)
				}
				return
			}
			want := tt.reason
			if want == "" {
				want = ReasonInvalidResponse
			}
			e, ok := errors.AsType[*Error](err)
			if !ok || e.Reason != want || !strings.Contains(e.Error(), tt.want) {
				t.Errorf("validateResponse() = %v, want %s with %q", err, want, tt.want)
			}
		})
	}
	if err := validateResponse(all, completeRequest(), nil); err == nil {
		t.Error("validateResponse(nil) = nil")
	}
}

func TestRequest_Holds(t *testing.T) {
	t.Parallel()
	r := completeRequest()
	r.CurrentObjects = []ObjectVersion{{ID: "a", Version: "1"}, {ID: "b", Version: "2"}}
	for name, tt := range map[string]struct {
		objects []ObjectVersion
		want    bool
	}{
		"the same":      {[]ObjectVersion{{ID: "b", Version: "2"}, {ID: "a", Version: "1"}}, true},
		"nothing":       {nil, false},
		"one is newer":  {[]ObjectVersion{{ID: "a", Version: "1"}, {ID: "b", Version: "3"}}, false},
		"one less":      {[]ObjectVersion{{ID: "a", Version: "1"}}, false},
		"one more":      {[]ObjectVersion{{ID: "a", Version: "1"}, {ID: "b", Version: "2"}, {ID: "c", Version: "3"}}, false},
		"another":       {[]ObjectVersion{{ID: "a", Version: "1"}, {ID: "c", Version: "2"}}, false},
		"another, bare": {[]ObjectVersion{{ID: "a", Version: "1"}, {ID: "c"}}, false},
	} {
		if got := r.Holds(tt.objects); got != tt.want {
			t.Errorf("%s: Holds() = %t", name, got)
		}
	}
}
