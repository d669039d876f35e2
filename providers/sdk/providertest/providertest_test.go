package providertest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/postern-dev/postern/providers/sdk"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func modes(pairs ...any) map[string]fs.FileMode {
	out := make(map[string]fs.FileMode)
	for pair := range slices.Chunk(pairs, 2) {
		out[pair[0].(string)] = fs.FileMode(pair[1].(int))
	}
	return out
}

// A provider that does all it must passes.
func TestRun(t *testing.T) {
	t.Parallel()
	Run(t, harness(breaks{}))
}

// failures makes all checks of a harness and returns those that failed.
func failures(t *testing.T, h Harness) map[string]error {
	t.Helper()
	s, err := newSuite(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.close() }() // a broken provider may not even end
	out := map[string]error{}
	for _, c := range checks() {
		if err := s.make(t.Context(), c); err != nil && !errors.Is(err, errSkip) {
			out[c.name] = err
		}
	}
	return out
}

func replace(change func(*sdk.Response)) breaks {
	return breaks{response: func(_ *provider, _ *sdk.Request, r *sdk.Response) (*sdk.Response, error) {
		change(r)
		return r, nil
	}}
}

// Each provider here breaks one rule, and the suite notices.
func TestRun_NoticesBrokenProviders(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		breaks breaks
		check  string
		want   string
	}{
		{
			"undeclared audience",
			breaks{definition: func(d *sdk.Definition) { d.Audiences = nil }},
			"describe", "does not declare",
		},
		{
			"undeclared parameter",
			breaks{definition: func(d *sdk.Definition) { d.Parameters = nil }},
			"describe", `the parameter "objects", which the definition does not declare`,
		},
		{"unhealthy", breaks{health: errors.New("no store")}, "health", "no store"},
		{"no files", replace(func(r *sdk.Response) { r.Files = nil }), "fetch", "no files"},
		{"no objects", replace(func(r *sdk.Response) { r.Objects = nil }), "fetch", "no objects"},
		{"same id twice", replace(func(r *sdk.Response) { r.Objects = append(r.Objects, r.Objects[0]) }), "fetch", "two objects"},
		{"path up", replace(func(r *sdk.Response) { r.Files[0].Path = "../db" }), "fetch", `starts with ".."`},
		{
			"wrong content", replace(func(r *sdk.Response) { r.Files[0].Contents = sdk.NewSecret([]byte("other")) }),
			"fetch", `file "db" has the wrong content`,
		},
		{"extra file", replace(func(r *sdk.Response) { r.Files = append(r.Files, sdk.File{Path: "extra"}) }), "fetch", "files differ"},
		{
			"content as version", replace(func(r *sdk.Response) { r.Objects[0].Version = string(r.Files[0].Contents.Reveal()) }),
			"fetch", `the version of object "db" holds the content`,
		},
		{"mode of its own", replace(func(r *sdk.Response) { r.Files[0].Mode = 0o644 }), "default mode", `file "db" has the mode 0644, want 0400`},
		{"explicit modes ignored", replace(func(r *sdk.Response) { r.Files[0].Mode = 0 }), "explicit modes", `file "db" has the mode 0604, want 0440`},
		{"unknown parameters refused", breaks{request: func(_ *provider, r *sdk.Request) {
			if len(r.Parameters) > 1 {
				r.Parameters = nil
			}
		}}, "unknown parameters", "names no secret"},
		{"malformed YAML hidden", breaks{failure: func(_ *provider, _ *sdk.Request, err error) error {
			if e, ok := errors.AsType[*sdk.Error](err); ok && e.Reason == sdk.ReasonInvalidParameters {
				return sdk.Internal("oops")
			}
			return err
		}}, "malformed parameters", "the reason is INTERNAL, want INVALID_PARAMETERS"},
		{"untyped errors", breaks{failure: func(_ *provider, _ *sdk.Request, err error) error {
			return errors.New(err.Error())
		}}, "errors", "the reason is INTERNAL, want OBJECT_NOT_FOUND"},
		{"errors without object", breaks{failure: func(_ *provider, _ *sdk.Request, err error) error {
			if e, ok := errors.AsType[*sdk.Error](err); ok {
				e.Object = ""
			}
			return err
		}}, "errors", `the object is "", want "shop/nothing"`},
		{"answers mixed up", breaks{response: func(p *provider, _ *sdk.Request, r *sdk.Response) (*sdk.Response, error) {
			p.mu.Lock()
			defer p.mu.Unlock()
			if p.last == nil {
				p.last = r
			}
			return p.last, nil
		}}, "concurrent pods", "files differ"},
		{"release of unknown volumes", breaks{release: func(id string) error {
			return sdk.NotFound(id, "no such volume")
		}}, "release", "no such volume"},
		{"version of each call", breaks{response: func(p *provider, _ *sdk.Request, r *sdk.Response) (*sdk.Response, error) {
			p.mu.Lock()
			defer p.mu.Unlock()
			r.Objects[0].Version = fmt.Sprint("call ", p.calls)
			return r, nil
		}}, "stable versions", "versions differ though nothing has changed"},
		{"version of each start", breaks{response: func(p *provider, _ *sdk.Request, r *sdk.Response) (*sdk.Response, error) {
			r.Objects[0].Version = fmt.Sprint("start ", p.starts)
			return r, nil
		}}, "stable versions", "versions differ after a restart"},
		{
			"version that never changes", replace(func(r *sdk.Response) { r.Objects[0].Version = "1" }),
			"changed versions", "the versions are the same, though contents have changed",
		},
		{"content in errors", breaks{failure: func(p *provider, _ *sdk.Request, err error) error {
			if e, ok := errors.AsType[*sdk.Error](err); ok && e.Reason == sdk.ReasonObjectNotFound {
				value, _ := p.store.get(context.Background(), "shop/db")
				e.Message = "create it, there is only " + value
			}
			return err
		}}, "no leaks", "the content of db is in an error of Fetch"},
		{"content in logs", breaks{response: func(p *provider, _ *sdk.Request, r *sdk.Response) (*sdk.Response, error) {
			p.logger.Debug("got", "content", string(r.Files[len(r.Files)-1].Contents.Reveal()))
			return r, nil
		}}, "no leaks", "the content of key is in the logs"},
		{"token in logs", breaks{request: func(p *provider, r *sdk.Request) {
			for _, token := range r.Tokens {
				p.logger.Info("login", "token", token.Token.Reveal())
			}
		}}, "no leaks", "the token for memory.example.com is in the logs"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := failures(t, harness(tt.breaks))
			if err := got[tt.check]; err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("check %q gives %v, want %q in it; all failures: %v", tt.check, err, tt.want, got)
			}
		})
	}
}

// A provider that goes on when its caller has left is noticed.
func TestRun_NoticesDeafProvider(t *testing.T) {
	t.Parallel()
	s, err := newSuite(t.Context(), harness(breaks{deaf: true}))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.close() }() // it has not ended
	s.patience = time.Second
	err = cancellation(t.Context(), s)
	if err == nil || !strings.Contains(err.Error(), "a fetch goes on though its caller has left") {
		t.Errorf("cancellation() = %v", err)
	}
}

// The suite's own test of what it looks for.
func TestLeaked(t *testing.T) {
	t.Parallel()
	const canary = "two\n\"lines\""
	for text, want := range map[string]bool{
		"x two\n\"lines\" y":     true,
		`{"v":"two\n\"lines\""}`: true,
		"dHdvCiJsaW5lcyI=":       true,
		"74776f0a226c696e657322": true,
		"two lines":              false,
		"":                       false,
	} {
		if got := leaked(text, canary); got != want {
			t.Errorf("leaked(%q) = %t", text, got)
		}
	}
}

func TestNewSuite_IncompleteHarness(t *testing.T) {
	t.Parallel()
	for name, mutate := range map[string]func(*Harness){
		"harness has no Definition":    func(h *Harness) { h.Definition = nil },
		"harness has no Valid request": func(h *Harness) { h.Valid.Request = nil },
		"harness has no Mutate":        func(h *Harness) { h.Mutate = nil },
	} {
		h := harness(breaks{})
		mutate(&h)
		if _, err := newSuite(t.Context(), h); err == nil || err.Error() != name {
			t.Errorf("newSuite() = %v, want %s", err, name)
		}
	}
}
