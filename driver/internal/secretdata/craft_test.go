package secretdata_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"slices"
	"testing"
)

// What follows writes PKCS#12 files (RFC 7292) that no tool writes: with any
// count of iterations, with a key where none belongs, or for no password at all
// rather than an empty one.

type (
	craftedInfo struct {
		ContentType asn1.ObjectIdentifier
		Content     asn1.RawValue
	}
	craftedBag struct {
		ID    asn1.ObjectIdentifier
		Value asn1.RawValue
	}
	craftedKey struct {
		Algorithm pkix.AlgorithmIdentifier
		Encrypted []byte
	}
	// cryptor encrypts, and says how.
	cryptor func(t testing.TB, plain []byte) (pkix.AlgorithmIdentifier, []byte)
)

func pkcs12OID(rest ...int) asn1.ObjectIdentifier {
	return append(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12}, rest...)
}

func der(t testing.TB, value any) []byte {
	t.Helper()
	encoded, err := asn1.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return encoded
}

func explicit(content []byte) asn1.RawValue {
	return asn1.RawValue{Class: asn1.ClassContextSpecific, IsCompound: true, Bytes: content}
}

func raw(encoded []byte) asn1.RawValue { return asn1.RawValue{FullBytes: encoded} }

func certBag(t testing.TB, certificate *x509.Certificate) craftedBag {
	t.Helper()
	content := der(t, struct {
		Kind        asn1.ObjectIdentifier
		Certificate asn1.RawValue
	}{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 22, 1}, explicit(der(t, certificate.Raw))})
	return craftedBag{pkcs12OID(10, 1, 3), explicit(content)}
}

func shroudedBag(t testing.TB, key []byte, with cryptor) craftedBag {
	t.Helper()
	algorithm, encrypted := with(t, key)
	return craftedBag{pkcs12OID(10, 1, 2), explicit(der(t, craftedKey{algorithm, encrypted}))}
}

func plainPart(t testing.TB, bags ...craftedBag) craftedInfo {
	t.Helper()
	return craftedInfo{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}, explicit(der(t, der(t, bags)))}
}

func encryptedPart(t testing.TB, with cryptor, bags ...craftedBag) craftedInfo {
	t.Helper()
	algorithm, encrypted := with(t, der(t, bags))
	content := der(t, struct {
		Version int
		Content struct {
			ContentType asn1.ObjectIdentifier
			Algorithm   pkix.AlgorithmIdentifier
			Encrypted   []byte `asn1:"tag:0"`
		}
	}{0, struct {
		ContentType asn1.ObjectIdentifier
		Algorithm   pkix.AlgorithmIdentifier
		Encrypted   []byte `asn1:"tag:0"`
	}{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}, algorithm, encrypted}})
	return craftedInfo{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 6}, explicit(content)}
}

// craft joins parts into a file. mac, if any, is its MacData.
func craft(t testing.TB, mac []byte, parts ...craftedInfo) string {
	t.Helper()
	outer := struct {
		Version int
		Safe    craftedInfo
		Mac     asn1.RawValue `asn1:"optional"`
	}{Version: 3, Safe: craftedInfo{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}, explicit(der(t, der(t, parts)))}}
	if mac != nil {
		outer.Mac = raw(mac)
	}
	return string(der(t, outer))
}

// craftedMAC asks for work, and fits nothing.
func craftedMAC(t testing.TB, iterations int) []byte {
	t.Helper()
	return der(t, struct {
		Digest struct {
			Algorithm pkix.AlgorithmIdentifier
			Digest    []byte
		}
		Salt       []byte
		Iterations int
	}{struct {
		Algorithm pkix.AlgorithmIdentifier
		Digest    []byte
	}{pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}}, make([]byte, 20)}, make([]byte, 8), iterations})
}

// modern encrypts with AES-256 and the empty password (PBES2). It tells of more
// iterations than it does, so that the test need not do them.
func modern(says int) cryptor {
	return func(t testing.TB, plain []byte) (pkix.AlgorithmIdentifier, []byte) {
		t.Helper()
		salt, iv := make([]byte, 8), make([]byte, aes.BlockSize)
		key, err := pbkdf2.Key(sha256.New, "", salt, min(says, 2048), 32)
		if err != nil {
			t.Fatal(err)
		}
		cipherBlock, err := aes.NewCipher(key)
		if err != nil {
			t.Fatal(err)
		}
		rsadsi := asn1.ObjectIdentifier{1, 2, 840, 113549}
		derivation := pkix.AlgorithmIdentifier{Algorithm: append(slices.Clone(rsadsi), 1, 5, 12), Parameters: raw(der(t, struct {
			Salt       []byte
			Iterations int
			PRF        pkix.AlgorithmIdentifier
		}{salt, says, pkix.AlgorithmIdentifier{Algorithm: append(slices.Clone(rsadsi), 2, 9)}}))}
		encryption := pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 42}, Parameters: raw(der(t, iv))}
		parameters := der(t, struct{ Derivation, Encryption pkix.AlgorithmIdentifier }{derivation, encryption})
		return pkix.AlgorithmIdentifier{Algorithm: append(slices.Clone(rsadsi), 1, 5, 13), Parameters: raw(parameters)},
			encrypt(cipher.NewCBCEncrypter(cipherBlock, iv), plain)
	}
}

// legacy encrypts with triple DES and a key of this password, whose bytes are as
// PKCS#12 takes them: two zero bytes are the empty text, none is no password.
func legacy(password []byte, says int) cryptor {
	return func(t testing.TB, plain []byte) (pkix.AlgorithmIdentifier, []byte) {
		t.Helper()
		salt := []byte("saltsalt")
		key, iv := deriveLegacy(1, salt, password, min(says, 2048), 24), deriveLegacy(2, salt, password, min(says, 2048), 8)
		cipherBlock, err := des.NewTripleDESCipher(key)
		if err != nil {
			t.Fatal(err)
		}
		parameters := der(t, struct {
			Salt       []byte
			Iterations int
		}{salt, says})
		return pkix.AlgorithmIdentifier{Algorithm: pkcs12OID(1, 3), Parameters: raw(parameters)},
			encrypt(cipher.NewCBCEncrypter(cipherBlock, iv), plain)
	}
}

func encrypt(mode cipher.BlockMode, plain []byte) []byte {
	padding := mode.BlockSize() - len(plain)%mode.BlockSize()
	padded := append(slices.Clone(plain), bytes.Repeat([]byte{byte(padding)}, padding)...)
	mode.CryptBlocks(padded, padded)
	return padded
}

// deriveLegacy is the derivation of keys of RFC 7292, appendix B.2, with SHA-1.
func deriveLegacy(purpose byte, salt, password []byte, iterations, size int) []byte {
	const width = sha1.BlockSize
	fill := func(from []byte) []byte {
		if len(from) == 0 {
			return nil
		}
		whole := (len(from) + width - 1) / width * width
		return bytes.Repeat(from, whole/len(from)+1)[:whole]
	}
	material := append(fill(salt), fill(password)...)
	var key []byte
	for len(key) < size {
		sum := sha1.Sum(append(bytes.Repeat([]byte{purpose}, width), material...))
		for range iterations - 1 {
			sum = sha1.Sum(sum[:])
		}
		key = append(key, sum[:]...)
		addend := fill(sum[:])
		for start := 0; start < len(material); start += width {
			carry := 1
			for i := width - 1; i >= 0; i-- {
				carry += int(material[start+i]) + int(addend[i])
				material[start+i] = byte(carry)
				carry >>= 8
			}
		}
	}
	return key[:size]
}
