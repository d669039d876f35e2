package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"cloud.google.com/go/parametermanager/apiv1/parametermanagerpb"
	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"

	"github.com/postern-dev/postern/providers/gcp/internal/params"
)

// some is a Google with one of each.
func some() *memoryGoogle {
	global := secretOf("web", 3)
	global.aliases = map[string]int{"prod": 2}
	off := secretOf("off", 3)
	off.versions[1].state = secretmanagerpb.SecretVersion_DISABLED
	off.versions[2].state = secretmanagerpb.SecretVersion_DESTROYED
	return &memoryGoogle{
		secrets: []*memorySecret{
			global, off, secretOf("void", 0), secretIn("europe-west3", "web", 2), secretIn("us-east1", "web", 1),
			{name: "empty", versions: []memoryVersion{{}}},
		},
		parameters: []*memoryParameter{
			{name: "conf", version: "v1", template: "__REF__", rendered: contentsOf + "conf"},
			{name: "conf", version: "off", template: "a", rendered: "a", disabled: true},
			{name: "void", version: "v1"},
			{location: "us-east1", name: "conf", version: "v1", template: "a", rendered: contentsOf + "us"},
		},
	}
}

const (
	globalSecrets    = "secretmanager.googleapis.com"
	globalParameters = "parametermanager.googleapis.com"
)

func TestRead(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		ref                                Ref
		host, resource, version, want, err string
	}{
		"latest":             {refTo("web", "latest"), globalSecrets, "projects/42/secrets/web/versions/3", "3", contentsOf + "web3", ""},
		"number":             {refTo("web", "1"), globalSecrets, "projects/42/secrets/web/versions/1", "1", contentsOf + "web1", ""},
		"alias":              {refTo("web", "prod"), globalSecrets, "projects/42/secrets/web/versions/2", "2", contentsOf + "web2", ""},
		"empty":              {refTo("empty", "1"), globalSecrets, "projects/42/secrets/empty/versions/1", "1", "", ""},
		"regional":           {refIn("europe-west3", "web", "latest"), "secretmanager.europe-west3.rep.googleapis.com", "projects/42/locations/europe-west3/secrets/web/versions/2", "2", contentsOf + "europe-west3web2", ""},
		"other region":       {refIn("us-east1", "web", "1"), "secretmanager.us-east1.rep.googleapis.com", "projects/42/locations/us-east1/secrets/web/versions/1", "1", contentsOf + "us-east1web1", ""},
		"parameter":          {refToParameter("", "conf", "v1"), globalParameters, "projects/42/locations/global/parameters/conf/versions/v1", "v1", contentsOf + "conf", ""},
		"empty parameter":    {refToParameter("", "void", "v1"), globalParameters, "projects/42/locations/global/parameters/void/versions/v1", "v1", "", ""},
		"regional parameter": {refToParameter("us-east1", "conf", "v1"), "parametermanager.us-east1.rep.googleapis.com", "projects/42/locations/us-east1/parameters/conf/versions/v1", "v1", contentsOf + "us", ""},
		"disabled":           {ref: refTo("off", "2"), host: globalSecrets, err: "disabled"},
		"destroyed":          {ref: refTo("off", "latest"), host: globalSecrets, err: "disabled"},
		"disabled parameter": {ref: refToParameter("", "conf", "off"), host: globalParameters, err: "disabled"},
		"no secret":          {ref: refTo("nosuch", "1"), host: globalSecrets, err: "not found"},
		"no version":         {ref: refTo("web", "9"), host: globalSecrets, err: "not found"},
		"no version yet":     {ref: refTo("void", "latest"), host: globalSecrets, err: "not found"},
		"no alias":           {ref: refTo("web", "nosuch"), host: globalSecrets, err: "not found"},
		"elsewhere":          {ref: refIn("us-east1", "off", "1"), host: "secretmanager.us-east1.rep.googleapis.com", err: "not found"},
		"no parameter":       {ref: refToParameter("", "conf", "v2"), host: globalParameters, err: "not found"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, some(), Config{})
			answer := w.read(t, as("web"), tt.ref)[0]
			if tt.err != "" {
				permission := map[params.Kind]string{params.Secret: accessVersion, params.Parameter: renderParameter}[tt.ref.Kind]
				e := asError(t, answer.Err)
				if e.Kind.String() != tt.err || e.Resource != tt.ref.Resource || e.Endpoint != tt.host || e.Operation != permission || e.RetryAfter != 0 {
					t.Errorf("error is %#v", e)
				}
			} else if answer.Err != nil || numberOf(answer) != tt.version || answer.Resource != tt.resource || string(answer.Contents.Reveal()) != tt.want {
				t.Errorf("answer is %+v with %q", answer, answer.Contents.Reveal())
			}
			want := []arrival{{tt.host, "access", tt.ref.Resource, "web", "name=" + strings.ReplaceAll(tt.ref.Resource, "/", "%2F")}}
			if tt.ref.Kind == params.Parameter {
				want[0].method = "render"
			}
			if !slices.Equal(w.arrivals(), want) {
				t.Errorf("requests are %+v, want %+v", w.arrivals(), want)
			}
		})
	}
}

// TestReadTogether: each distinct ref is read once, with what belongs to it, and one
// that fails takes nothing from the others.
func TestReadTogether(t *testing.T) {
	t.Parallel()
	w := newWorld(t, some(), Config{})
	refs := []Ref{
		refTo("web", "latest"), refToParameter("", "conf", "v1"), refTo("nosuch", "1"), refTo("web", "latest"),
		refTo("web", "3"), refIn("us-east1", "web", "1"), refTo("nosuch", "1"), refToParameter("us-east1", "conf", "v1"),
	}
	want := []string{"web3", "conf", "", "web3", "web3", "us-east1web1", "", "us"}
	for i, answer := range w.read(t, as("web"), refs...) {
		if answer.Ref != refs[i] {
			t.Errorf("answer %d is to %v", i, answer.Ref)
		}
		if want[i] == "" {
			if e := asError(t, answer.Err); e.Kind != NotFound {
				t.Errorf("answer %d is %v", i, e)
			}
		} else if got := string(answer.Contents.Reveal()); answer.Err != nil || got != contentsOf+want[i] {
			t.Errorf("answer %d is %q, %v", i, got, answer.Err)
		}
	}
	if got, want := w.operations(), "access=4 render=2"; got != want {
		t.Errorf("requests are %s, want %s", got, want)
	}
	if answers := w.read(t, as("web")); len(answers) != 0 {
		t.Errorf("answers to nothing are %v", answers)
	}
}

// TestIdentities: each request bears the token of whom it is made as, though all share
// the connection.
func TestIdentities(t *testing.T) {
	t.Parallel()
	w := newWorld(t, some(), Config{})
	var running sync.WaitGroup
	for i := range 8 {
		running.Go(func() {
			answers, err := w.store.Read(t.Context(), as(fmt.Sprint("id", i)), []Ref{refTo("web", fmt.Sprint(i%3+1))})
			if err != nil || answers[0].Err != nil {
				t.Error(err, answers)
			}
		})
	}
	running.Wait()
	var got []string
	for _, r := range w.arrivals() {
		got = append(got, r.identity)
		if want := fmt.Sprintf("versions/%d", int(r.identity[len(r.identity)-1]-'0')%3+1); !strings.HasSuffix(r.resource, want) {
			t.Errorf("%s asked for %s", r.identity, r.resource)
		}
	}
	slices.Sort(got)
	if want := "[id0 id1 id2 id3 id4 id5 id6 id7]"; fmt.Sprint(got) != want {
		t.Errorf("tokens are of %v, want %s", got, want)
	}
	if n := w.connections(globalSecrets); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// TestChecked: what is not as it was sent, or not what was asked for, is given to
// nobody.
func TestChecked(t *testing.T) {
	t.Parallel()
	secret := func(change func(*secretmanagerpb.AccessSecretVersionResponse)) func(any) {
		return func(answer any) { change(answer.(*secretmanagerpb.AccessSecretVersionResponse)) }
	}
	parameter := func(change func(*parametermanagerpb.RenderParameterVersionResponse)) func(any) {
		return func(answer any) { change(answer.(*parametermanagerpb.RenderParameterVersionResponse)) }
	}
	named := func(name string) func(any) {
		return func(answer any) {
			switch answer := answer.(type) {
			case *secretmanagerpb.AccessSecretVersionResponse:
				answer.Name = name
			case *parametermanagerpb.RenderParameterVersionResponse:
				answer.ParameterVersion = name
			}
		}
	}
	sum := int64(7)
	for name, tt := range map[string]struct {
		ref    Ref
		change func(answer any)
		fine   bool
	}{
		"no checksum":          {refTo("web", "1"), secret(func(a *secretmanagerpb.AccessSecretVersionResponse) { a.Payload.DataCrc32C = nil }), false},
		"none of nothing":      {refTo("empty", "1"), secret(func(a *secretmanagerpb.AccessSecretVersionResponse) { a.Payload.DataCrc32C = nil }), false},
		"another checksum":     {refTo("web", "1"), secret(func(a *secretmanagerpb.AccessSecretVersionResponse) { a.Payload.DataCrc32C = &sum }), false},
		"other contents":       {refTo("web", "1"), secret(func(a *secretmanagerpb.AccessSecretVersionResponse) { a.Payload.Data[3] ^= 1 }), false},
		"no contents":          {refTo("web", "1"), secret(func(a *secretmanagerpb.AccessSecretVersionResponse) { a.Payload.Data = nil }), false},
		"no payload":           {refTo("web", "1"), secret(func(a *secretmanagerpb.AccessSecretVersionResponse) { a.Payload = nil }), false},
		"not rendered":         {refToParameter("", "conf", "v1"), parameter(func(a *parametermanagerpb.RenderParameterVersionResponse) { a.RenderedPayload = nil }), false},
		"no name":              {refTo("web", "1"), named(""), false},
		"another number":       {refTo("web", "1"), named("projects/42/secrets/web/versions/2"), false},
		"another secret":       {refTo("web", "1"), named("projects/42/secrets/db/versions/1"), false},
		"another project":      {refTo("web", "1"), named("projects/q/secrets/web/versions/1"), false},
		"the project's id":     {refTo("web", "1"), named("projects/p/secrets/web/versions/1"), true},
		"another location":     {refIn("us-east1", "web", "1"), named("projects/42/locations/us-east2/secrets/web/versions/1"), false},
		"no location":          {refIn("us-east1", "web", "1"), named("projects/42/secrets/web/versions/1"), false},
		"a longer name":        {refTo("web", "1"), named("projects/42/secrets/web/versions/1/of/1"), false},
		"not resolved":         {refTo("web", "latest"), named("projects/42/secrets/web/versions/latest"), false},
		"no version":           {refTo("web", "latest"), named("projects/42/secrets/web/versions/"), false},
		"an alias' number":     {refTo("web", "prod"), named("projects/42/secrets/web/versions/17"), true},
		"another parameter":    {refToParameter("", "conf", "v1"), named("projects/42/locations/global/parameters/c/versions/v1"), false},
		"a parameter's other":  {refToParameter("", "conf", "v1"), named("projects/42/locations/global/parameters/conf/versions/1"), false},
		"not even a parameter": {refToParameter("", "conf", "v1"), named("projects/42/secrets/conf/versions/v1"), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, some(), Config{})
			w.change = func(_ arrival, answer any) { tt.change(answer) }
			if tt.fine {
				if answer := w.read(t, as("web"), tt.ref)[0]; answer.Err != nil {
					t.Error(answer.Err)
				}
				return
			}
			if e := w.refused(t, as("web"), tt.ref); e.Kind != Corrupted {
				t.Errorf("error is %v", e)
			}
			if len(w.arrivals()) != 2 {
				t.Errorf("%d requests, want two", len(w.arrivals()))
			}
		})
	}
}

// TestProjectNumber: where both sides say the project by its number, it is compared.
func TestProjectNumber(t *testing.T) {
	t.Parallel()
	ref := Ref{Kind: params.Secret, Resource: "projects/42/secrets/web/versions/latest"}
	for name, want := range map[string]bool{
		"projects/42/secrets/web/versions/1": true,
		"projects/43/secrets/web/versions/1": false,
		"projects/p/secrets/web/versions/1":  true,
	} {
		if _, ok := ref.versionIn(name); ok != want {
			t.Errorf("%s: %t", name, ok)
		}
	}
}

// TestCorruptedOnce: a second answer that is right is taken.
func TestCorruptedOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, some(), Config{})
	again := false
	w.change = func(_ arrival, answer any) {
		if !again {
			answer.(*secretmanagerpb.AccessSecretVersionResponse).Payload.Data[0] ^= 1
			again = true
		}
	}
	answer := w.read(t, as("web"), refTo("web", "1"))[0]
	if answer.Err != nil || string(answer.Contents.Reveal()) != contentsOf+"web1" {
		t.Errorf("answer is %v, %v", answer, answer.Err)
	}
}

// TestConcurrency: so many at a time, and no more.
func TestConcurrency(t *testing.T) {
	t.Parallel()
	m := &memoryGoogle{secrets: []*memorySecret{secretOf("web", 9)}}
	const most = 3
	reached := make(chan struct{})
	var once sync.Once
	m.script = func(ctx context.Context, _ arrival) error {
		m.mu.Lock()
		if m.running == most {
			once.Do(func() { close(reached) })
		}
		m.mu.Unlock()
		select {
		case <-reached:
		case <-ctx.Done():
		}
		return nil
	}
	w := newWorld(t, m, Config{Concurrency: most})
	var refs []Ref
	for i := range 9 {
		refs = append(refs, refTo("web", fmt.Sprint(i+1)))
	}
	for i, answer := range w.read(t, as("web"), refs...) {
		if answer.Err != nil || numberOf(answer) != fmt.Sprint(i+1) {
			t.Errorf("answer %d is %v, %v", i, answer, answer.Err)
		}
	}
	if w.mostRunning != most {
		t.Errorf("%d requests at a time, want %d", w.mostRunning, most)
	}
}

// TestCancelled: nothing of a call goes on when it has ended.
func TestCancelled(t *testing.T) {
	t.Parallel()
	for name, call := range map[string]func(context.Context, *Store) error{
		"read": func(ctx context.Context, s *Store) error {
			answers, err := s.Read(ctx, as("web"), []Ref{refTo("web", "1"), refTo("web", "2")})
			if answers != nil {
				t.Errorf("answers are %v", answers)
			}
			return err
		},
		"versions": func(ctx context.Context, s *Store) error {
			_, ok, err := s.Versions(ctx, as("web"), []Ref{refTo("web", "1"), refTo("web", "2")})
			if ok {
				t.Error("told after the end")
			}
			return err
		},
		"list": func(ctx context.Context, s *Store) error {
			_, err := s.List(ctx, as("web"), &params.Select{Project: "p", NamePrefix: "web", Limit: 5})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := some()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			m.script = func(ctx context.Context, _ arrival) error {
				cancel()
				<-ctx.Done()
				return ctx.Err()
			}
			w := newWorld(t, m, Config{Concurrency: 1})
			if err := call(ctx, w.store); !errors.Is(err, context.Canceled) {
				t.Errorf("error is %v", err)
			}
			if len(w.arrivals()) != 1 {
				t.Errorf("%d requests", len(w.arrivals()))
			}
		})
	}
}

// numberOf is what a version is of: the rest stands for the contents.
func numberOf(answer Answer) string {
	number, digest, _ := strings.Cut(answer.Version, "@")
	if digest == "" || strings.Contains(digest, "canary") {
		return "a version that is not of its contents: " + answer.Version
	}
	return number
}
