package secretdata

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // PKCS#12 says so, and it protects nothing here
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"

	"software.sslmate.com/src/go-pkcs12"

	"github.com/postern-dev/postern/internal/redact"
)

// maxIterations is how much work a PFX may ask for to derive a key. Tools write
// some thousands. The decoder has no limit of its own, and one number in a file
// could keep it busy for years.
const maxIterations = 600_000

const pfxVersion = 3

// openPFX returns the certificates and the private key of a PKCS#12 file (PFX)
// with an empty password, binary or in base64.
func openPFX(data []byte) ([]block, error) {
	der, owned := pfxDER(data)
	if owned {
		defer clear(der)
	}
	var outer pfx
	if err := unmarshal(der, &outer); err != nil || outer.Version != pfxVersion || outer.AuthSafe.ContentType.String() != oidData {
		return nil, errors.New("is neither PEM nor a PKCS#12 file (PFX): convert it to PEM" + asIs)
	}
	safe, err := boundedSafe(outer.AuthSafe)
	if err != nil {
		return nil, err
	}
	defer clear(safe)
	// The empty password is written in two ways. Without a MAC the decoder takes
	// the one, with this MAC the other.
	plain := pfx{Version: pfxVersion, AuthSafe: contentInfo{ContentType: outer.AuthSafe.ContentType, Content: wrap(safe)}}
	blocks, err := decodePFX(plain)
	if err != nil {
		plain.MacData = macOfNoPassword(safe)
		blocks, err = decodePFX(plain)
	}
	return blocks, err
}

// pfxDER undoes base64, if there is any, which the second result tells.
func pfxDER(data []byte) ([]byte, bool) {
	const sequence, longForm = 0x30, 0x80 // no PFX is so short that it has another
	if len(data) > 1 && data[0] == sequence && data[1] >= longForm {
		return data, false
	}
	text := bytes.TrimSpace(data) // the decoder skips line breaks
	der := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	n, err := base64.StdEncoding.Decode(der, text)
	if err != nil {
		n = 0
	}
	return der[:n], true
}

// boundedSafe returns the authenticated safe of a PFX in a form that costs
// little to decode, whoever made it: each derivation of a key that can be seen is
// checked, and the part with the private key comes first. If another one is
// hidden in an encrypted part, the decoder finds that it is the second key, and
// does not derive anything for it.
func boundedSafe(from contentInfo) ([]byte, error) {
	var content []byte
	var parts, withKey, others []asn1.RawValue
	if unmarshal(from.Content.Bytes, &content) != nil || unmarshal(content, &parts) != nil {
		return nil, errDamagedPFX
	}
	defer clear(content)
	for _, part := range parts {
		hasKey, err := checkPart(part)
		switch {
		case err != nil:
			return nil, err
		case hasKey:
			withKey = append(withKey, part)
		default:
			others = append(others, part)
		}
	}
	if len(withKey) != 1 {
		return nil, fmt.Errorf("is a PKCS#12 file with %d parts that have a private key in plain sight, and must have one: convert it to PEM", len(withKey))
	}
	return asn1.Marshal(slices.Concat(withKey, others))
}

// checkPart checks what it costs to decode a part of the authenticated safe, and
// tells whether it has a private key.
func checkPart(part asn1.RawValue) (hasKey bool, err error) {
	var info contentInfo
	if err := unmarshal(part.FullBytes, &info); err != nil {
		return false, errDamagedPFX
	}
	if info.ContentType.String() == oidEncryptedData {
		var encrypted encryptedData
		if err := unmarshal(info.Content.Bytes, &encrypted); err != nil {
			return false, errDamagedPFX
		}
		return false, checkCost(encrypted.Content.Algorithm)
	}
	var content []byte
	var bags []safeBag
	if unmarshal(info.Content.Bytes, &content) != nil || unmarshal(content, &bags) != nil {
		return false, errDamagedPFX
	}
	defer clear(content)
	for _, bag := range bags {
		if bag.ID.String() == oidShroudedKeyBag {
			var key encryptedKey
			if err := unmarshal(bag.Value.Bytes, &key); err != nil {
				return false, errDamagedPFX
			}
			if err := checkCost(key.Algorithm); err != nil {
				return false, err
			}
		}
		hasKey = hasKey || bag.ID.String() == oidShroudedKeyBag || bag.ID.String() == oidKeyBag
	}
	return hasKey, nil
}

// checkCost reads the count of iterations of an encryption with a password.
func checkCost(algorithm pkix.AlgorithmIdentifier) error {
	derivation := algorithm
	if algorithm.Algorithm.String() == oidPBES2 {
		var parameters struct{ Derivation, Encryption pkix.AlgorithmIdentifier }
		if err := unmarshal(algorithm.Parameters.FullBytes, &parameters); err != nil {
			return errDamagedPFX
		}
		derivation = parameters.Derivation
	}
	var cost struct {
		Salt       asn1.RawValue
		Iterations int
	}
	if err := unmarshal(derivation.Parameters.FullBytes, &cost); err != nil {
		return errDamagedPFX
	}
	if cost.Iterations > maxIterations {
		return fmt.Errorf("is a PKCS#12 file that asks for %d iterations, and may ask for %d: make it with fewer, or as PEM", cost.Iterations, maxIterations)
	}
	return nil
}

// wrap makes an authenticated safe the content of a PFX.
func wrap(safe []byte) asn1.RawValue {
	encoded, _ := asn1.Marshal(safe) // bytes are encoded without an error
	return asn1.RawValue{Class: asn1.ClassContextSpecific, IsCompound: true, Bytes: encoded}
}

// macOfNoPassword is the MAC of one who takes "no password" to be no bytes at
// all, rather than an empty text with its end (RFC 7292, appendix B), with the
// least salt and work. It protects nothing; it tells the decoder which it is.
func macOfNoPassword(safe []byte) asn1.RawValue {
	const purpose, blockSize = 3, sha1.BlockSize
	material := slices.Concat(bytes.Repeat([]byte{purpose}, blockSize), make([]byte, blockSize))
	key := sha1.Sum(material) //nolint:gosec // see the import
	mac := hmac.New(sha1.New, key[:])
	mac.Write(safe)
	encoded, _ := asn1.Marshal(macData{ // of these types there is no error
		Digest: digestInfo{
			Algorithm: pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}}, // SHA-1
			Digest:    mac.Sum(nil),
		},
		Salt: make([]byte, 1),
	})
	return asn1.RawValue{FullBytes: encoded}
}

func decodePFX(p pfx) ([]block, error) {
	der, err := asn1.Marshal(p)
	if err != nil {
		return nil, errDamagedPFX
	}
	defer clear(der)
	key, certificate, authorities, err := pkcs12.DecodeChain(der, "")
	var unsupported pkcs12.NotImplementedError
	switch {
	case errors.As(err, &unsupported):
		return nil, fmt.Errorf("is a PKCS#12 file of a kind that is not supported (%s): convert it to PEM", string(unsupported))
	case err != nil:
		return nil, errors.New("is a PKCS#12 file that cannot be read with an empty password: store it without a password, or as PEM")
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, errors.New("is a PKCS#12 file with a private key that cannot be used: convert it to PEM")
	}
	blocks := []block{{label: labelPKCS8, der: redact.NewBytes(encoded)}}
	for _, c := range append([]*x509.Certificate{certificate}, authorities...) {
		blocks = append(blocks, block{label: labelCertificate, der: redact.NewBytes(c.Raw)})
	}
	return blocks, nil
}
