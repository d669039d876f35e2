package content

import (
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
)

// The outer structures of PKCS #12 (RFC 7292), as far as they can be seen without the
// password.

// pfxVersion is the only one that there is.
const pfxVersion = 3

// maxIterations is how often a PFX may have a password hashed. Each takes a
// fraction of a microsecond, and without a bound a PFX of some bytes would keep a
// processor for years. Programs write some thousands.
const maxIterations = 1_000_000

// maxDepth is more than how deep these structures are nested.
const maxDepth = 20

func oidData() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1} }

func oidKeyBag() asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 10, 1, 1}
}

type contentInfo struct {
	Type    asn1.ObjectIdentifier
	Content asn1.RawValue `asn1:"tag:0,explicit,optional"`
}

type safeBag struct {
	ID    asn1.ObjectIdentifier
	Value asn1.RawValue
}

// explicit wraps DER in the tag [0].
func explicit(der []byte) asn1.RawValue {
	return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: der}
}

// dataOf returns DER as content that is not encrypted.
func dataOf(der []byte) (contentInfo, error) {
	octets, err := asn1.Marshal(der)
	return contentInfo{Type: oidData(), Content: explicit(octets)}, err
}

var errNoPFX = errors.New("its PFX cannot be decoded: it is damaged, or no PFX")

// readParts returns the parts of a PFX, and refuses one that takes too long to
// decode. What is inside of an encrypted part is not seen: programs encrypt a key by
// itself, and in no encrypted part.
func readParts(der []byte) ([]contentInfo, error) {
	var pfx struct {
		Version int
		Content contentInfo
		MAC     asn1.RawValue `asn1:"optional"`
	}
	if rest, err := asn1.Unmarshal(der, &pfx); err != nil || len(rest) > 0 || pfx.Version != pfxVersion {
		return nil, errNoPFX
	}
	if err := checkNumbers(pfx.MAC.FullBytes, maxDepth); err != nil {
		return nil, err
	}
	var safe []byte
	var parts []contentInfo
	if _, err := asn1.Unmarshal(pfx.Content.Content.Bytes, &safe); err != nil {
		return nil, errNoPFX
	}
	if _, err := asn1.Unmarshal(safe, &parts); err != nil {
		return nil, errNoPFX
	}
	for _, part := range parts {
		visible := part.Content.Bytes
		if part.Type.Equal(oidData()) {
			if _, err := asn1.Unmarshal(part.Content.Bytes, &visible); err != nil {
				return nil, errNoPFX
			}
		}
		if err := checkNumbers(visible, maxDepth); err != nil {
			return nil, err
		}
	}
	return parts, nil
}

// checkNumbers refuses what holds a number greater than [maxIterations]. Where a
// password is hashed, and outside of keys and certificates, which are in octets,
// numbers are versions, lengths and counts.
func checkNumbers(der []byte, depth int) error {
	if depth == 0 {
		return errNoPFX
	}
	for len(der) > 0 {
		var value asn1.RawValue
		rest, err := asn1.Unmarshal(der, &value)
		if err != nil {
			return errNoPFX
		}
		der = rest
		switch {
		case value.IsCompound:
			if err := checkNumbers(value.Bytes, depth-1); err != nil {
				return err
			}
		case value.Class == asn1.ClassUniversal && value.Tag == asn1.TagInteger:
			if new(big.Int).SetBytes(value.Bytes).Cmp(big.NewInt(maxIterations)) > 0 {
				return fmt.Errorf("its PFX has a password hashed more than %d times", maxIterations)
			}
		}
	}
	return nil
}
