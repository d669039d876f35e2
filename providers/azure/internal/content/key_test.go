package content

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"math/big"
	"strings"
	"testing"

	"github.com/postern-dev/postern/providers/azure/internal/keyvault"
	"github.com/postern-dev/postern/providers/azure/internal/params"
)

// parsePublic reads a public key's file.
func parsePublic(t *testing.T, b []byte) any {
	t.Helper()
	types, ders := blocks(t, b)
	if len(types) != 1 || types[0] != "PUBLIC KEY" {
		t.Fatalf("blocks %v, want one PUBLIC KEY", types)
	}
	key, err := x509.ParsePKIXPublicKey(ders[0])
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestRSAKey(t *testing.T) {
	t.Parallel()
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for _, kty := range []string{"RSA", "RSA-HSM"} {
		key := &keyvault.PublicKey{Kty: kty, N: private.N.Bytes(), E: []byte{1, 0, 1}}
		files, warnings, err := Files("k", params.Object{Type: params.Key, Mode: 0o440}, keyvault.Object{Key: key}, Options{SeparateFiles: true})
		if err != nil || len(files) != 1 || len(warnings) > 0 || files[0].Path != "k" || files[0].Mode != 0o440 {
			t.Fatalf("%s: %v, %v, %v", kty, files, warnings, err)
		}
		if got := parsePublic(t, files[0].Contents.Reveal()); !private.PublicKey.Equal(got) {
			t.Errorf("%s: the key is another", kty)
		}
	}
}

func TestEllipticKey(t *testing.T) {
	t.Parallel()
	for name, curve := range map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()} {
		private, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		point, err := private.PublicKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		size := (len(point) - 1) / 2
		x, y := point[1:1+size], point[1+size:]
		for form, key := range map[string]*keyvault.PublicKey{
			"full":          {Kty: "EC", Curve: name, X: x, Y: y},
			"HSM":           {Kty: "EC-HSM", Curve: name, X: x, Y: y},
			"zeros before":  {Kty: "EC", Curve: name, X: append(make([]byte, 3), x...), Y: append(make([]byte, 80), y...)},
			"zeros cut off": {Kty: "EC", Curve: name, X: new(big.Int).SetBytes(x).Bytes(), Y: new(big.Int).SetBytes(y).Bytes()},
		} {
			b, err := publicKey(key)
			if err != nil {
				t.Fatalf("%s %s: %v", name, form, err)
			}
			if got := parsePublic(t, b); !private.PublicKey.Equal(got) {
				t.Errorf("%s %s: the key is another", name, form)
			}
		}
	}
}

// A coordinate may be shorter than the curve's size: one of some 256 is.
func TestShortCoordinate(t *testing.T) {
	t.Parallel()
	for short := map[string]bool{}; !short["x"] || !short["y"]; {
		private := newKey(t)
		point, err := private.PublicKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		x, y := bytes.TrimLeft(point[1:33], "\x00"), bytes.TrimLeft(point[33:], "\x00")
		if len(x) == 32 && len(y) == 32 {
			continue
		}
		short["x"], short["y"] = short["x"] || len(x) < 32, short["y"] || len(y) < 32
		b, err := publicKey(&keyvault.PublicKey{Kty: "EC", Curve: "P-256", X: x, Y: y})
		if err != nil {
			t.Fatal(err)
		}
		if got := parsePublic(t, b); !private.PublicKey.Equal(got) {
			t.Error("the key is another")
		}
	}
}

func TestNoPublicKey(t *testing.T) {
	t.Parallel()
	one := []byte{1}
	for name, tt := range map[string]struct {
		key  *keyvault.PublicKey
		want string
	}{
		"none":           {nil, "the vault's answer has no contents"},
		"symmetric":      {&keyvault.PublicKey{Kty: "oct-HSM"}, "failed to get key. key type 'oct-HSM' currently not supported"},
		"long type":      {&keyvault.PublicKey{Kty: strings.Repeat("x", 5000)}, "failed to get key. key type 'xxxxxxxxxxxxxxxxxxxx' currently"},
		"curve":          {&keyvault.PublicKey{Kty: "EC", Curve: "P-256K", X: one, Y: one}, "curve P-256K is not supported"},
		"off the curve":  {&keyvault.PublicKey{Kty: "EC", Curve: "P-256", X: one, Y: one}, "the vault's answer is no point of its curve"},
		"no point":       {&keyvault.PublicKey{Kty: "EC", Curve: "P-256"}, "the vault's answer is no point of its curve"},
		"long point":     {&keyvault.PublicKey{Kty: "EC", Curve: "P-256", X: bytes.Repeat(one, 40), Y: one}, "the vault's answer is no point of its curve"},
		"long Y":         {&keyvault.PublicKey{Kty: "EC", Curve: "P-256", X: one, Y: bytes.Repeat(one, 80)}, "the vault's answer is no point of its curve"},
		"no modulus":     {&keyvault.PublicKey{Kty: "RSA", E: []byte{3}}, "the vault's answer is no RSA key"},
		"no exponent":    {&keyvault.PublicKey{Kty: "RSA", N: one}, "the vault's answer is no RSA key"},
		"exponent 1":     {&keyvault.PublicKey{Kty: "RSA", N: one, E: one}, "the vault's answer is no RSA key"},
		"large exponent": {&keyvault.PublicKey{Kty: "RSA", N: one, E: bytes.Repeat(one, 9)}, "the vault's answer is no RSA key"},
	} {
		files, _, err := Files("k", params.Object{Type: params.Key}, keyvault.Object{Key: tt.key}, Options{})
		if err == nil || !strings.HasPrefix(err.Error(), tt.want) || files != nil {
			t.Errorf("%s: %v, %v, want %s", name, files, err, tt.want)
		}
	}
}

func TestCertificate(t *testing.T) {
	t.Parallel()
	leaf := issue(t, "leaf", nil, false)
	o := params.Object{Type: params.Certificate, Mode: 0o400}
	files, warnings, err := Files("a/c", o, keyvault.Object{CER: leaf.cert.Raw}, Options{ConstructPEMChain: true, SeparateFiles: true})
	if err != nil || len(files) != 1 || len(warnings) > 0 || files[0].Path != "a/c" || files[0].Mode != 0o400 {
		t.Fatalf("%v, %v, %v", files, warnings, err)
	}
	types, ders := blocks(t, files[0].Contents.Reveal())
	if len(types) != 1 || types[0] != "CERTIFICATE" || !bytes.Equal(ders[0], leaf.cert.Raw) {
		t.Errorf("blocks %v, want the certificate", types)
	}
	if files, _, err := Files("c", o, keyvault.Object{}, Options{}); err == nil || files != nil {
		t.Errorf("of no certificate: %v, %v", files, err)
	}
}
