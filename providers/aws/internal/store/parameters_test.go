package store

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ssm/types"
)

func TestReadParametersTakesFewRequests(t *testing.T) {
	t.Parallel()
	var all []*memoryParameter
	var refs, arns []Ref
	var want []string
	for i := range 25 {
		p := parameter(fmt.Sprintf("/p/%d", i), "v")
		p.values[0] = "value " + p.name
		all = append(all, p)
		refs, arns, want = append(refs, parameterRef(p.name)), append(arns, parameterRef(p.arn())), append(want, "1 value "+p.name)
	}
	for name, tt := range map[string]struct {
		refs     []Ref
		requests int
		want     []string
	}{
		"1":              {refs[:1], 1, want[:1]},
		"10":             {refs[:10], 1, want[:10]},
		"11":             {refs[:11], 2, want[:11]},
		"25":             {refs, 3, want},
		"ARNs":           {arns[:10], 1, want[:10]},
		"names and ARNs": {append(slices.Clone(refs[:3]), arns[3:6]...), 2, want[:6]},
		"twice":          {append(slices.Clone(refs[:10]), refs[:10]...), 1, append(slices.Clone(want[:10]), want[:10]...)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := &memoryAWS{parameters: all}
			wantTexts(t, read(t, m.store(), as("web"), tt.refs...), tt.want...)
			if got, want := m.operations(), fmt.Sprintf("GetParameters:%d", tt.requests); got != want {
				t.Errorf("requests are %q, want %q", got, want)
			}
		})
	}
}

// TestParameterSelectors: one parameter in several versions is one request, in
// which none is taken for another.
func TestParameterSelectors(t *testing.T) {
	t.Parallel()
	p := parameter("/p", "one", "two", "three")
	p.labels = map[string]int{"blue": 1, "green": 2}
	q := parameter("q", "only")
	m := &memoryAWS{parameters: []*memoryParameter{p, q}}
	refs := []Ref{
		parameterRef("/p").label("green"), parameterRef("/p"), parameterRef("/p").label("blue"), parameterRef("/p").version("1"),
		parameterRef("/p").version("3"), parameterRef("/p").version("4"), parameterRef("/p").label("red"), parameterRef("q"),
		parameterRef("/p:2"),
	}
	want := []string{
		"2 two", "3 three", "1 one", "1 one", "3 three", `not found GetParameters InvalidParameters "/p"`,
		`not found GetParameters InvalidParameters "/p"`, "1 only", "2 two",
	}
	s := m.store()
	wantTexts(t, read(t, s, as("web"), refs...), want...)
	if got, want := m.operations(), "GetParameters:1"; got != want {
		t.Errorf("requests are %q, want %q", got, want)
	}
	for i := range refs {
		wantTexts(t, read(t, s, as("web"), refs[i]), want[i])
	}
	for i := range refs {
		refs[i].ID = strings.Replace(strings.Replace(refs[i].ID, "/p", p.arn(), 1), "q", q.arn(), 1)
		want[i] = strings.Replace(want[i], `"/p"`, fmt.Sprintf("%q", p.arn()), 1)
	}
	m.operations()
	wantTexts(t, read(t, s, as("web"), refs...), want...)
	if got, want := m.operations(), "GetParameters:1"; got != want {
		t.Errorf("requests of ARNs are %q, want %q", got, want)
	}
}

// TestParametersAreNotMistaken: one name in two accounts.
func TestParametersAreNotMistaken(t *testing.T) {
	t.Parallel()
	theirs := parameter("/p", "theirs")
	theirs.account = "999999999999"
	m := &memoryAWS{parameters: []*memoryParameter{theirs}}
	refs := []Ref{parameterRef("/p"), parameterRef("/q"), parameterRef(theirs.arn())}
	wantTexts(t, read(t, m.store(), as("web"), refs...),
		`not found GetParameters InvalidParameters "/p"`, `not found GetParameters InvalidParameters "/q"`, "1 theirs")
	m.parameters = append(m.parameters, parameter("/p", "own"), parameter("/q", "own q"))
	wantTexts(t, read(t, m.store(), as("web"), refs...), "1 own", "1 own q", "1 theirs")
}

// TestParametersSpeltOtherwise: what AWS answers under another name is asked for
// alone.
func TestParametersSpeltOtherwise(t *testing.T) {
	t.Parallel()
	m := &memoryAWS{parameters: []*memoryParameter{parameter("/p", "p"), parameter("/q", "q")}}
	answer := func(name string) any {
		return map[string]any{"Name": strings.Trim(name, "/:1"), "ARN": "arn:" + name, "Version": 1, "Value": name, "Selector": "1"}
	}
	m.script = func(r request) *reply {
		var list []any
		for _, name := range r.body.Names {
			list = append(list, answer(name))
		}
		return &reply{status: 200, answer: map[string]any{"Parameters": list}}
	}
	wantTexts(t, read(t, m.store(), as("web"), parameterRef("/p"), parameterRef("/q")), "1 /p", "1 /q")
	if got, want := m.operations(), "GetParameters:3"; got != want {
		t.Errorf("requests are %q, want %q", got, want)
	}
	wantTexts(t, read(t, m.store(), as("web"), parameterRef("p").version("1"), parameterRef("/q").version("1")), "1 p:1", "1 /q:1") // the first as it is spelt
	if got, want := m.operations(), "GetParameters:2"; got != want {
		t.Errorf("requests with a selector that has no colon are %q, want %q", got, want)
	}
}

// TestParametersFailForOne: the one is named, and the others are read.
func TestParametersFailForOne(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		denied string
		script func(request) *reply
		want   string
	}{
		"denied":     {denied: "iam", want: `denied GetParameters AccessDeniedException "/p/3"`},
		"KMS denies": {denied: "kms", want: `denied GetParameters AccessDeniedException "/p/3"`},
		"KMS key": {script: func(r request) *reply {
			if slices.Contains(r.body.Names, "/p/3") {
				return failure("InvalidKeyId", "The query key ID isn't valid.")
			}
			return nil
		}, want: `denied GetParameters InvalidKeyId "/p/3"`},
		"bad name": {script: func(r request) *reply {
			if slices.Contains(r.body.Names, "/p/3") {
				return failure("ValidationException", "Parameter name: can't be prefixed with ssm")
			}
			return nil
		}, want: `invalid GetParameters ValidationException "/p/3"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := &memoryAWS{script: tt.script}
			var refs []Ref
			var want []string
			for i := range 10 {
				p := parameter(fmt.Sprintf("/p/%d", i), "v")
				refs, want = append(refs, parameterRef(p.name)), append(want, "1 v")
				if i == 3 {
					p.denied, p.secure = tt.denied, true
					want[i] = tt.want
				}
				m.parameters = append(m.parameters, p)
			}
			s := m.store()
			wantTexts(t, read(t, s, as("web"), refs...), want...)
			if got, want := m.operations(), "GetParameters:11"; got != want {
				t.Errorf("requests are %q, want %q", got, want)
			}
			wantTexts(t, read(t, s, as("web"), refs[3]), tt.want)
			if got, want := m.operations(), "GetParameters:1"; got != want {
				t.Errorf("requests for the one are %q, want %q", got, want)
			}
		})
	}
}

// TestParametersFailForAll: what all would fail with is not asked again.
func TestParametersFailForAll(t *testing.T) {
	t.Parallel()
	m := &memoryAWS{script: func(request) *reply { return failure("ExpiredTokenException", "expired") }}
	wantTexts(t, read(t, m.store(), as("web"), parameterRef("a"), parameterRef("b")),
		`bad credentials GetParameters ExpiredTokenException "a"`, `bad credentials GetParameters ExpiredTokenException "b"`)
	if got, want := m.operations(), "GetParameters:1"; got != want {
		t.Errorf("requests are %q, want %q", got, want)
	}
}

// The number of a parameter that was made anew is one that it has had before.
func TestParameterVersion(t *testing.T) {
	t.Parallel()
	made := time.Date(2026, 1, 2, 15, 4, 5, 678_000_000, time.FixedZone("", 3600))
	if got := parameterVersion(types.Parameter{Version: 3, LastModifiedDate: &made}); got != "3@2026-01-02T14:04:05.678Z" {
		t.Errorf("the version is %q", got)
	}
	if got := parameterVersion(types.Parameter{Version: 3}); got != "3" {
		t.Errorf("the version is %q without a time", got)
	}
}

// TestParameterVersions: asking for versions decrypts nothing, so that it works
// also where the key cannot be used.
func TestParameterVersions(t *testing.T) {
	t.Parallel()
	p := parameter("/p", "one", "two")
	p.secure, p.denied, p.labels = true, "kms", map[string]int{"old": 1}
	denied := parameter("/denied", "v")
	denied.denied = "iam"
	var many []Ref
	m := &memoryAWS{parameters: []*memoryParameter{p, denied}}
	for i := range 12 {
		q := parameter(fmt.Sprintf("q%d", i), "v")
		m.parameters, many = append(m.parameters, q), append(many, parameterRef(q.name))
	}
	s := m.store()
	for name, tt := range map[string]struct {
		refs     []Ref
		want     []string // nil: cannot tell
		requests string
	}{
		"selected":  {[]Ref{parameterRef("/p"), parameterRef("/p").label("old"), parameterRef("/p").version("1")}, []string{"2", "1", "1"}, "GetParameters:1"},
		"pinned":    {[]Ref{parameterRef("/p").version("2"), parameterRef("none").version("7")}, []string{"2", ""}, "GetParameters:1"},
		"no number": {[]Ref{parameterRef("/p").version("x")}, []string{""}, "GetParameters:1"},
		"many":      {many, slices.Repeat([]string{"1"}, 12), "GetParameters:2"},
		"not there": {[]Ref{parameterRef("/p"), parameterRef("/none")}, []string{"2", ""}, "GetParameters:1"},
		"denied":    {[]Ref{parameterRef("/denied")}, nil, "GetParameters:1"},
		"one of":    {[]Ref{parameterRef("/p"), parameterRef("/denied")}, nil, "GetParameters:1"},
	} {
		got, ok, err := s.Versions(t.Context(), as("web"), tt.refs)
		if err != nil || ok != (tt.want != nil) || !slices.Equal(got, tt.want) {
			t.Errorf("%s: versions are %q, %t, %v; want %q", name, got, ok, err, tt.want)
		}
		for _, r := range m.requests {
			if r.body.WithDecryption {
				t.Errorf("%s: asked for decryption", name)
			}
		}
		if got := m.operations(); got != tt.requests {
			t.Errorf("%s: requests are %q, want %q", name, got, tt.requests)
		}
	}
	if a := read(t, s, as("web"), many[0]); text(a[0]) != "1 v" || !m.requests[0].body.WithDecryption {
		t.Errorf("a read answers %s, with decryption %t", text(a[0]), m.requests[0].body.WithDecryption)
	}
}
