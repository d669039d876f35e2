package store

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/postern-dev/postern/providers/aws/internal/params"
)

func items(list []Item) []string {
	var texts []string
	for _, item := range list {
		texts = append(texts, item.ID+" "+item.Name+" "+strings.TrimLeft(item.Version, "0"))
	}
	return texts
}

func secretItems(names ...string) []string {
	var texts []string
	for _, name := range names {
		texts = append(texts, current(name).arn()+" "+name+" "+name)
	}
	return texts
}

func TestListSecrets(t *testing.T) {
	t.Parallel()
	tagged := func(name string, tags ...string) *memorySecret {
		s := current(name)
		s.tags = make(map[string]string)
		for i := 0; i < len(tags); i += 2 {
			s.tags[tags[i]] = tags[i+1]
		}
		return s
	}
	deleted := tagged("app/deleted", "team", "web")
	deleted.deleted = true
	all := []*memorySecret{
		tagged("app/c", "team", "web", "tier", "1"), tagged("app/a", "team", "web"), tagged("app/b", "team", "webstore"), deleted,
		tagged("other", "team", "web", "größe", "x", "empty", ""), tagged("application", "teams", "web", "emptyish", ""), tagged("app/d", "tier", "web", "team", "x"),
	}
	for name, tt := range map[string]struct {
		sel     params.Select
		page    int
		want    []string
		filters string
		pages   int
	}{
		"prefix":       {params.Select{NamePrefix: "app/", Limit: 9}, 0, []string{"app/a", "app/b", "app/c", "app/d"}, "name=app/", 1},
		"pages":        {params.Select{NamePrefix: "app/", Limit: 9}, 1, []string{"app/a", "app/b", "app/c", "app/d"}, "name=app/", 4},
		"limit":        {params.Select{NamePrefix: "app/", Limit: 2}, 1, []string{"app/a", "app/b", "app/c"}, "name=app/", 3},
		"limit in one": {params.Select{NamePrefix: "app/", Limit: 2}, 0, []string{"app/a", "app/b", "app/c"}, "name=app/", 1},
		"just enough":  {params.Select{NamePrefix: "app/", Limit: 4}, 2, []string{"app/a", "app/b", "app/c", "app/d"}, "name=app/", 2},
		"tag":          {params.Select{Tags: map[string]string{"team": "web"}, Limit: 9}, 0, []string{"app/a", "app/c", "other"}, "tag-key=team tag-value=web", 1},
		"tags": {
			params.Select{Tags: map[string]string{"team": "web", "tier": "1"}, Limit: 9},
			0,
			[]string{"app/c"},
			"tag-key=team tag-value=web tag-key=tier tag-value=1", 1,
		},
		"prefix and tag": {params.Select{NamePrefix: "app/", Tags: map[string]string{"team": "web"}, Limit: 9}, 0, []string{"app/a", "app/c"}, "name=app/ tag-key=team tag-value=web", 1},
		"no ASCII":       {params.Select{Tags: map[string]string{"größe": "x"}, Limit: 9}, 0, []string{"other"}, "tag-value=x", 1},
		"empty value":    {params.Select{Tags: map[string]string{"empty": ""}, Limit: 9}, 0, []string{"other"}, "tag-key=empty", 1},
		"no negation":    {params.Select{NamePrefix: "!app", Limit: 9}, 0, nil, "", 1},
		"nothing":        {params.Select{NamePrefix: "none", Limit: 9}, 0, nil, "name=none", 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := &memoryAWS{secrets: all, pageSize: tt.page}
			got, err := m.store().List(t.Context(), as("web"), params.SecretsManager, &tt.sel)
			if err != nil || len(got) != len(tt.want) || (name != "limit" && name != "limit in one" && !slices.Equal(items(got), secretItems(tt.want...))) {
				t.Errorf("list is %q, %v; want %q", items(got), err, tt.want)
			}
			var filters []string
			for _, f := range m.requests[0].body.Filters {
				filters = append(filters, fmt.Sprintf("%v=%v", f.Key, f.Values.([]any)[0]))
			}
			if got := strings.Join(filters, " "); got != tt.filters {
				t.Errorf("filters are %q, want %q", got, tt.filters)
			}
			if got, want := m.operations(), fmt.Sprintf("ListSecrets:%d", tt.pages); got != want {
				t.Errorf("requests are %q, want %q", got, want)
			}
		})
	}
}

// everySecond of a list of keys and values is the keys.
func everySecond(list []string) (keys []string) {
	for i := 0; i < len(list); i += 2 {
		keys = append(keys, list[i])
	}
	return keys
}

func TestListSecretsHasTenFilters(t *testing.T) {
	t.Parallel()
	s := current("a")
	s.tags = make(map[string]string)
	for i := range 7 {
		s.tags[fmt.Sprintf("k%d", 6-i)] = "v"
	}
	more := current("b")
	more.tags = maps.Clone(s.tags)
	more.tags["k6"] = "other"
	m := &memoryAWS{secrets: []*memorySecret{s, more, {account: account, name: "c", tags: s.tags}}}
	got, err := m.store().List(t.Context(), as("web"), params.SecretsManager, &params.Select{Tags: s.tags, Limit: 9})
	var keys []string
	for _, f := range m.requests[0].body.Filters {
		keys = append(keys, fmt.Sprint(f.Key, "=", f.Values.([]any)[0]))
	}
	if n := len(keys); err != nil || !slices.IsSorted(everySecond(keys)) || len(got) != 2 || got[0].Name != "a" || got[1].Version != "" || n != 10 || m.requests[0].body.MaxResults != 100 {
		t.Errorf("list is %q, %v, with %d filters", items(got), err, n)
	}
}

func TestListParameters(t *testing.T) {
	t.Parallel()
	tagged := func(name, team string) *memoryParameter {
		p := parameter(name, "one", "two")
		p.tags = map[string]string{"team": team}
		return p
	}
	all := []*memoryParameter{tagged("/app/c", "web"), tagged("/x", "web"), tagged("/y", "web"), tagged("/app/a", "webstore"), tagged("/app/b", "web")}
	for name, tt := range map[string]struct {
		sel     params.Select
		page    int
		want    []string
		filters string
		pages   int
	}{
		"prefix":      {params.Select{NamePrefix: "/app/", Limit: 9}, 0, []string{"/app/a", "/app/b", "/app/c"}, "[{Name BeginsWith [/app/]}]", 1},
		"empty pages": {params.Select{NamePrefix: "/app/", Limit: 9}, 1, []string{"/app/a", "/app/b", "/app/c"}, "[{Name BeginsWith [/app/]}]", 5},
		"limit":       {params.Select{NamePrefix: "/app/", Limit: 1}, 1, []string{"/app/a", "/app/c"}, "[{Name BeginsWith [/app/]}]", 4},
		"tag":         {params.Select{Tags: map[string]string{"team": "web"}, Limit: 9}, 0, []string{"/app/b", "/app/c", "/x", "/y"}, "[{tag:team Equals [web]}]", 1},
		"both": {
			params.Select{NamePrefix: "/app/", Tags: map[string]string{"team": "web"}, Limit: 9},
			0,
			[]string{"/app/b", "/app/c"},
			"[{Name BeginsWith [/app/]} {tag:team Equals [web]}]", 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := &memoryAWS{parameters: all, pageSize: tt.page}
			got, err := m.store().List(t.Context(), as("web"), params.ParameterStore, &tt.sel)
			var want []string
			for _, name := range tt.want {
				want = append(want, name+" "+name+" 2")
			}
			if err != nil || !slices.Equal(items(got), want) {
				t.Errorf("list is %q, %v; want %q", items(got), err, tt.want)
			}
			if got := fmt.Sprint(m.requests[0].body.ParameterFilters); got != tt.filters || m.requests[0].body.MaxResults != 50 {
				t.Errorf("filters are %s, want %s", got, tt.filters)
			}
			if got, want := m.operations(), fmt.Sprintf("DescribeParameters:%d", tt.pages); got != want {
				t.Errorf("requests are %q, want %q", got, want)
			}
		})
	}
}

// TestListedOtherwise: a name that does not begin as was asked for has no file name.
func TestListedOtherwise(t *testing.T) {
	t.Parallel()
	m := &memoryAWS{script: func(request) *reply {
		return &reply{status: 200, answer: map[string]any{
			"Parameters": []any{map[string]any{"Name": "/App/a", "Version": 1}, map[string]any{"Name": "/app/a", "Version": 1}},
			"SecretList": []any{map[string]any{"Name": "App/a"}, map[string]any{"Name": "app/a", "ARN": "arn:a"}},
		}}
	}}
	for service, sel := range map[params.Service]params.Select{
		params.SecretsManager: {NamePrefix: "app/", Limit: 9}, params.ParameterStore: {NamePrefix: "/app/", Limit: 9},
	} {
		if list, err := m.store().List(t.Context(), as("web"), service, &sel); err != nil || len(list) != 1 || list[0].Name != sel.NamePrefix+"a" {
			t.Errorf("list is %q, %v", items(list), err)
		}
	}
}

func TestListFails(t *testing.T) {
	t.Parallel()
	loop := &reply{status: 200, answer: map[string]any{"NextToken": "again"}}
	for name, tt := range map[string]struct {
		service params.Service
		sel     params.Select
		answer  *reply
		want    string
	}{
		"secrets denied":      {params.SecretsManager, params.Select{NamePrefix: "a"}, denial("secretsmanager:ListSecrets", "*"), "denied ListSecrets AccessDeniedException"},
		"parameters denied":   {params.ParameterStore, params.Select{NamePrefix: "a"}, denial("ssm:DescribeParameters", "*"), "denied DescribeParameters AccessDeniedException"},
		"secrets no end":      {params.SecretsManager, params.Select{NamePrefix: "a"}, loop, "unavailable ListSecrets "},
		"parameters no end":   {params.ParameterStore, params.Select{NamePrefix: "a"}, loop, "unavailable DescribeParameters "},
		"empty tag":           {params.ParameterStore, params.Select{Tags: map[string]string{"k": ""}}, loop, "invalid DescribeParameters "},
		"secrets throttled":   {params.SecretsManager, params.Select{NamePrefix: "a"}, &reply{status: 429, raw: "{}", header: retryIn(60)}, "throttled ListSecrets "},
		"parameters bad page": {params.ParameterStore, params.Select{NamePrefix: "a"}, failure("InvalidNextToken", "?"), "invalid DescribeParameters InvalidNextToken"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := &memoryAWS{script: func(request) *reply { return tt.answer }}
			list, err := m.store().List(t.Context(), as("web"), tt.service, &tt.sel)
			if got := text(Answer{Err: err}); list != nil || got != tt.want+` ""` {
				t.Errorf("list is %q, error %s, want %s", items(list), got, tt.want)
			}
		})
	}
}
