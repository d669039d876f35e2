package content

import (
	"bytes"
	"crypto/x509"
	"slices"
)

// authority is a subject with its key, and its certificates: more than one if it is
// cross-signed, that is, several others vouch for it.
type authority struct {
	certificates []*x509.Certificate
	// issuer is who signed them, nil if that is not known, or itself.
	issuer *authority
	// issues says that it is the issuer of another.
	issues bool
}

// chain puts certificates in an order in which each is before the one that signed it,
// and leaves out what is there twice. It reports false if they are not one chain: if
// one is missing between two others, or has nothing to do with them.
func chain(certificates []*x509.Certificate) ([]*x509.Certificate, bool) {
	authorities := group(certificates)
	for _, a := range authorities {
		if !a.link(authorities) {
			return nil, false
		}
	}
	var leaf *authority
	for _, a := range authorities {
		if !a.issues {
			leaf = a // if there is a second one, it is not placed below
		}
	}
	if leaf == nil || len(leaf.certificates) > 1 {
		return nil, false
	}
	var ordered []*x509.Certificate
	placed := make(map[*authority]bool, len(authorities))
	for a := leaf; a != nil && !placed[a]; a = a.issuer { // two may have signed each other
		ordered = append(ordered, a.certificates...)
		placed[a] = true
	}
	if len(placed) < len(authorities) {
		return nil, false
	}
	return ordered, true
}

// group returns the subjects of certificates. Of one subject's, those that it signed
// itself are last: they lead nowhere.
func group(certificates []*x509.Certificate) []*authority {
	bySubject := make(map[string]*authority)
	var authorities []*authority
	for _, c := range certificates {
		id := string(c.RawSubject) + string(c.RawSubjectPublicKeyInfo)
		a := bySubject[id]
		if a == nil {
			a = new(authority)
			bySubject[id] = a
			authorities = append(authorities, a)
		}
		if !slices.ContainsFunc(a.certificates, c.Equal) {
			a.certificates = append(a.certificates, c)
		}
	}
	for _, a := range authorities {
		slices.SortStableFunc(a.certificates, func(x, y *x509.Certificate) int {
			switch self := selfSigned(x); {
			case self == selfSigned(y):
				return 0
			case self:
				return 1
			default:
				return -1
			}
		})
	}
	return authorities
}

func selfSigned(c *x509.Certificate) bool { return bytes.Equal(c.RawIssuer, c.RawSubject) }

// link looks for the issuer, and reports false if there are two.
func (a *authority) link(all []*authority) bool {
	for _, other := range all {
		switch {
		case other == a || !a.signedBy(other):
		case a.issuer != nil:
			return false
		default:
			a.issuer, other.issues = other, true
		}
	}
	return true
}

func (a *authority) signedBy(other *authority) bool {
	for _, c := range a.certificates {
		for _, issuer := range other.certificates {
			if issued(issuer, c) {
				return true
			}
		}
	}
	return false
}

// issued reports whether a certificate is the issuer of another, as the identifiers
// of their keys say, or else their names.
func issued(issuer, c *x509.Certificate) bool {
	if len(c.AuthorityKeyId) > 0 && len(issuer.SubjectKeyId) > 0 {
		return bytes.Equal(c.AuthorityKeyId, issuer.SubjectKeyId)
	}
	return bytes.Equal(c.RawIssuer, issuer.RawSubject)
}
