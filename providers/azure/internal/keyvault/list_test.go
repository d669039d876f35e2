package keyvault

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/google/go-cmp/cmp"

	"github.com/postern-dev/postern/providers/azure/internal/params"
)

func TestList(t *testing.T) {
	t.Parallel()
	tagged := func(name string, tags map[string]*string) *object {
		return &object{name: name, tags: tags, versions: []version{{id: "v1", created: day(1)}}}
	}
	objects := func(kind params.ObjectType) []*object {
		all := []*object{
			tagged("web-c", nil), tagged("web-a", map[string]*string{"env": to.Ptr("prod"), "no": nil}),
			tagged("web-b", map[string]*string{"env": to.Ptr("test")}), tagged("db", map[string]*string{"env": to.Ptr("prod")}),
			{name: "web-off", versions: []version{{id: "v1", created: day(1), disabled: true}}},
		}
		for _, o := range all {
			o.kind = kind
		}
		return append(all, current(params.Secret, "only-secret"))
	}
	for name, tt := range map[string]struct {
		sel      params.Select
		want     []string
		requests int
	}{
		"by name":            {params.Select{Pattern: "web-*", Limit: 50}, []string{"web-a", "web-b", "web-c"}, 3},
		"by tag":             {params.Select{Pattern: "*", Tags: map[string]string{"env": "prod"}, Limit: 50}, []string{"db", "web-a"}, 3},
		"by a tag of null":   {params.Select{Pattern: "*", Tags: map[string]string{"no": ""}, Limit: 50}, []string{}, 3},
		"by both":            {params.Select{Pattern: "web-*", Tags: map[string]string{"env": "prod"}, Limit: 50}, []string{"web-a"}, 3},
		"none":               {params.Select{Pattern: "x*", Limit: 50}, []string{}, 3},
		"just so many":       {params.Select{Pattern: "web-*", Limit: 3}, []string{"web-a", "web-b", "web-c"}, 3},
		"too many":           {params.Select{Pattern: "web-*", Limit: 2}, []string{"web-a", "web-b", "web-c"}, 2},
		"too many in a page": {params.Select{Pattern: "web-*", Limit: 1}, []string{"web-a", "web-c"}, 1},
	} {
		for _, kind := range []params.ObjectType{params.Secret, params.Key, params.Certificate} {
			t.Run(fmt.Sprint(name, " ", kind), func(t *testing.T) {
				t.Parallel()
				m := &memoryVault{objects: objects(kind), pageSize: 2}
				got, err := m.store().List(t.Context(), as("web"), kind, &tt.sel)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Error(diff)
				}
				if of := collection(kind); kind != params.Secret || tt.requests < 3 { // there is one secret more
					if got, want := m.operations(), fmt.Sprintf("%s/challenge=1 %s/list=%d", of, of, tt.requests); got != want {
						t.Errorf("%s, want %s", got, want)
					}
				}
			})
		}
	}
}

// TestListIsBounded has many more on one page than may be.
func TestListIsBounded(t *testing.T) {
	t.Parallel()
	objects, _ := manySecrets(20)
	got, err := (&memoryVault{objects: objects}).store().List(t.Context(), as("web"), params.Secret, &params.Select{Pattern: "*", Limit: 2})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"s00", "s01", "s02"}, got); diff != "" {
		t.Error(diff)
	}
}

// TestListTellsNoObjectTwice has an object on two pages, as when one is made while
// pages are read.
func TestListTellsNoObjectTwice(t *testing.T) {
	t.Parallel()
	m := &memoryVault{
		objects:  []*object{current(params.Secret, "a"), current(params.Secret, "b"), current(params.Secret, "b"), current(params.Secret, "c")},
		pageSize: 2,
	}
	got, err := m.store().List(t.Context(), as("web"), params.Secret, &params.Select{Pattern: "*", Limit: 3})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a", "b", "c"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestListIncludesWhatCertificatesMake(t *testing.T) {
	t.Parallel()
	m := vaultOf(200, `{"value":[{"id":"https://kv.vault.azure.net/secrets/tls","managed":true,"contentType":"application/x-pkcs12"},
		{"id":"https://kv.vault.azure.net/secrets/plain","attributes":{"enabled":true}}]}`)
	got, err := m.store().List(t.Context(), as("web"), params.Secret, &params.Select{Pattern: "*", Limit: 3})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"plain", "tls"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestListFails(t *testing.T) {
	t.Parallel()
	all := &params.Select{Pattern: "*", Limit: 5}
	for name, tt := range map[string]struct {
		vault    *memoryVault
		kind     Kind
		text     string
		requests string
	}{
		"denied":   {vaultOf(403, failure(403, "Forbidden", "ForbiddenByPolicy").body), Denied, "text of Forbidden", "secrets/challenge=1 secrets/list=1"},
		"endless":  {endless("secrets?page=2"), Invalid, "more secrets than are looked through", "secrets/challenge=1 secrets/list=100"},
		"no id":    {vaultOf(200, `{"value":[{"managed":true}]}`), Unavailable, "without an id", "secrets/challenge=1 secrets/list=1"},
		"not JSON": {vaultOf(200, `canary`), Unavailable, "is not a vault's", "secrets/challenge=1 secrets/list=1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			names, err := tt.vault.store().List(t.Context(), as("web"), params.Secret, all)
			e := asError(t, err)
			if names != nil || e.Kind != tt.kind || !strings.Contains(e.Message, tt.text) || e.Operation != "secrets/list" || e.Object != "" {
				t.Errorf("%v, %s: %v", names, e.Kind, e)
			}
			if got := tt.vault.operations(); got != tt.requests {
				t.Errorf("%s, want %s", got, tt.requests)
			}
		})
	}
	t.Run("ended", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		m := &memoryVault{}
		_, err := m.store().List(ctx, as("web"), params.Secret, all)
		if _, failed := errors.AsType[*Error](err); failed || !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if got := m.operations(); got != "" {
			t.Errorf("requests: %s", got)
		}
	})
}
