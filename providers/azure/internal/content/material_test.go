package content

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// party is who has certificates.
type party struct {
	name string
	key  *ecdsa.PrivateKey
	cert *x509.Certificate // the last one
}

// signed returns a certificate of p by an issuer, which may be p itself. With ids it
// has the identifiers of both keys.
func (p *party) signed(t testing.TB, issuer *party, ids bool) *x509.Certificate {
	t.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: p.name},
		NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0), BasicConstraintsValid: true,
		IsCA: ids, // without, Go makes no identifier of the subject's key
	}
	parent := issuer.cert
	if issuer == p {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, p.key.Public(), issuer.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if got := len(cert.SubjectKeyId) > 0; got != ids {
		t.Fatalf("identifier of the key = %v, want %v", got, ids)
	}
	return cert
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// issue makes a party with a certificate of an issuer, nil for itself.
func issue(t testing.TB, name string, issuer *party, ids bool) *party {
	t.Helper()
	p := &party{name: name, key: newKey(t)}
	if issuer == nil {
		issuer = p
	}
	p.cert = p.signed(t, issuer, ids)
	return p
}

// fixture reads a file of testdata.
func fixture(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// text is what a vault holds of a PFX.
func text(der []byte) []byte { return []byte(base64.StdEncoding.EncodeToString(der)) }

// blocks returns the types of PEM blocks, and fails if there is anything else.
func blocks(t *testing.T, b []byte) (types []string, ders [][]byte) {
	t.Helper()
	for len(b) > 0 {
		block, rest := pem.Decode(b)
		if block == nil || len(block.Headers) > 0 {
			t.Fatalf("not PEM alone: %q", b)
		}
		types, ders, b = append(types, block.Type), append(ders, block.Bytes), rest
	}
	return types, ders
}

func encodePEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
