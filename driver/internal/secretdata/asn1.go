package secretdata

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
)

// Object identifiers, as texts, since the type of such is a slice.
const (
	oidData           = "1.2.840.113549.1.7.1"
	oidEncryptedData  = "1.2.840.113549.1.7.6"
	oidPBES2          = "1.2.840.113549.1.5.13"
	oidKeyBag         = "1.2.840.113549.1.12.10.1.1"
	oidShroudedKeyBag = "1.2.840.113549.1.12.10.1.2"
)

var errDamagedPFX = errors.New("is a PKCS#12 file that is damaged: store it again, or as PEM")

// The parts of a PFX (RFC 7292) that are looked at before it is decoded. They
// are read as the decoder reads them, so that both see the same.
type (
	pfx struct {
		Version  int
		AuthSafe contentInfo
		MacData  asn1.RawValue `asn1:"optional"`
	}
	contentInfo struct {
		ContentType asn1.ObjectIdentifier
		Content     asn1.RawValue `asn1:"tag:0,explicit,optional"`
	}
	encryptedData struct {
		Version int
		Content struct {
			ContentType asn1.ObjectIdentifier
			Algorithm   pkix.AlgorithmIdentifier
			Encrypted   []byte `asn1:"tag:0,optional"`
		}
	}
	safeBag struct {
		ID         asn1.ObjectIdentifier
		Value      asn1.RawValue `asn1:"tag:0,explicit"`
		Attributes asn1.RawValue `asn1:"optional"`
	}
	encryptedKey struct {
		Algorithm pkix.AlgorithmIdentifier
		Encrypted []byte
	}
	macData struct {
		Digest digestInfo
		Salt   []byte
	}
	digestInfo struct {
		Algorithm pkix.AlgorithmIdentifier
		Digest    []byte
	}
)

// unmarshal decodes all of der.
func unmarshal(der []byte, into any) error {
	rest, err := asn1.Unmarshal(der, into)
	if err == nil && len(rest) > 0 {
		return errDamagedPFX
	}
	return err
}
