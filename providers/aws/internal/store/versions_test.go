package store

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestSecretVersions(t *testing.T) {
	t.Parallel()
	rotated := &memorySecret{account: account, name: "rotated", versions: []memoryVersion{
		{id: "v1", stages: []string{"AWSPREVIOUS"}}, {id: "v2", stages: []string{"AWSCURRENT", "green"}}, {id: "v3", stages: []string{"AWSPENDING"}},
	}}
	deleted, denied := current("deleted"), current("denied")
	deleted.deleted, denied.fails = true, "AccessDeniedException"
	all := []*memorySecret{rotated, current("a"), deleted, denied}
	for name, tt := range map[string]struct {
		refs  []Ref
		want  []string // nil: cannot tell
		calls string
	}{
		"none":             {nil, []string{}, ""},
		"current":          {[]Ref{secretRef("a"), secretRef("rotated")}, []string{versionOf("a"), "v2"}, "DescribeSecret:2"},
		"stages of one":    {[]Ref{secretRef("rotated"), secretRef("rotated").label("green"), secretRef("rotated").label("AWSPREVIOUS")}, []string{"v2", "v2", "v1"}, "DescribeSecret:1"},
		"one twice":        {[]Ref{secretRef("a"), secretRef("a").label("AWSCURRENT")}, []string{versionOf("a"), versionOf("a")}, "DescribeSecret:1"},
		"pinned":           {[]Ref{secretRef("a").version("v7"), secretRef("none").version("v8")}, []string{"v7", "v8"}, ""},
		"pinned in stage":  {[]Ref{secretRef("rotated").version("v2").label("green")}, []string{"v2"}, "DescribeSecret:1"},
		"not in its stage": {[]Ref{secretRef("rotated").version("v1").label("green")}, nil, "DescribeSecret:1"},
		"no such stage":    {[]Ref{secretRef("rotated").label("blue")}, []string{""}, "DescribeSecret:1"},
		"deleted":          {[]Ref{secretRef("deleted")}, []string{""}, "DescribeSecret:1"},
		"denied":           {[]Ref{secretRef("denied")}, nil, "DescribeSecret:1"},
		"not there":        {[]Ref{secretRef("none"), secretRef("none").label("green")}, []string{"", ""}, "DescribeSecret:1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := &memoryAWS{secrets: all}
			got, ok, err := m.store().Versions(t.Context(), as("web"), tt.refs)
			if err != nil || ok != (tt.want != nil) || !slices.Equal(got, tt.want) {
				t.Errorf("versions are %q, %t, %v; want %q", got, ok, err, tt.want)
			}
			if calls := m.operations(); calls != tt.calls {
				t.Errorf("requests are %q, want %q", calls, tt.calls)
			}
		})
	}
}

// TestVersionsAreThoseOfRead: a refresh compares them.
func TestVersionsAreThoseOfRead(t *testing.T) {
	t.Parallel()
	p := parameter("/p", "one", "two")
	p.labels = map[string]int{"old": 1}
	m := &memoryAWS{secrets: []*memorySecret{current("a"), current("b")}, parameters: []*memoryParameter{p}}
	refs := []Ref{
		secretRef("a"), secretRef("b").version(versionOf("b")), parameterRef("/p"), parameterRef("/p").label("old"),
		parameterRef("/p").version("1"), parameterRef(p.arn()).version("2"),
	}
	s := m.store()
	versions, ok, err := s.Versions(t.Context(), as("web"), refs)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	for i, a := range read(t, s, as("web"), refs...) {
		if a.Err != nil || a.Version != versions[i] {
			t.Errorf("%v: read %q, %v; asked %q", a.Ref, a.Version, a.Err, versions[i])
		}
	}
}

// TestDescribeDenied: a denial is remembered for this secret of this identity.
func TestDescribeDenied(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := current("b")
		b.fails, b.says = "AccessDeniedException", "not authorized to perform: secretsmanager:DescribeSecret"
		m := &memoryAWS{secrets: []*memorySecret{current("a"), b}}
		s := m.store()
		for _, step := range []struct {
			region Region
			ids    []string
			wait   time.Duration
			want   string
			ok     bool
		}{
			{as("web"), []string{"b"}, 0, "DescribeSecret:1", false},
			{as("web"), []string{"a", "b"}, 9 * time.Minute, "", false},
			{as("web"), []string{"a"}, 0, "DescribeSecret:1", true},
			{as("db"), []string{"b"}, 0, "DescribeSecret:1", false},
			{as("web"), []string{"b"}, time.Minute, "DescribeSecret:1", false},
		} {
			pass(step.wait)
			var refs []Ref
			for _, id := range step.ids {
				refs = append(refs, secretRef(id))
			}
			_, ok, err := s.Versions(t.Context(), step.region, refs)
			if got := m.operations(); err != nil || ok != step.ok || got != step.want {
				t.Errorf("%s asks for %q after %s: %t, %v, requests are %q, want %q", step.region.Identity, step.ids, step.wait, ok, err, got, step.want)
			}
		}
	})
}

// TestVersionsGivesUpEarly: the first that cannot be told ends the rest.
func TestVersionsGivesUpEarly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &memoryAWS{}
		m.script = func(r request) *reply {
			if r.body.SecretID == "s0" {
				return failure("AccessDeniedException", "no")
			}
			return nil
		}
		m.hold = func(ctx context.Context, r request) {
			if r.body.SecretID == "s0" {
				pass(time.Second) // until all that may be under way are
			} else {
				<-ctx.Done()
			}
		}
		var refs []Ref
		for i := range 30 {
			refs = append(refs, secretRef(fmt.Sprintf("s%d", i)))
		}
		_, ok, err := m.store().Versions(t.Context(), as("web"), refs)
		if got := m.operations(); ok || err != nil || got != fmt.Sprintf("DescribeSecret:%d", defaultConcurrency) {
			t.Errorf("%t, %v, requests are %q", ok, err, got)
		}
	})
}

// TestRefusalsAreBounded: the oldest goes.
func TestRefusalsAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRefusals()
		name := func(i int) refusal { return refusal{identity: fmt.Sprint(i)} }
		for i := range maxRefusals + 1 {
			if !r.add(name(i)) || r.add(name(i)) {
				t.Fatalf("refusal %d is news, once", i)
			}
			pass(time.Microsecond)
		}
		if len(r.since) != maxRefusals || r.has(name(0)) || !r.has(name(1)) {
			t.Errorf("%d refusals, the first %t, the second %t", len(r.since), r.has(name(0)), r.has(name(1)))
		}
		pass(refusalFor)
		if r.add(name(0)); len(r.since) != 1 {
			t.Errorf("%d refusals, want the new one only", len(r.since))
		}
	})
}
