package query

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jmespath/go-jmespath"
)

const document = `{
	"user": "bob", "db-password": "p4ss", "a.b": "dot", "né": "accent", "empty": "", "nil": null, "yes": true, "html": "<&>",
	"db": {"host": "h", "api-key": "k", "port": 5432},
	"one": 1.0, "same": 1, "big": 12345678901234567890, "near": 12345678901234567891, "huge": 1e400, "tiny": 0.10, "exp": 2E+3,
	"hosts": [{"name": "b", "port": 2, "id": 98765432109876543210}, {"name": "a", "port": 1.50, "id": 18446744073709551617}]
}`

func search(t *testing.T, expression, document string) (any, error) {
	t.Helper()
	e, err := Compile(expression)
	if err != nil {
		t.Fatalf("Compile(%q): %v", expression, err)
	}
	return e.Search([]byte(document))
}

func TestSearch(t *testing.T) {
	t.Parallel()
	for expression, want := range map[string]any{
		"user":                    "bob",
		`"db-password"`:           "p4ss",
		`db."api-key"`:            "k",
		`"a.b"`:                   "dot",
		`"né"`:                    "accent",
		"empty":                   "",
		"nil":                     nil,
		"absent.deeper":           nil,
		"yes":                     true,
		"html":                    "<&>",
		"hosts[].name":            []any{"b", "a"},
		"hosts[?name=='a'].name":  []any{"a"},
		"db.{h: host, p: port}":   map[string]any{"h": "h", "p": json.Number("5432")},
		"join(':', [user, user])": "bob:bob",
		"length(hosts)":           json.Number("2"),
	} {
		got, err := search(t, expression, document)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s: %v, (-want +got):\n%s", expression, err, diff)
		}
	}
}

// TestNumbersKeepTheirText has numbers that are selected, and numbers of which
// others decide.
func TestNumbersKeepTheirText(t *testing.T) {
	t.Parallel()
	for expression, want := range map[string]any{
		"one":               json.Number("1.0"),
		"same":              json.Number("1"),
		"big":               json.Number("12345678901234567890"),
		"near":              json.Number("12345678901234567891"),
		"huge":              json.Number("1e400"),
		"tiny":              json.Number("0.10"),
		"exp":               json.Number("2E+3"),
		"[big, near, huge]": []any{json.Number("12345678901234567890"), json.Number("12345678901234567891"), json.Number("1e400")},
		// Strings decide.
		"hosts[?name=='a'].id | [0]":  json.Number("18446744073709551617"),
		"sort_by(hosts, &name)[0].id": json.Number("18446744073709551617"),
		"nil || big":                  json.Number("12345678901234567890"),
		"not_null(nil, near)":         json.Number("12345678901234567891"),
		// Numbers decide: texts are found by value.
		"hosts[?port==`1.5`].id | [0]":                      json.Number("18446744073709551617"),
		"hosts[?port>`1.7`].[id, port] | [0]":               []any{json.Number("98765432109876543210"), json.Number("2")},
		"sort_by(hosts, &port)[*].port":                     []any{json.Number("1.50"), json.Number("2")},
		"max_by(hosts, &id).{id: id}":                       map[string]any{"id": json.Number("98765432109876543210")},
		"hosts[?port==`2`].name":                            []any{"b"},
		"max(hosts[].id)":                                   json.Number("98765432109876543210"),
		"same == one && [tiny, one, length(hosts)]":         []any{json.Number("0.10"), json.Number("1"), json.Number("2")},
		"(one == `1` && tiny) || exp":                       json.Number("0.10"),
		"merge({a: user}, one == `1` && {b: tiny} || `{}`)": map[string]any{"a": "bob", "b": json.Number("0.10")},
		"{p: one == `1`, n: tiny}":                          map[string]any{"p": true, "n": json.Number("0.10")},
		// What is computed has float64's format, and so has a string made of a number.
		"sum(hosts[].port)":    json.Number("3.5"),
		"avg([same, `2`])":     json.Number("1.50"), // as the document writes 1.5
		"to_string(one)":       "1",
		"to_string(db.port)":   "5432",
		"to_number('7') ":      json.Number("7"),
		"`[1.0, 2]`":           []any{json.Number("1"), json.Number("2")},
		"type(big)":            "number",
		"abs(`-3`) == `3`":     true,
		"contains([one],same)": true,
	} {
		got, err := search(t, expression, document)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s: %v, (-want +got):\n%s", expression, err, diff)
		}
	}
}

// TestSearchErrors checks that no error holds anything of the document.
func TestSearchErrors(t *testing.T) {
	t.Parallel()
	const canary = `{"s": "canary", "n": 1, "big": 12345678901234567890, "near": 12345678901234567891, "huge": 1e400, "list": ["canary", {"x": "canary"}]}`
	const wrongType = "a function is given what it does not take"
	for name, tt := range map[string]struct {
		expression, document string
		want                 error
		reason               string
	}{
		"no JSON":               {"s", "canary", ErrNotJSON, ""},
		"empty":                 {"s", "", ErrNotJSON, ""},
		"more than one":         {"s", `{"s": "canary"} {"s": "canary"}`, ErrNotJSON, ""},
		"garbage after":         {"s", `{"s": "canary"} canary`, ErrNotJSON, ""},
		"type":                  {"abs(s)", canary, nil, wrongType},
		"unknown function":      {"nope(s)", canary, nil, "unknown function: nope"},
		"arity":                 {"not_null()", canary, nil, "Invalid arity."},
		"number of arguments":   {"abs()", canary, nil, "incorrect number of args"},
		"slice":                 {"list[::0]", canary, nil, "Invalid slice, step cannot be 0"},
		"panic in merge":        {"merge(@, s)", canary, nil, wrongType},
		"panic in a comparison": {"contains(list, list[1])", canary, nil, wrongType},
		"function":              {"&s", canary, ErrNoValue, ""},
		"function in a list":    {"[s, &s]", canary, ErrNoValue, ""},
		"infinite":              {"sum([huge, n])", canary, ErrAmbiguous, ""},
		"too large to compare":  {"huge > big && huge", canary, ErrAmbiguous, ""},
		"ambiguous":             {"n == `1` && big", canary, ErrAmbiguous, ""},
		"a string doubled":      {strings.Repeat("[@, @] | ", 6) + "@", `"` + strings.Repeat("canary", 3000) + `"`, ErrTooLarge, ""},
		"a number doubled":      {strings.Repeat("[@, @] | ", 6) + "@", "1." + strings.Repeat("0", 18_000), ErrTooLarge, ""},
		"a key doubled":         {strings.Repeat("[@, @] | ", 6) + "@", `{"` + strings.Repeat("canary", 3000) + `": 1}`, ErrTooLarge, ""},
		"values doubled":        {strings.Repeat("[@, @] | ", 17) + "@", "[true, true, true]", ErrTooLarge, ""},
		"doubled":               {strings.Repeat("[@, @] | ", 17) + "@", `["canary", 1, 2, 3, 4, 5, 6, 7]`, ErrTooCostly, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := search(t, tt.expression, tt.document)
			if got != nil || err == nil || strings.Contains(err.Error(), "canary") {
				t.Fatalf("Search = %v, %v, want an error without the document", got, err)
			}
			if tt.want != nil {
				if !errors.Is(err, tt.want) {
					t.Errorf("error = %v, want %v", err, tt.want)
				}
				return
			}
			if e, ok := errors.AsType[*EvaluationError](err); !ok || e.Error() != tt.reason {
				t.Errorf("error = %v, want %q", err, tt.reason)
			}
		})
	}
}

func TestSyntaxErrors(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"db-password":                      `Invalid JMES Path: db-password. A key that holds "-" must be quoted: "db-password"`,
		"db.api-key":                       `Invalid JMES Path: db.api-key. A key that holds "-" must be quoted: db."api-key"`,
		`"a-b".c-d | e-f-2`:                `Invalid JMES Path: "a-b".c-d | e-f-2. A key that holds "-" must be quoted: "a-b"."c-d" | "e-f-2"`,
		"hosts[?user-name=='x-y'].a-b":     `Invalid JMES Path: hosts[?user-name=='x-y'].a-b. A key that holds "-" must be quoted: hosts[?"user-name"=='x-y']."a-b"`,
		"max_by(hosts, &a-b).{c-d: e}":     `Invalid JMES Path: max_by(hosts, &a-b).{c-d: e}. A key that holds "-" must be quoted: max_by(hosts, &"a-b").{"c-d": e}`,
		".username":                        "Invalid JMES Path: .username. SyntaxError: Invalid token: tDot",
		"a-b..c":                           "Invalid JMES Path: a-b..c. SyntaxError: Unexpected token at the end of the expression: tNumber",
		"":                                 "Invalid JMES Path: . SyntaxError: Incomplete expression",
		"a\u0080":                          "Invalid JMES Path: a\u0080. the expression cannot be evaluated",
		strings.Repeat("[@,@]|", 20) + "@": "Invalid JMES Path: " + strings.Repeat("[@,@]|", 20) + "@. It takes too long to evaluate: nest less",
		"é" + strings.Repeat("(", 4096):    "Invalid JMES Path: é" + strings.Repeat("(", 30) + ".... It is longer than 4096 bytes",
	} {
		_, err := Compile(text)
		if e, ok := errors.AsType[*SyntaxError](err); !ok || e.Error() != want {
			t.Errorf("Compile(%.40q) = %v\nwant %s", text, err, want)
		}
	}
}

// TestNesting checks that the deepest expression does not end the process.
func TestNesting(t *testing.T) {
	t.Parallel()
	half := maxExpression/2 - 1
	e, err := Compile(strings.Repeat("(", half) + "@" + strings.Repeat(")", half))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := e.Search([]byte(`"x"`)); got != "x" || err != nil {
		t.Errorf("Search = %v, %v", got, err)
	}
	if _, err := Compile(strings.Repeat("!", maxExpression)); err == nil {
		t.Error("4096 negations of nothing are an expression")
	}
}

// TestSearchLeavesNothing checks that a search is not seen by the next: the library
// sorts in place.
func TestSearchLeavesNothing(t *testing.T) {
	t.Parallel()
	want := []any{"b", "a"}
	for _, expression := range []string{"sort_by(hosts, &name)[].name", "sort_by(hosts, &port)[].name"} {
		if _, err := search(t, expression, document); err != nil {
			t.Fatal(err)
		}
		if got, err := search(t, "hosts[].name", document); !cmp.Equal(want, got) || err != nil {
			t.Errorf("after %s: %v, %v, want %v", expression, got, err, want)
		}
	}
	// Within one search, the second evaluation must not see what the first sorted.
	got, err := search(t, "[hosts[0].id, sort_by(hosts, &name)[0].id, hosts[0].id]", document)
	first, second := json.Number("98765432109876543210"), json.Number("18446744073709551617")
	if diff := cmp.Diff([]any{first, second, second}, got); diff != "" || err != nil {
		t.Errorf("%v, (-want +got):\n%s", err, diff)
	}
}

// FuzzSearch compares with the library: but for the texts of numbers, nothing may
// differ, and what the library makes of a document is JSON again.
func FuzzSearch(f *testing.F) {
	for _, expression := range []string{
		"user", `db."api-key"`, "hosts[?port>`1`].id | [0]", "sort_by(hosts, &port)[0]", "[@, @]", "merge(@, `{}`)", "to_string(@)",
		"big", "&x", "a\u0080", "[::", "[:::]", "abs(one)", "!yes", "hosts[0:1:-1]", "reverse(hosts)",
	} {
		f.Add(expression, document)
		f.Add(expression, `[1, 1.0, "x", null, {"a": [[]]}]`)
	}
	f.Fuzz(func(t *testing.T, text, document string) {
		e, err := Compile(text)
		if err != nil {
			if _, ok := errors.AsType[*SyntaxError](err); !ok {
				t.Fatalf("Compile(%q): %T", text, err)
			}
			return
		}
		got, err := e.Search([]byte(document))
		if err != nil {
			return
		}
		if _, err := json.Marshal(got); err != nil {
			t.Fatalf("%s selects what is no JSON: %v", text, err)
		}
		checkCost(t, text, document, got)
		var data any
		// The order of an object's values is random, and to_number reads what JSON does not.
		if json.Unmarshal([]byte(document), &data) != nil || strings.ContainsAny(text, "*") || strings.Contains(text, "values") ||
			strings.Contains(text, "keys") || strings.Contains(text, "to_number") {
			return
		}
		want, err := jmespath.Search(text, data)
		if err != nil {
			t.Fatalf("%s selects something, of which the library says %v", text, err)
		}
		if diff := cmp.Diff(want, inFloats(got)); diff != "" {
			t.Fatalf("%s (-library +here):\n%s", text, diff)
		}
	})
}

func inFloats(value any) any {
	switch v := value.(type) {
	case json.Number:
		return float(v)
	case []any:
		list := []any{}
		for _, element := range v {
			list = append(list, inFloats(element))
		}
		return list
	case map[string]any:
		object := maps.Clone(v)
		for _, key := range slices.Collect(maps.Keys(object)) {
			object[key] = inFloats(object[key])
		}
		return object
	default:
		return value
	}
}
