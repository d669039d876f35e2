package version

import (
	"strings"
	"testing"

	"github.com/hashicorp/vault/api"

	"github.com/postern-dev/postern/providers/vault/internal/params"
	"github.com/postern-dev/postern/providers/vault/internal/store"
)

const (
	kv2    = `{"data":{"data":{"k":"canary"},"metadata":{"version":3,"created_time":"2026-01-02T03:04:05Z"}}}`
	kv1    = `{"data":{"k":"canary"}}`
	leased = `{"lease_id":"database/creds/a/1","lease_duration":60,"data":{"k":"canary"}}`
)

func input(t *testing.T, body string) Input {
	t.Helper()
	secret, err := api.ParseSecret(strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return Input{
		Endpoint: store.Endpoint{Address: "https://v"},
		Object:   params.Object{Name: "o", Key: "k", Request: store.Request{Method: "GET", Path: "v1/secret/data/app"}},
		Mode:     0o644, Credential: secret.LeaseID, Answer: store.NewAnswer(secret), Contents: []byte("canary"),
	}
}

func of(t *testing.T, in Input) string {
	t.Helper()
	v, err := New().Of(in) // a new one each time: another process
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestOf lists what changes a version and what does not.
func TestOf(t *testing.T) {
	t.Parallel()
	config := map[string]struct {
		change func(*Input)
		same   bool
	}{
		"nothing":     {func(*Input) {}, true},
		"TLS":         {func(in *Input) { in.Endpoint.TLS.SkipVerify = true }, true},
		"mode":        {func(in *Input) { in.Mode = 0o600 }, false},
		"address":     {func(in *Input) { in.Endpoint.Address = "https://w" }, false},
		"namespace":   {func(in *Input) { in.Endpoint.Namespace = "n" }, false},
		"name":        {func(in *Input) { in.Object.Name = "p" }, false},
		"key":         {func(in *Input) { in.Object.Key = "l" }, false},
		"path":        {func(in *Input) { in.Object.Request.Path += "x" }, false},
		"arguments":   {func(in *Input) { in.Object.Request.Body = []byte("{}") }, false},
		"encoding":    {func(in *Input) { in.Object.Encoding = params.Hex }, false},
		"data format": {func(in *Input) { in.Object.Format = params.Data }, false},
	}
	for kind, body := range map[string]string{"kv 2": kv2, "kv 1": kv1, "leased": leased} {
		for name, tt := range config {
			t.Run(kind+" "+name, func(t *testing.T) {
				t.Parallel()
				in := input(t, body)
				tt.change(&in)
				if got := of(t, in) == of(t, input(t, body)); got != tt.same {
					t.Errorf("the same is %v, want %v", got, tt.same)
				}
			})
		}
	}
}

func TestOfContents(t *testing.T) {
	t.Parallel()
	// The answer, the contents, and whether the version stays the same.
	tests := map[string]struct {
		before, after string
		contents      string
		same          bool
	}{
		"kv 2, next version":       {kv2, strings.Replace(kv2, ":3,", ":4,", 1), "canary", false},
		"kv 2, made anew":          {kv2, strings.Replace(kv2, "2026", "2027", 1), "canary", false},
		"kv 2, request id":         {kv2, strings.Replace(kv2, "{", `{"request_id":"r",`, 1), "canary", true},
		"kv 1, content":            {kv1, kv1, "other", false},
		"leased, another lease":    {leased, strings.Replace(leased, "a/1", "a/2", 1), "canary", false},
		"leased, remaining time":   {leased, strings.Replace(leased, "60", "59", 1), "canary", true},
		"kv 1 looking like kv 2":   {strings.Replace(kv2, "3", "null", 1), strings.Replace(kv2, "3", "null", 1), "other", false},
		"kv 2, whole, its content": {kv2, kv2, "other", true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			before, after := input(t, tt.before), input(t, tt.after)
			after.Contents = []byte(tt.contents)
			if got := of(t, before) == of(t, after); got != tt.same {
				t.Errorf("the same is %v, want %v", got, tt.same)
			}
		})
	}
	whole, other := input(t, kv2), input(t, kv2)
	whole.Object.Key, other.Object.Key, other.Contents = "", "", []byte("custom metadata")
	if of(t, whole) == of(t, other) {
		t.Error("an envelope holds more than the version is of: its content must count")
	}
}

// The process that comes after this one knows a credential's id, and not what
// was issued.
func TestOfCredential(t *testing.T) {
	t.Parallel()
	whole, lost := input(t, leased), input(t, leased)
	lost.Answer, lost.Contents = nil, nil
	if of(t, whole) != of(t, lost) {
		t.Error("the version of a credential depends on its contents")
	}
}

func TestVersionTellsNothing(t *testing.T) {
	t.Parallel()
	for _, body := range []string{kv2, kv1, leased} {
		if v := of(t, input(t, body)); strings.Contains(v, "canary") || strings.Contains(v, "creds") || len(v) > 40 {
			t.Errorf("version = %q", v)
		}
	}
}
