package query

import (
	"errors"
	"strings"
	"testing"

	"github.com/jmespath/go-jmespath"
)

func TestCost(t *testing.T) {
	t.Parallel()
	for expression, want := range map[string]cost{
		"a.b[0].c[*].d[]":       {lists: 1},
		"[a, b, c]":             {lists: 3},
		"{a: b, c: d.[e, f]}":   {lists: 3},
		"[a, b] | [@, @, @][]":  {lists: 6},
		"[[a, b], [c, d]]":      {lists: 4},
		"[?a == 'x'].[b, c]":    {lists: 2},
		"(a || b)[0]":           {lists: 1},
		"not_null(a, b, c)":     {lists: 1},
		"map(&[@, @], [a, b])":  {lists: 4},
		"`[1, 2, 3]`[?@ > `1`]": {lists: 3},
		// Names of functions, and what only looks like one.
		"join(',', [a, b])":                     {lists: 2, joins: 1},
		"join (',', [join\t(',', a), b])":       {lists: 2, joins: 2},
		"[join('', a), join('', b)]":            {lists: 2, joins: 1},
		"join('', a) | to_string([join(@, @)])": {lists: 1, joins: 2, texts: 1},
		"join.to_string[0]":                     {lists: 1},
		"[?join[?to_string]]":                   {lists: 1},
		"sort_by(a, &b)":                        {lists: 64},
		// Quotes, read as the library reads them.
		`"a,(b".'[,'`:               {lists: 1},
		`'a\\'[,,,'.[a, b]`:         {lists: 2},
		`'\'[,,,'.[a, b]`:           {lists: 2},
		`"\\".[a, b]`:               {lists: 2},
		`"\"[,,,".[a, b]`:           {lists: 2},
		"`[1,\"\\`\",2]`.[a, b]":    {lists: 6},
		"`\"\\\\\"`.[a, b] | `[,,`": {lists: 6},
	} {
		if got := costOf(expression); got != want {
			t.Errorf("%s costs %+v, want %+v", expression, got, want)
		}
	}
}

// TestTooCostly has expressions that keep the library busy for hours, or fill the
// memory, and are a few hundred bytes.
func TestTooCostly(t *testing.T) {
	t.Parallel()
	nested := func(n int, before, after string) string {
		return strings.Repeat(before, n) + "@" + strings.Repeat(after, n)
	}
	for name, tt := range map[string]struct{ expression, document string }{
		"map":          {nested(10, "map(&", ", `[1,1,1,1,1,1,1,1,1,1]`)"), "1"},
		"filter":       {nested(10, "`[1,1,1,1,1,1,1,1,1,1]`[?", "]"), "1"},
		"lists":        {strings.Repeat("[@, @] | ", 40) + "@", "1"},
		"flat lists":   {strings.Repeat("[@, @][] | ", 40) + "@", "[1]"},
		"hashes":       {strings.Repeat("{a: @, b: @}.*[] | ", 40) + "@", "[1]"},
		"projections":  {nested(40, "[@, @][*].[", "]"), "1"},
		"hidden":       {`'a\\' | ' && ` + strings.Repeat("[@, @] | ", 40) + "@", "1"},
		"escapes":      {strings.Repeat("to_string([@]) | ", 40) + "@", `"\\"`},
		"joins":        {strings.Repeat("[join(@, ['', '', '', '', '', ''])] | [0] | ", 20) + "@", `"x"`},
		"one join":     {"join(a, b)", `{"a": "` + strings.Repeat("x", 30_000) + `", "b": ["` + strings.Repeat(`","`, 10_000) + `"]}`},
		"long glue":    {"join('" + strings.Repeat("x", 4000) + "', @)", `["` + strings.Repeat(`","`, 17_000) + `"]`},
		"glue of all":  {"join(to_string(@), @)", `["a` + strings.Repeat(`","a`, 6000) + `"]`},
		"sort in sort": {nested(4, "sort_by(list, &", ")"), `{"list": [1]}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, err := Compile(tt.expression)
			if err != nil {
				if _, ok := errors.AsType[*SyntaxError](err); !ok || !strings.HasSuffix(err.Error(), "It takes too long to evaluate: nest less") {
					t.Error(err)
				}
				return
			}
			if _, err := e.Search([]byte(tt.document)); !errors.Is(err, ErrTooCostly) {
				t.Errorf("Search: %v, want ErrTooCostly", err)
			}
		})
	}
}

// TestNotTooCostly has what users write, on the largest secret that there is.
func TestNotTooCostly(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString(`{"user": "u", "port": 5432, "list": [{"name": "n", "tags": ["a", "b"]}`)
	for b.Len() < 60_000 {
		b.WriteString(`, {"name": "n-` + strings.Repeat("x", 40) + `", "tags": ["a", "b"], "id": 12345678901234567890}`)
	}
	large := b.String() + "]}"
	const small = `{"user": "u", "password": "p", "host": "db.example.com", "port": 5432, "name": "n", "list": ["a", "b"]}`
	for _, tt := range []struct{ expression, document string }{
		{"user", large},
		{"list[?name=='n'].tags | [0]", large},
		{"sort_by(list, &name)[*].name | [0]", large},
		{"list[*].{name: name, first: tags[0], second: tags[1]}", large},
		{"to_string(port)", large},
		{"to_string(list[0])", large},
		{"join('', ['postgres://', user, ':', password, '@', host, ':', to_string(port), '/', name])", small},
		{"join(',', [join(':', [user, password]), join(':', [host, name])])", small},
		{"{" + strings.Repeat("a: user, ", 39) + "z: user}", large},
	} {
		if _, err := search(t, tt.expression, tt.document); err != nil {
			t.Errorf("%s: %v", tt.expression, err)
		}
	}
}

// checkCost checks that a result is no larger than the estimate says. Each bracket
// may be a list around a value.
func checkCost(t *testing.T, expression, document string, result any) {
	t.Helper()
	exact, err := decode([]byte(document))
	if err != nil {
		t.Fatal(err)
	}
	c, before, after := costOf(expression), measure{longest: len(expression)}, measure{}
	before.add(exact)
	after.add(result)
	if limit := c.lists * float64(before.values) * float64(1+len(expression)); float64(after.values) > limit {
		t.Errorf("%s makes %d values of %d, and the estimate is %+v", expression, after.values, before.values, c)
	}
	if c.joins == 0 && c.texts == 0 && after.longest > before.longest {
		t.Errorf("%s makes %d bytes of %d, and the estimate is %+v", expression, after.longest, before.longest, c)
	}
}

// FuzzCost checks the estimate of what has nested lists and quotes, without which
// hardly any input nests.
func FuzzCost(f *testing.F) {
	f.Add([]byte("0123456789"), `["x", {"a": [1, 2]}]`)
	f.Fuzz(func(t *testing.T, pieces []byte, document string) {
		all := []string{"[@, @]", "[]", "[*].", "{a: @, b: @}", ".*", " | ", "map(&", ", @)", "`[1,2,3]`", "[?", "]", "@", `'\\'`, `"\""`, "'", "[", ",", "(", ")", "."}
		var b strings.Builder
		for _, piece := range pieces[:min(len(pieces), 16)] {
			b.WriteString(all[int(piece)%len(all)])
		}
		if _, err := jmespath.Compile(b.String()); err != nil {
			return
		}
		e, err := Compile(b.String())
		if err != nil {
			return
		}
		if result, err := e.Search([]byte(document)); err == nil {
			checkCost(t, b.String(), document, result)
		}
	})
}
