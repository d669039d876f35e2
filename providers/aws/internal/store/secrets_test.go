package store

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-dev/postern/providers/aws/internal/params"
)

// read reads, and fails the test if that cannot be done at all.
func read(t *testing.T, s *Store, region Region, refs ...Ref) []Answer {
	t.Helper()
	answers, err := s.Read(t.Context(), region, refs)
	if err != nil {
		t.Fatal(err)
	}
	if len(answers) != len(refs) {
		t.Fatalf("%d answers to %d refs", len(answers), len(refs))
	}
	for i, a := range answers {
		if a.Ref != refs[i] {
			t.Errorf("answer %d is that of %v, want %v", i, a.Ref, refs[i])
		}
	}
	return answers
}

// withoutTime is a version without the time that a parameter's has, which AWS
// chooses.
func withoutTime(version string) string {
	number, _, _ := strings.Cut(version, "@")
	return number
}

// text is an answer in one line.
func text(a Answer) string {
	if e, ok := errors.AsType[*Error](a.Err); ok {
		return fmt.Sprintf("%s %s %s %q", e.Kind, e.Operation, e.Code, e.Object)
	}
	return fmt.Sprintf("%s %s", strings.TrimLeft(withoutTime(a.Version), "0"), a.Contents.Reveal())
}

// pass lets time pass, in a bubble.
func pass(d time.Duration) { <-time.After(d) }

func texts(answers []Answer) []string {
	var all []string
	for _, a := range answers {
		all = append(all, text(a))
	}
	return all
}

func wantTexts(t *testing.T, answers []Answer, want ...string) {
	t.Helper()
	if got := texts(answers); !slices.Equal(got, want) {
		t.Errorf("answers:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestReadSecretsTakesFewRequests(t *testing.T) {
	t.Parallel()
	many := func(n int) []Ref {
		refs := make([]Ref, n)
		for i := range refs {
			refs[i] = secretRef(fmt.Sprintf("s%d", i))
		}
		return refs
	}
	arns := func(n int) []Ref {
		refs := many(n)
		for i := range refs {
			refs[i].ID = current(refs[i].ID).arn()
		}
		return refs
	}
	for name, tt := range map[string]struct {
		refs []Ref
		want string
	}{
		"none":                   {nil, ""},
		"1":                      {many(1), "GetSecretValue:1"},
		"2":                      {many(2), "BatchGetSecretValue:1"},
		"5":                      {many(5), "BatchGetSecretValue:1"},
		"20":                     {many(20), "BatchGetSecretValue:1"},
		"21":                     {many(21), "BatchGetSecretValue:1 GetSecretValue:1"},
		"22":                     {many(22), "BatchGetSecretValue:2"},
		"45":                     {many(45), "BatchGetSecretValue:3"},
		"all twice":              {append(many(5), many(5)...), "BatchGetSecretValue:1"},
		"one twice":              {[]Ref{secretRef("s0"), secretRef("s0")}, "GetSecretValue:1"},
		"AWSCURRENT":             {[]Ref{secretRef("s0"), secretRef("s0").label("AWSCURRENT")}, "GetSecretValue:2"},
		"AWSCURRENT in batch":    {[]Ref{secretRef("s0").label("AWSCURRENT"), secretRef("s1")}, "BatchGetSecretValue:1"},
		"with a stage":           {append(many(3), secretRef("s0").label("AWSPREVIOUS")), "BatchGetSecretValue:1 GetSecretValue:1"},
		"with a version":         {append(many(3), secretRef("s0").version(versionOf("s0"))), "BatchGetSecretValue:1 GetSecretValue:1"},
		"stages only":            {[]Ref{secretRef("s0").label("AWSPREVIOUS"), secretRef("s1").label("AWSPREVIOUS")}, "GetSecretValue:2"},
		"version and AWSCURRENT": {[]Ref{secretRef("s0").version(versionOf("s0")).label("AWSCURRENT"), secretRef("s1")}, "GetSecretValue:2"},
		"ARNs":                   {arns(5), "BatchGetSecretValue:1"},
		"names and ARNs":         {append(many(3), arns(3)...), "BatchGetSecretValue:2"},
		"with parameters":        {append(many(3), parameterRef("p"), parameterRef("q")), "BatchGetSecretValue:1 GetParameters:1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := &memoryAWS{parameters: []*memoryParameter{parameter("p", "vp"), parameter("q", "vq")}}
			for _, ref := range many(45) {
				s := current(ref.ID)
				s.versions = append(s.versions, memoryVersion{id: "old" + ref.ID, stages: []string{"AWSPREVIOUS"}, contents: "old " + ref.ID})
				m.secrets = append(m.secrets, s)
			}
			for i, a := range read(t, m.store(), as("web"), tt.refs...) {
				name := strings.TrimSuffix(tt.refs[i].ID[strings.LastIndex(tt.refs[i].ID, ":")+1:], "-AbCdEf")
				want := name + " " + contentsOf + " " + name
				switch {
				case tt.refs[i].Service == params.ParameterStore:
					want = "1 v" + name
				case tt.refs[i].Label == "AWSPREVIOUS":
					want = "old" + name + " old " + name
				}
				if text(a) != want || a.Name != name {
					t.Errorf("%v: %s, name %s", tt.refs[i], text(a), a.Name)
				}
			}
			if got := m.operations(); got != tt.want {
				t.Errorf("requests are %q, want %q", got, tt.want)
			}
		})
	}
}

func TestReadRequestsOfOneSecret(t *testing.T) {
	t.Parallel()
	m := &memoryAWS{secrets: []*memorySecret{current("a")}}
	for _, tt := range []struct {
		ref  Ref
		want body
	}{
		{secretRef("a"), body{SecretID: "a"}},
		{secretRef("a").version("v"), body{SecretID: "a", VersionID: "v"}},
		{secretRef("a").label("L"), body{SecretID: "a", VersionStage: "L"}},
		{secretRef("a").version("v").label("AWSCURRENT"), body{SecretID: "a", VersionID: "v", VersionStage: "AWSCURRENT"}},
	} {
		m.requests = nil
		read(t, m.store(), as("web"), tt.ref)
		if got := m.requests[0].body; fmt.Sprint(got) != fmt.Sprint(tt.want) {
			t.Errorf("%v: request %+v, want %+v", tt.ref, got, tt.want)
		}
	}
}

func TestSecretContents(t *testing.T) {
	t.Parallel()
	binary := current("binary")
	binary.versions[0].binary = []byte{0, 0xff, 10}
	deleted := current("deleted")
	deleted.deleted = true
	unused := &memorySecret{account: account, name: "unused"}
	m := &memoryAWS{secrets: []*memorySecret{current("a"), binary, deleted, unused}}
	refs := []Ref{secretRef("binary"), secretRef("deleted"), secretRef("unused"), secretRef("none")}
	want := []string{
		"binary \x00\xff\n", `not found GetSecretValue InvalidRequestException "deleted"`,
		`not found GetSecretValue ResourceNotFoundException "unused"`, `not found GetSecretValue ResourceNotFoundException "none"`,
	}
	s := m.store()
	wantTexts(t, read(t, s, as("web"), refs...), want...)
	for i, ref := range refs {
		wantTexts(t, read(t, s, as("web"), ref), want[i])
	}
	m.script = func(r request) *reply {
		if r.operation != "GetSecretValue" {
			return nil
		}
		return &reply{status: 200, answer: map[string]string{"Name": "a", "VersionId": versionOf("a")}}
	}
	wantTexts(t, read(t, s, as("web"), secretRef("a")), `unavailable GetSecretValue  "a"`)
}
