package keyvault

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-dev/postern/providers/azure/internal/params"
)

// aged is an object with versions that were made on days, in the order given. Those
// below zero are disabled.
func aged(kind params.ObjectType, name string, days ...int) *object {
	o := &object{kind: kind, name: name}
	for _, n := range days {
		o.versions = append(o.versions, version{id: fmt.Sprintf("v%d", max(n, -n)), created: day(max(n, -n)), disabled: n < 0})
	}
	return o
}

func versionsOf(answer Answer) (ids []string) {
	for _, o := range answer.Objects {
		ids = append(ids, o.Version)
	}
	return ids
}

func TestHistory(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		days      []int
		version   string
		history   int
		inclusive bool
		want      []string
		kind      Kind
		requests  string // of secrets: pages and reads
	}{
		"newest first":          {days: []int{3, 1, 4, 2}, history: 3, want: []string{"v4", "v3", "v2"}, requests: "get=3 versions=2"},
		"fewer than asked for":  {days: []int{3, 1}, history: 9, want: []string{"v3", "v1"}, requests: "get=2 versions=1"},
		"just so many":          {days: []int{3, 1}, history: 2, want: []string{"v3", "v1"}, requests: "get=2 versions=1"},
		"many pages":            {days: []int{5, 2, 6, 1, 4, 3, 7}, history: 7, want: []string{"v7", "v6", "v5", "v4", "v3", "v2", "v1"}, requests: "get=7 versions=4"},
		"disabled ones":         {days: []int{1, -2, 3, -4}, history: 2, want: []string{"v3", "v1"}, requests: "get=2 versions=2"},
		"from a version":        {days: []int{1, 2, 3, 4}, version: "v3", history: 2, want: []string{"v3", "v2"}, requests: "get=2 versions=2"},
		"from a version, V":     {days: []int{1, 2, 3, 4}, version: "V3", history: 2, want: []string{"v3", "v2"}, requests: "get=2 versions=2"},
		"from the oldest":       {days: []int{1, 2, 3, 4}, version: "v1", history: 2, want: []string{"v1"}, requests: "get=1 versions=2"},
		"inclusive":             {days: []int{1, 2, 3, 4}, history: 2, inclusive: true, want: []string{"v4", "v3", "v2"}, requests: "get=3 versions=2"},
		"inclusive, no more":    {days: []int{1, 2}, history: 2, inclusive: true, want: []string{"v2", "v1"}, requests: "get=2 versions=1"},
		"inclusive and pinned":  {days: []int{1, 2, 3, 4}, version: "v3", history: 2, inclusive: true, want: []string{"v3", "v2", "v1"}, requests: "get=3 versions=2"},
		"none such":             {days: []int{1, 2}, version: "v9", history: 2, kind: NotFound, requests: "versions=1"},
		"from a disabled one":   {days: []int{1, -2}, version: "v2", history: 2, kind: Disabled, requests: "versions=1"},
		"all disabled":          {days: []int{-1, -2}, history: 2, kind: Disabled, requests: "versions=1"},
		"no versions":           {history: 2, kind: NotFound, requests: "versions=1"},
		"one is no history":     {days: []int{1, 2}, history: 1, want: []string{"v2"}, requests: "get=1"},
		"one with inclusive":    {days: []int{1, 2}, history: 1, inclusive: true, want: []string{"v2"}, requests: "get=1"},
		"pinned and no history": {days: []int{1, 2}, version: "v1", want: []string{"v1"}, requests: "get=1"},
	} {
		for _, kind := range []params.ObjectType{params.Secret, params.Key, params.Certificate} {
			t.Run(fmt.Sprint(name, " ", kind), func(t *testing.T) {
				t.Parallel()
				m := &memoryVault{objects: []*object{aged(kind, "a", tt.days...)}, pageSize: 2}
				s := m.store(func(c *Config) { c.InclusiveHistory = tt.inclusive })
				answers, err := s.Read(t.Context(), as("web"), []Ref{{Type: kind, Name: "a", Version: tt.version, History: tt.history}})
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(tt.want, versionsOf(answers[0])); diff != "" {
					t.Error(diff)
				}
				if tt.kind != 0 {
					if e := asError(t, answers[0].Err); e.Kind != tt.kind || e.Operation != collection(kind)+"/list" || e.Object != "a" {
						t.Errorf("%s: %v", e.Kind, e)
					}
				} else if answers[0].Err != nil {
					t.Error(answers[0].Err)
				}
				of := collection(kind) + "/"
				if got, want := m.operations(), of+"challenge=1 "+of+strings.ReplaceAll(tt.requests, " ", " "+of); got != want {
					t.Errorf("%s, want %s", got, want)
				}
			})
		}
	}
}

// TestVersionsOfOneSecond has versions that the vault's times do not tell apart: they
// come in the same order, however the vault lists them.
func TestVersionsOfOneSecond(t *testing.T) {
	t.Parallel()
	versions := []version{{id: "b", created: day(1)}, {id: "c", created: day(1)}, {id: "a", created: day(1)}, {id: "d", created: day(2)}}
	for range 4 {
		versions = append(versions[1:], versions[0])
		m := &memoryVault{objects: []*object{{kind: params.Secret, name: "a", versions: versions}}}
		answers, err := m.store().Read(t.Context(), as("web"), []Ref{{Type: params.Secret, Name: "a", History: 4}})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"d", "a", "b", "c"}, versionsOf(answers[0])); diff != "" {
			t.Error(diff)
		}
	}
}

// TestHistoriesShare has several refs of one object: its versions are listed once, and
// each is read once.
func TestHistoriesShare(t *testing.T) {
	t.Parallel()
	m := &memoryVault{objects: []*object{aged(params.Secret, "a", 1, 2, 3, 4)}}
	answers, err := m.store().Read(t.Context(), as("web"), []Ref{
		{Type: params.Secret, Name: "a", History: 2},
		{Type: params.Secret, Name: "a", History: 3},
		{Type: params.Secret, Name: "a", Version: "v3"},
		{Type: params.Secret, Name: "a", Version: "v3", History: 2},
	})
	if err != nil {
		t.Fatal(err)
	}
	var got [][]string
	for _, answer := range answers {
		got = append(got, versionsOf(answer))
	}
	if diff := cmp.Diff([][]string{{"v4", "v3"}, {"v4", "v3", "v2"}, {"v3"}, {"v3", "v2"}}, got); diff != "" {
		t.Error(diff)
	}
	if got, want := m.operations(), "secrets/challenge=1 secrets/get=3 secrets/versions=1"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestVersionGoneSinceTheList has a version deleted, or disabled, after it was
// listed: the object is not missing for that.
func TestVersionGoneSinceTheList(t *testing.T) {
	t.Parallel()
	for _, answer := range []*reply{failure(404, "SecretNotFound", ""), failure(403, "Forbidden", "SecretDisabled")} {
		m := &memoryVault{objects: []*object{aged(params.Secret, "a", 1, 2)}, script: func(r request) *reply {
			if r.version == "v1" && r.token != "" {
				return answer
			}
			return nil
		}}
		e := refused(t, m.store(), as("web"), Ref{Type: params.Secret, Name: "a", History: 2})
		if e.Kind != Unavailable || e.Operation != "secrets/get" || !strings.Contains(e.Message, "version v1 was listed") {
			t.Errorf("%s: %v", e.Kind, e)
		}
	}
	m := &memoryVault{objects: []*object{aged(params.Secret, "a", 1, 2)}, script: func(r request) *reply {
		if r.version == "v1" && r.token != "" {
			return failure(403, "Forbidden", "ForbiddenByRbac")
		}
		return nil
	}}
	if e := refused(t, m.store(), as("web"), Ref{Type: params.Secret, Name: "a", History: 2}); e.Kind != Denied {
		t.Errorf("one that may not be read: %s: %v", e.Kind, e)
	}
}

func TestIncompleteVersions(t *testing.T) {
	t.Parallel()
	for body, text := range map[string]string{
		`{"value":[{"attributes":{"created":1}}]}`:                                                       "without an id",
		`{"value":[{"id":"https://kv.vault.azure.net/secrets/a/v1"}]}`:                                   "the creation time of a version",
		`{"value":[{"id":"https://kv.vault.azure.net/secrets/a/v1","attributes":{}}]}`:                   "the creation time of a version",
		`{"value":[{"id":"https://kv.vault.azure.net/secrets/a","attributes":{"created":1}}]}`:           "the creation time of a version",
		`{"value":[{"id":"https://kv.vault.azure.net/keys/a/v1","attributes":{"created":1}}]}`:           "a proper id",
		`{"value":[{"id":"https://kv.vault.azure.net/secrets/a/v1","attributes":{"created":"canary"}}]}`: "is not a vault's",
		`{"value":"canary"}`: "is not a vault's",
	} {
		m := vaultOf(http.StatusOK, body)
		e := refused(t, m.store(), as("web"), Ref{Type: params.Secret, Name: "a", History: 2})
		if e.Kind != Unavailable || !strings.Contains(e.Message, text) {
			t.Errorf("%s: %s: %v", body, e.Kind, e)
		}
	}
}

// TestNullsInLists has what Microsoft's types allow and no vault sends.
func TestNullsInLists(t *testing.T) {
	t.Parallel()
	for _, body := range []string{`{"value":[null]}`, `{"value":null}`, `{}`, `null`, ``} {
		m := vaultOf(http.StatusOK, body)
		if e := refused(t, m.store(), as("web"), Ref{Type: params.Secret, Name: "a", History: 2}); e.Kind != NotFound {
			t.Errorf("%s: %s: %v", body, e.Kind, e)
		}
		names, err := m.store().List(t.Context(), as("web"), params.Secret, &params.Select{Pattern: "*", Limit: 5})
		if err != nil || len(names) != 0 {
			t.Errorf("%s: %v %v", body, names, err)
		}
	}
}

// endless has a list that names itself as its next page.
func endless(path string) *memoryVault {
	return vaultOf(http.StatusOK, `{"value":[{"id":"https://kv.vault.azure.net/secrets/a/v1","attributes":{"created":1}}],"nextLink":"https://kv.vault.azure.net/`+path+`"}`)
}

func TestEndlessVersions(t *testing.T) {
	t.Parallel()
	m := endless("secrets/a/versions?page=2")
	e := refused(t, m.store(), as("web"), Ref{Type: params.Secret, Name: "a", History: 2})
	if e.Kind != Invalid || !strings.Contains(e.Message, "more versions than") || e.Object != "a" {
		t.Errorf("%s: %v", e.Kind, e)
	}
	if got, want := m.operations(), "secrets/challenge=1 secrets/versions=40"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestPagesWithPort has a list that leads on with the port of TLS, as Azure's do, and
// a vault that wants a login again for that page.
func TestPagesWithPort(t *testing.T) {
	t.Parallel()
	pages := 0
	m := &memoryVault{objects: []*object{current(params.Secret, "a")}, script: func(r request) *reply {
		if r.token == "" {
			return challenged(goodChallenge)
		}
		if r.operation != "versions" {
			return nil
		}
		switch pages++; pages {
		case 1:
			return &reply{status: http.StatusOK, body: `{"value":[],"nextLink":"https://kv.vault.azure.net:443/secrets/a/versions?$skiptoken=x"}`}
		case 2:
			return challenged(goodChallenge)
		default:
			return &reply{status: http.StatusOK, body: `{"value":[{"id":"https://kv.vault.azure.net/secrets/a/v1","attributes":{"created":1}}]}`}
		}
	}}
	for _, address := range []string{vaultURL, "https://KV.vault.azure.net/", "https://kv.vault.azure.net:443/"} {
		pages = 0
		vault := as("web")
		vault.URL = address
		if got := one(t, m.store(), vault, Ref{Type: params.Secret, Name: "a", History: 2}); got.Version != "v1" {
			t.Errorf("%s: version %s", address, got.Version)
		}
		if got, want := m.operations(), "secrets/challenge=1 secrets/get=1 secrets/versions=3"; got != want {
			t.Errorf("%s: %s, want %s", address, got, want)
		}
	}
}

// TestPagesElsewhere has a list that leads to another host, or to no TLS, which must
// not see the token.
func TestPagesElsewhere(t *testing.T) {
	t.Parallel()
	for _, link := range []string{
		"https://evil.example.com/secrets/a/versions", "https://kv2.vault.azure.net/secrets/a/versions",
		"https://kv.vault.azure.net:8443/secrets/a/versions", "http://kv.vault.azure.net/secrets/a/versions",
	} {
		m := vaultOf(http.StatusOK, `{"value":[],"nextLink":"`+link+`"}`)
		e := refused(t, m.store(), as("web"), Ref{Type: params.Secret, Name: "a", History: 2})
		if e.Kind != Unavailable || !strings.Contains(e.Message, "another host") {
			t.Errorf("%s: %s: %v", link, e.Kind, e)
		}
		if got, want := m.operations(), "secrets/challenge=1 secrets/versions=1"; got != want {
			t.Errorf("%s: %s, want %s", link, got, want)
		}
	}
}
