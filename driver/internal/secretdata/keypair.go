package secretdata

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	"github.com/postern-dev/postern/internal/redact"
)

// certificates are those of the bundle, each once, in their order.
func (b *bundle) certificates() ([]*x509.Certificate, error) {
	var certificates []*x509.Certificate
	for _, block := range b.blocks {
		if block.label != labelCertificate {
			continue
		}
		certificate, err := x509.ParseCertificate(block.der.Reveal())
		if err != nil {
			return nil, fmt.Errorf("has a certificate, the one after %d others, that cannot be read"+asIs, len(certificates))
		}
		if !slices.ContainsFunc(certificates, certificate.Equal) {
			certificates = append(certificates, certificate)
		}
	}
	if len(certificates) == 0 {
		return nil, errors.New("has no certificate: it must hold PEM blocks CERTIFICATE, or be a PKCS#12 file (PFX)")
	}
	return certificates, nil
}

func encodeCertificates(certificates []*x509.Certificate) redact.Bytes {
	ders := make([][]byte, len(certificates))
	for i, certificate := range certificates {
		ders[i] = certificate.Raw
	}
	return encodePEM(labelCertificate, ders...)
}

// privateKey is a private key in the encoding that it was found in.
type privateKey struct {
	label  string // that of its encoding, whatever it was called
	der    redact.Bytes
	public interface{ Equal(crypto.PublicKey) bool }
}

// privateKey is the one of the bundle.
func (b *bundle) privateKey() (*privateKey, error) {
	var keys []block
	for _, block := range b.blocks {
		if block.label != labelCertificate {
			keys = append(keys, block)
		}
	}
	switch {
	case len(keys) == 0:
		return nil, errors.New("has no private key: it must hold a PEM block PRIVATE KEY, or be a PKCS#12 file (PFX)")
	case len(keys) > 1:
		return nil, fmt.Errorf("has %d private keys: keep the one that belongs to the certificate", len(keys))
	case keys[0].encrypted:
		return nil, errors.New("has a private key that is encrypted: store it without a passphrase" + asIs)
	}
	return parsePrivateKey(keys[0])
}

// parsePrivateKey goes by what the key is: there are tools that mislabel it.
func parsePrivateKey(b block) (*privateKey, error) {
	der := b.der.Reveal()
	if key, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		switch key := key.(type) {
		case *rsa.PrivateKey:
			return &privateKey{label: labelPKCS8, der: b.der, public: &key.PublicKey}, nil
		case *ecdsa.PrivateKey:
			return &privateKey{label: labelPKCS8, der: b.der, public: &key.PublicKey}, nil
		case ed25519.PrivateKey:
			return &privateKey{label: labelPKCS8, der: b.der, public: ed25519.PublicKey(key[ed25519.SeedSize:])}, nil
		}
	}
	if key, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return &privateKey{label: labelPKCS1, der: b.der, public: &key.PublicKey}, nil
	}
	if key, err := x509.ParseECPrivateKey(der); err == nil {
		return &privateKey{label: labelSEC1, der: b.der, public: &key.PublicKey}, nil
	}
	return nil, fmt.Errorf("has a block %.40q that is no private key that can be used: "+
		"it must be RSA, ECDSA (P-224 to P-521) or Ed25519, in PKCS#8, PKCS#1 or SEC1"+asIs, b.label)
}

func (k *privateKey) encode() redact.Bytes { return encodePEM(k.label, k.der.Reveal()) }

// chain puts the key's certificate first, then its issuer, and so on. All
// others follow in their order.
func (k *privateKey) chain(certificates []*x509.Certificate) ([]*x509.Certificate, error) {
	leaf, err := k.leaf(certificates)
	if err != nil {
		return nil, err
	}
	rest := slices.Delete(slices.Clone(certificates), leaf, leaf+1)
	chain := []*x509.Certificate{certificates[leaf]}
	for last := chain[0]; ; last = chain[len(chain)-1] {
		i := slices.IndexFunc(rest, func(candidate *x509.Certificate) bool { return issued(candidate, last) })
		if i < 0 {
			return append(chain, rest...), nil
		}
		chain = append(chain, rest[i])
		rest = slices.Delete(rest, i, i+1)
	}
}

// leaf finds the key's certificate. Of several the one that is first of all is
// meant; else nobody knows.
func (k *privateKey) leaf(certificates []*x509.Certificate) (int, error) {
	fits := func(certificate *x509.Certificate) bool { return k.public.Equal(certificate.PublicKey) }
	leaf := slices.IndexFunc(certificates, fits)
	switch {
	case leaf < 0:
		return 0, fmt.Errorf("none of its %d certificates is for that key; if they were just renewed, the next refresh has both", len(certificates))
	case leaf > 0 && slices.ContainsFunc(certificates[leaf+1:], fits):
		return 0, errors.New("several of its certificates are for that key: put the one to serve first")
	}
	return leaf, nil
}

// issued goes by names and key ids, as servers and clients do when they build a
// chain. It is about order only: nothing is trusted for it.
func issued(issuer, certificate *x509.Certificate) bool {
	if !bytes.Equal(certificate.RawIssuer, issuer.RawSubject) {
		return false
	}
	return len(certificate.AuthorityKeyId) == 0 || len(issuer.SubjectKeyId) == 0 ||
		bytes.Equal(certificate.AuthorityKeyId, issuer.SubjectKeyId)
}
