package content

import (
	"crypto"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"

	"software.sslmate.com/src/go-pkcs12"
)

// maxPFX is how long a PFX may be as text. The vault's own bound of a secret is a
// tenth of that.
const maxPFX = 256 << 10

// maxParts is how many parts of a PFX the library decodes: one of keys and one of
// certificates.
const maxParts = 2

// bundle is what a PFX holds.
type bundle struct {
	// key is nil if there is none: the vault does not give every key away.
	key          crypto.PrivateKey
	certificates []*x509.Certificate
}

// decodePFX decodes a PFX as the vault has it: in base64, with an empty password.
func decodePFX(text []byte) (bundle, error) {
	if len(text) > maxPFX {
		return bundle{}, fmt.Errorf("its PFX is longer than %d bytes", maxPFX)
	}
	der := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	n, err := base64.StdEncoding.Decode(der, text)
	if err != nil {
		return bundle{}, errors.New("its PFX is not base64")
	}
	parts, err := readParts(der[:n])
	if err != nil {
		return bundle{}, err
	}
	key, leaf, others, err := pkcs12.DecodeChain(der[:n], "")
	if err == nil {
		return bundle{key: key, certificates: append([]*x509.Certificate{leaf}, others...)}, nil
	}
	if !locked(err) {
		if certificates := keyless(parts); len(certificates) > 0 {
			return bundle{certificates: certificates}, nil
		}
	}
	return bundle{}, pfxError(err)
}

// locked reports whether a password is the problem.
func locked(err error) bool {
	return errors.Is(err, pkcs12.ErrIncorrectPassword) || errors.Is(err, pkcs12.ErrDecryption)
}

// pfxError returns an error without what the library quotes of the contents.
func pfxError(err error) error {
	var unknown pkcs12.NotImplementedError
	switch {
	case locked(err):
		return errors.New("its PFX has a password: the vault's own have none")
	case errors.As(err, &unknown):
		return fmt.Errorf("its PFX has a form that is not supported: %.200s", unknown.Error())
	default:
		return errors.New("its PFX cannot be decoded: it must hold one private key, if any, and certificates")
	}
}

// pem returns the key in PKCS #8, and the certificates.
func (b bundle) pem() (split, error) {
	var s split
	if b.key != nil {
		der, err := x509.MarshalPKCS8PrivateKey(b.key)
		if err != nil {
			return split{}, errors.New("its key has a form that is not supported")
		}
		s.key = pem.EncodeToMemory(&pem.Block{Type: blockPrivateKey, Bytes: der})
	}
	for _, c := range b.certificates {
		s.certificates = append(s.certificates, pem.EncodeToMemory(&pem.Block{Type: blockCertificate, Bytes: c.Raw})...)
	}
	return s, nil
}

// keyless returns the certificates of a PFX without a key, none if it is not one. The
// library decodes only what has a key, so each part gets one. It comes first, so that
// a part with a key of its own is refused before that is decrypted.
func keyless(parts []contentInfo) []*x509.Certificate {
	if len(parts) > maxParts {
		return nil
	}
	var certificates []*x509.Certificate
	for _, part := range parts {
		der, err := withKey(part)
		if err != nil {
			return nil
		}
		_, first, others, err := pkcs12.DecodeChain(der, "")
		if err != nil {
			return nil
		}
		certificates = append(append(certificates, first), others...)
	}
	return certificates
}

// withKey returns a PFX of a part and of a key that means nothing.
func withKey(part contentInfo) ([]byte, error) {
	key, err := x509.MarshalPKCS8PrivateKey(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
	if err != nil {
		return nil, err
	}
	bags, err := asn1.Marshal([]safeBag{{ID: oidKeyBag(), Value: explicit(key)}})
	if err != nil {
		return nil, err
	}
	keyPart, err := dataOf(bags)
	if err != nil {
		return nil, err
	}
	safe, err := asn1.Marshal([]contentInfo{keyPart, part})
	if err != nil {
		return nil, err
	}
	content, err := dataOf(safe)
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(struct {
		Version int
		Content contentInfo
	}{pfxVersion, content})
}
