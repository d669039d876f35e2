package store

import (
	"fmt"
	"testing"
	"time"
)

// Each history of one number: what Google tells of it, and what is read, and whether
// at the end the version can be told without reading.
func TestProofs(t *testing.T) {
	t.Parallel()
	v := numbered{"projects/p/secrets/web", "1"}
	first, second := time.Unix(1000, 0), time.Unix(2000, 0)
	tell := func(made time.Time) func(*proofs) { return func(p *proofs) { p.tell(v, made) } }
	read := func(contents string) func(*proofs) {
		return func(p *proofs) {
			if _, err := p.read(v, []byte(contents), p.begin()); err != nil {
				t.Error(err)
			}
		}
	}
	for name, tt := range map[string]struct {
		steps []func(*proofs)
		at    time.Time
		want  string // contents whose version is told; "" for none
	}{
		"nothing":                     {nil, first, ""},
		"told":                        {[]func(*proofs){tell(first)}, first, ""},
		"read":                        {[]func(*proofs){read("a")}, first, ""},
		"read, told":                  {[]func(*proofs){read("a"), tell(first)}, first, ""},
		"told, read":                  {[]func(*proofs){tell(first), read("a")}, first, "a"},
		"told, read, made anew":       {[]func(*proofs){tell(first), read("a")}, second, ""},
		"made anew, and told so":      {[]func(*proofs){tell(first), read("a"), tell(second)}, second, ""},
		"made anew, told, and read":   {[]func(*proofs){tell(first), read("a"), tell(second), read("b")}, second, "b"},
		"made anew unseen, and read":  {[]func(*proofs){tell(first), read("a"), read("b")}, second, ""},
		"told often":                  {[]func(*proofs){tell(first), read("a"), tell(first), tell(first)}, first, "a"},
		"told while it is being read": {[]func(*proofs){func(p *proofs) { began := p.begin(); p.tell(v, first); _, _ = p.read(v, []byte("a"), began) }}, first, ""},
		"told anew while being read":  {[]func(*proofs){tell(first), func(p *proofs) { began := p.begin(); p.tell(v, second); _, _ = p.read(v, []byte("a"), began) }}, second, ""},
		"another number": {[]func(*proofs){func(p *proofs) {
			p.tell(numbered{v.secret, "2"}, first)
			_, _ = p.read(numbered{v.secret, "2"}, []byte("a"), p.begin())
		}}, first, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newProofs()
			for _, step := range tt.steps {
				step(p)
			}
			got, ok := p.tell(v, tt.at)
			want := ""
			if tt.want != "" {
				var err error
				if want, err = newProofs().read(v, []byte(tt.want), 0); err != nil {
					t.Fatal(err)
				}
			}
			if got != want || ok != (want != "") {
				t.Errorf("told %q, %t; want %q", got, ok, want)
			}
		})
	}
}

func TestProofs_Bounded(t *testing.T) {
	t.Parallel()
	p := newProofs()
	for i := range maxProofs + 10 {
		p.tell(numbered{"projects/p/secrets/web", fmt.Sprint(i)}, time.Unix(1000, 0))
	}
	if len(p.of) != maxProofs {
		t.Errorf("%d are remembered", len(p.of))
	}
}
