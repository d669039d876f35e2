package secretdata_test

import (
	"crypto/ecdh"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"strings"
	"testing"

	apiv1 "github.com/postern-dev/postern/driver/api/v1"
	"github.com/postern-dev/postern/driver/internal/secretdata"
)

const typeTLS = "kubernetes.io/tls"

// buildTLS makes a TLS Secret of one file for the certificate and one for the key.
func buildTLS(certificate, key string) (secretdata.Secret, error) {
	return secretdata.Build(object(typeTLS, "cert", "tls.crt", "key", "tls.key"),
		[]secretdata.File{file("cert", certificate), file("key", key)})
}

// names are the subjects of a text's certificates. Other blocks fail the test.
func names(t *testing.T, text []byte) []string {
	t.Helper()
	var subjects []string
	for len(text) > 0 {
		decoded, rest := pem.Decode(text)
		if decoded == nil || decoded.Type != "CERTIFICATE" {
			t.Fatalf("not only certificates: %q", text)
		}
		certificate, err := x509.ParseCertificate(decoded.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		subjects = append(subjects, certificate.Subject.CommonName)
		text = rest
	}
	return subjects
}

func checkPair(t *testing.T, secret secretdata.Secret, wantNames ...string) {
	t.Helper()
	certificate, key := secret.Data["tls.crt"].Reveal(), secret.Data["tls.key"].Reveal()
	if _, err := tls.X509KeyPair(certificate, key); err != nil {
		t.Errorf("a server cannot use it: %v", err)
	}
	if got := names(t, certificate); !slices.Equal(got, wantNames) {
		t.Errorf("tls.crt has %v, want %v", got, wantNames)
	}
}

func TestBuild_TLSKeepsTheKeysEncoding(t *testing.T) {
	t.Parallel()
	rsaKey, p256, p384, edKey := newRSA(t), newECDSA(t, elliptic.P256()), newECDSA(t, elliptic.P384()), newEd25519(t)
	forRSA, forP256, forP384, forEd := newPKI(t, rsaKey), newPKI(t, p256), newPKI(t, p384), newPKI(t, edKey)
	pkcs1 := x509.MarshalPKCS1PrivateKey(rsaKey)
	for name, tc := range map[string]struct {
		pki  *pki
		file string
		want string
	}{
		"RSA, PKCS#1":       {forRSA, block("RSA PRIVATE KEY", pkcs1), block("RSA PRIVATE KEY", pkcs1)},
		"RSA, PKCS#8":       {forRSA, block("PRIVATE KEY", pkcs8(t, rsaKey)), block("PRIVATE KEY", pkcs8(t, rsaKey))},
		"RSA, mislabelled":  {forRSA, block("PRIVATE KEY", pkcs1), block("RSA PRIVATE KEY", pkcs1)},
		"ECDSA, SEC1":       {forP256, block("EC PRIVATE KEY", sec1(t, p256)), block("EC PRIVATE KEY", sec1(t, p256))},
		"ECDSA, parameters": {forP256, block("EC PARAMETERS", []byte{6, 8, 42, 134, 72, 206, 61, 3, 1, 7}) + block("EC PRIVATE KEY", sec1(t, p256)), block("EC PRIVATE KEY", sec1(t, p256))},
		"ECDSA, PKCS#8":     {forP384, block("PRIVATE KEY", pkcs8(t, p384)), block("PRIVATE KEY", pkcs8(t, p384))},
		"Ed25519":           {forEd, block("PRIVATE KEY", pkcs8(t, edKey)), block("PRIVATE KEY", pkcs8(t, edKey))},
		"with CRLF":         {forEd, strings.ReplaceAll(block("PRIVATE KEY", pkcs8(t, edKey)), "\n", "\r\n"), block("PRIVATE KEY", pkcs8(t, edKey))},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			secret, err := buildTLS(certificates(tc.pki.leaf, tc.pki.intermediate), tc.file)
			if err != nil {
				t.Fatal(err)
			}
			checkPair(t, secret, "leaf", "intermediate")
			if got := string(secret.Data["tls.key"].Reveal()); got != tc.want {
				t.Errorf("tls.key is not the key as it was: %.40s", got)
			}
		})
	}
}

func TestBuild_TLSOrdersTheChain(t *testing.T) {
	t.Parallel()
	key := newEd25519(t)
	p, other := newPKI(t, key), newPKI(t, newEd25519(t))
	stranger := other.issue(t, "stranger", newEd25519(t).Public())
	renewed := p.issue(t, "renewed", key.Public())
	for name, tc := range map[string]struct {
		file []*x509.Certificate
		want []string
	}{
		"in order":             {[]*x509.Certificate{p.leaf, p.intermediate, p.root}, []string{"leaf", "intermediate", "root"}},
		"leaf only":            {[]*x509.Certificate{p.leaf}, []string{"leaf"}},
		"reversed":             {[]*x509.Certificate{p.root, p.intermediate, p.leaf}, []string{"leaf", "intermediate", "root"}},
		"root too early":       {[]*x509.Certificate{p.leaf, p.root, p.intermediate}, []string{"leaf", "intermediate", "root"}},
		"twice":                {[]*x509.Certificate{p.leaf, p.leaf, p.intermediate, p.intermediate}, []string{"leaf", "intermediate"}},
		"others come last":     {[]*x509.Certificate{stranger, p.intermediate, p.leaf}, []string{"leaf", "intermediate", "stranger"}},
		"namesake of issuer":   {[]*x509.Certificate{p.leaf, other.intermediate, p.intermediate}, []string{"leaf", "intermediate", "intermediate"}},
		"two for the same key": {[]*x509.Certificate{renewed, p.intermediate, p.leaf}, []string{"renewed", "intermediate", "leaf"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			secret, err := buildTLS("Bag Attributes: none\n"+certificates(tc.file...), block("PRIVATE KEY", pkcs8(t, key)))
			if err != nil {
				t.Fatal(err)
			}
			checkPair(t, secret, tc.want...)
			if name == "namesake of issuer" {
				second, _ := pem.Decode(secret.Data["tls.crt"].Reveal()[len(certificates(p.leaf)):])
				if string(second.Bytes) != string(p.intermediate.Raw) {
					t.Error("the namesake comes before the issuer")
				}
			}
		})
	}
}

func TestBuild_TLSOfOneFile(t *testing.T) {
	t.Parallel()
	key := newECDSA(t, elliptic.P256())
	p := newPKI(t, key)
	both := block("PRIVATE KEY", pkcs8(t, key)) + certificates(p.intermediate, p.leaf)
	o := object(typeTLS, "both", "tls.crt", "both", "tls.key", "ca", "ca.crt", "both", "bundle.pem")
	secret, err := secretdata.Build(o, []secretdata.File{file("both", both), file("ca", "# the root\n"+certificates(p.root))})
	if err != nil {
		t.Fatal(err)
	}
	checkPair(t, secret, "leaf", "intermediate")
	if got := string(secret.Data["ca.crt"].Reveal()); got != certificates(p.root) {
		t.Errorf("ca.crt is %q", got)
	}
	if got := string(secret.Data["bundle.pem"].Reveal()); got != both {
		t.Error("a key of no special name does not hold the file as it is")
	}
}

func TestBuild_TLSByRule(t *testing.T) {
	t.Parallel()
	key := newEd25519(t)
	p := newPKI(t, key)
	volume := []secretdata.File{
		file("web/tls.crt", certificates(p.intermediate, p.leaf)), file("web/tls.key", block("PRIVATE KEY", pkcs8(t, key))),
		file("tls.crt", certificates(p.intermediate, p.leaf)), file("tls.key", block("PRIVATE KEY", pkcs8(t, key))),
	}
	secret, err := secretdata.Build(withRules(object(typeTLS), apiv1.SecretObjectDataFrom{Files: "tls.*"}), volume)
	if err != nil {
		t.Fatal(err)
	}
	checkPair(t, secret, "leaf", "intermediate")
}

func TestBuild_TLSRefuses(t *testing.T) {
	t.Parallel()
	key, stranger := newEd25519(t), newEd25519(t)
	p := newPKI(t, key)
	renewed := p.issue(t, "renewed", key.Public())
	good, goodKey := certificates(p.leaf, p.intermediate), block("PRIVATE KEY", pkcs8(t, key))
	exchange, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	exchangeDER, err := x509.MarshalPKCS8PrivateKey(exchange)
	if err != nil {
		t.Fatal(err)
	}
	legacy := string(pem.EncodeToMemory(&pem.Block{
		Type: "RSA PRIVATE KEY", Bytes: []byte("ciphertext"),
		Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-256-CBC,00"},
	}))
	const inCert, inKey = `data[0] makes key "tls.crt" of file "cert", which `, `data[1] makes key "tls.key" of file "key", which `
	for name, tc := range map[string]struct{ certificate, key, want string }{
		"key of another":           {good, block("PRIVATE KEY", pkcs8(t, stranger)), inCert + `does not fit key "tls.key" of file "key": none of its 2 certificates is for that key`},
		"which of two":             {certificates(p.intermediate, p.leaf, renewed), goodKey, inCert + `does not fit key "tls.key" of file "key": several of its certificates are for that key`},
		"encrypted, PKCS#8":        {good, block("ENCRYPTED PRIVATE KEY", []byte("ciphertext")), inKey + "has a private key that is encrypted"},
		"encrypted, old":           {good, legacy, inKey + "has a private key that is encrypted"},
		"no certificate":           {goodKey, goodKey, inCert + "has no certificate"},
		"no key":                   {good, good, inKey + "has no private key"},
		"two keys":                 {good, goodKey + block("PRIVATE KEY", pkcs8(t, stranger)), inKey + "has 2 private keys"},
		"key for exchange":         {good, block("PRIVATE KEY", exchangeDER), inKey + `has a block "PRIVATE KEY" that is no private key that can be used`},
		"OpenSSH":                  {good, block("OPENSSH PRIVATE KEY", []byte("openssh-key-v1")), inKey + `has a block "OPENSSH PRIVATE KEY" that is no private key`},
		"garbage in a key":         {good, block("PRIVATE KEY", []byte("hunter2hunter2hunter2hunter2")), inKey + `has a block "PRIVATE KEY" that is no private key`},
		"garbage in a chain":       {good + block("CERTIFICATE", []byte("x")), goodKey, inCert + "has a certificate, the one after 2 others, that cannot be read"},
		"cut off":                  {good[:len(good)-40], goodKey, inCert + "has a PEM block that is cut off or damaged"},
		"cut off at the start":     {strings.Replace(good, "-----END CERTIFICATE-----", "", 1), goodKey, inCert + "has a PEM block that is cut off or damaged"},
		"line breaks lost":         {strings.ReplaceAll(good, "\n", `\n`), goodKey, inCert + "has a PEM block that is cut off or damaged"},
		"empty file":               {"", goodKey, inCert + "is empty"},
		"text":                     {"hunter2hunter2hunter2hunter2", goodKey, inCert + "is neither PEM nor a PKCS#12 file"},
		"DER":                      {string(p.leaf.Raw), goodKey, inCert + "is neither PEM nor a PKCS#12 file"},
		"both wrong, told at once": {"hunter2hunter2hunter2hunter2", "", inKey + "is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := buildTLS(tc.certificate, tc.key)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Build: %v\nwant ... %s ...", err, tc.want)
			}
			tellsNothing(t, err, tc.certificate, tc.key)
		})
	}
}

// tellsNothing fails if an error holds a piece of a file.
func tellsNothing(t *testing.T, err error, contents ...string) {
	t.Helper()
	const piece = 12
	for _, content := range contents {
		for line := range strings.Lines(content) {
			line = strings.TrimSpace(line)
			if strings.HasPrefix(line, "-----") || err == nil {
				continue
			}
			for i := 0; i+piece <= len(line); i++ {
				if strings.Contains(err.Error(), line[i:i+piece]) {
					t.Fatalf("the error tells contents: %v", err)
				}
			}
		}
	}
}

func TestBuild_TLSNeedsAuthorities(t *testing.T) {
	t.Parallel()
	key := newEd25519(t)
	p := newPKI(t, key)
	o := object(typeTLS, "cert", "tls.crt", "key", "tls.key", "key", "ca.crt")
	_, err := secretdata.Build(o, []secretdata.File{file("cert", certificates(p.leaf)), file("key", block("PRIVATE KEY", pkcs8(t, key)))})
	if want := `data[2] makes key "ca.crt" of file "key", which has no certificate`; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("Build: %v, want ... %s ...", err, want)
	}
}
