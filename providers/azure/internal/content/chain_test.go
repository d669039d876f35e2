package content

import (
	"crypto/x509"
	"slices"
	"strings"
	"testing"
)

// permutations calls f with each order of certificates.
func permutations(certificates []*x509.Certificate, f func([]*x509.Certificate)) {
	var place func(done, left []*x509.Certificate)
	place = func(done, left []*x509.Certificate) {
		if len(left) == 0 {
			f(done)
		}
		for i, c := range left {
			place(append(slices.Clone(done), c), slices.Delete(slices.Clone(left), i, i+1))
		}
	}
	place(nil, certificates)
}

func names(certificates []*x509.Certificate) string {
	var all []string
	for _, c := range certificates {
		name := c.Subject.CommonName
		if c.Issuer.CommonName == name {
			name += "(self)"
		}
		all = append(all, name)
	}
	return strings.Join(all, " ")
}

func TestChain(t *testing.T) {
	t.Parallel()
	root := issue(t, "root", nil, true)
	middle := issue(t, "middle", root, true)
	lower := issue(t, "lower", middle, true)
	leaf := issue(t, "leaf", lower, true)
	old := issue(t, "old", nil, true)
	stranger := issue(t, "stranger", nil, true)
	rootByOld := root.signed(t, old, true)
	oldByRoot := old.signed(t, root, true)
	leafAgain := leaf.signed(t, lower, true)
	// As above, but without identifiers, so that names count.
	bareRoot := issue(t, "root", nil, false)
	bareMiddle := issue(t, "middle", bareRoot, false)
	bareLeaf := issue(t, "leaf", bareMiddle, false)
	// Of the same name, but with another key than the leaf says.
	impostor := issue(t, "lower", middle, true)

	for name, tt := range map[string]struct {
		certificates []*x509.Certificate
		want         string // "" for what is no chain
	}{
		"leaf alone":            {[]*x509.Certificate{leaf.cert}, "leaf"},
		"signed by itself":      {[]*x509.Certificate{root.cert}, "root(self)"},
		"to the root":           {[]*x509.Certificate{leaf.cert, lower.cert, middle.cert, root.cert}, "leaf lower middle root(self)"},
		"without root":          {[]*x509.Certificate{leaf.cert, lower.cert, middle.cert}, "leaf lower middle"},
		"no identifiers":        {[]*x509.Certificate{bareLeaf.cert, bareMiddle.cert, bareRoot.cert}, "leaf middle root(self)"},
		"there twice":           {[]*x509.Certificate{leaf.cert, lower.cert, leaf.cert, lower.cert}, "leaf lower"},
		"cross-signed":          {[]*x509.Certificate{leaf.cert, lower.cert, middle.cert, rootByOld, old.cert}, "leaf lower middle root old(self)"},
		"cross-signed and own":  {[]*x509.Certificate{lower.cert, middle.cert, root.cert, rootByOld, old.cert}, "lower middle root root(self) old(self)"},
		"signed by each other":  {[]*x509.Certificate{middle.cert, rootByOld, oldByRoot}, "middle root old"},
		"intermediate missing":  {[]*x509.Certificate{leaf.cert, middle.cert, root.cert}, ""},
		"stranger":              {[]*x509.Certificate{leaf.cert, lower.cert, stranger.cert}, ""},
		"two leaves of one key": {[]*x509.Certificate{leaf.cert, leafAgain, lower.cert}, ""},
		"two of that name":      {[]*x509.Certificate{leaf.cert, lower.cert, impostor.cert}, ""},
		"twice and a stranger":  {[]*x509.Certificate{middle.cert, root.cert, rootByOld, stranger.cert}, ""},
		"issuer of that name":   {[]*x509.Certificate{leaf.cert, impostor.cert}, ""},
		"cycle and a stranger":  {[]*x509.Certificate{rootByOld, oldByRoot, stranger.cert}, ""},
		"cycle":                 {[]*x509.Certificate{rootByOld, oldByRoot}, ""},
		"none":                  {nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			permutations(tt.certificates, func(given []*x509.Certificate) {
				got, ok := chain(given)
				if ok != (tt.want != "") || names(got) != tt.want {
					t.Errorf("chain of %s = %q, %v, want %q", names(given), names(got), ok, tt.want)
				}
			})
		})
	}
}

// Two issuers that share a key leave two ways to go.
func TestChainOfTwoIssuers(t *testing.T) {
	t.Parallel()
	two := issue(t, "two", nil, true)
	one := &party{name: "one", key: two.key}
	leaf := issue(t, "leaf", two, true)
	for _, issuer := range []*party{one, two} {
		if one.cert = one.signed(t, two, true); issuer == one {
			one.cert = one.signed(t, one, true)
		}
		permutations([]*x509.Certificate{leaf.cert, one.cert, two.cert}, func(given []*x509.Certificate) {
			if got, ok := chain(given); ok {
				t.Errorf("chain of %s = %s", names(given), names(got))
			}
		})
	}
}

// Where one of the identifiers is not there, names count.
func TestIssued(t *testing.T) {
	t.Parallel()
	name, other := []byte("name"), []byte("other")
	for _, tt := range []struct {
		issuer, c x509.Certificate
		want      bool
	}{
		{x509.Certificate{RawSubject: name, SubjectKeyId: name}, x509.Certificate{RawIssuer: other, AuthorityKeyId: name}, true},
		{x509.Certificate{RawSubject: name, SubjectKeyId: name}, x509.Certificate{RawIssuer: name, AuthorityKeyId: other}, false},
		{x509.Certificate{RawSubject: name, SubjectKeyId: name}, x509.Certificate{RawIssuer: name}, true},
		{x509.Certificate{RawSubject: name}, x509.Certificate{RawIssuer: name, AuthorityKeyId: other}, true},
		{x509.Certificate{RawSubject: name}, x509.Certificate{RawIssuer: other, AuthorityKeyId: other}, false},
		{x509.Certificate{RawSubject: name}, x509.Certificate{RawIssuer: other}, false},
	} {
		if got := issued(&tt.issuer, &tt.c); got != tt.want {
			t.Errorf("%s, %s: %v", tt.issuer.RawSubject, tt.c.RawIssuer, got)
		}
	}
}

// Of two pairs that signed each other, the leaf's leads round and round, and must not
// be counted for the other.
func TestChainOfTwoCycles(t *testing.T) {
	t.Parallel()
	pair := func(a, b string) []*x509.Certificate {
		x, y := issue(t, a, nil, true), issue(t, b, nil, true)
		return []*x509.Certificate{x.signed(t, y, true), y.signed(t, x, true)}
	}
	first := pair("a", "b")
	x := &party{name: "leaf", key: newKey(t)}
	issuer := issue(t, "c", nil, true)
	x.cert = x.signed(t, issuer, true)
	other := issue(t, "d", nil, true)
	all := append(first, x.cert, issuer.signed(t, other, true), other.signed(t, issuer, true))
	permutations(all, func(given []*x509.Certificate) {
		if got, ok := chain(given); ok {
			t.Errorf("chain of %s = %s", names(given), names(got))
		}
	})
}
