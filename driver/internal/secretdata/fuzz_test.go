package secretdata_test

import (
	"crypto/tls"
	"encoding/base64"
	"testing"

	"software.sslmate.com/src/go-pkcs12"
)

// Whatever a store returns for a certificate: it becomes a pair that a server
// can use, or an error; and it takes no time to speak of.
func FuzzBuild_TLS(f *testing.F) {
	key := newEd25519(f)
	p := newPKI(f, key)
	keyText := block("PRIVATE KEY", pkcs8(f, key))
	f.Add([]byte(keyText + certificates(p.leaf, p.intermediate)))
	f.Add([]byte(certificates(p.root, p.leaf) + block("EC PARAMETERS", []byte{6, 1, 1}) + keyText))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\n"))
	f.Add([]byte{0x30, 0x80})
	for _, encoder := range []*pkcs12.Encoder{pkcs12.LegacyRC2, pkcs12.LegacyDES, pkcs12.Modern2023, pkcs12.Passwordless} {
		binary, err := encoder.Encode(key, p.leaf, nil, "")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(binary)
		f.Add([]byte(base64.StdEncoding.EncodeToString(binary)))
	}
	with := legacy(nil, 3)
	f.Add([]byte(craft(f, craftedMAC(f, 2), encryptedPart(f, with, certBag(f, p.leaf)), plainPart(f, shroudedBag(f, pkcs8(f, key), with)))))
	f.Fuzz(func(t *testing.T, contents []byte) {
		text := string(contents)
		secret, err := buildPFX(text)
		if err != nil {
			return
		}
		if _, err := tls.X509KeyPair(secret.Data["tls.crt"].Reveal(), secret.Data["tls.key"].Reveal()); err != nil {
			t.Errorf("made a pair that a server cannot use: %v", err)
		}
	})
}
