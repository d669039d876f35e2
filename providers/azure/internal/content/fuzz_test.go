package content

import (
	"bytes"
	"encoding/pem"
	"path/filepath"
	"testing"

	"github.com/postern-dev/postern/providers/azure/internal/keyvault"
	"github.com/postern-dev/postern/providers/azure/internal/params"
	"github.com/postern-dev/postern/providers/sdk"
)

// FuzzPFX checks that nothing that a vault may hold makes a panic, and that what is
// written is PEM.
func FuzzPFX(f *testing.F) {
	files, err := filepath.Glob("testdata/*.pfx")
	if err != nil || len(files) == 0 {
		f.Fatal(files, err)
	}
	for _, file := range files {
		f.Add(fixture(f, filepath.Base(file)))
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		files, _, err := Files("c", params.Object{Type: params.Secret}, backed(typePFX, text(der)), Options{ConstructPEMChain: true, SeparateFiles: true})
		if err != nil {
			return
		}
		combined := files[len(files)-1].Contents.Reveal()
		var sides []byte
		for _, side := range []string{"c.key", "c.crt"} {
			for _, file := range files {
				if file.Path == side {
					sides = append(sides, file.Contents.Reveal()...)
				}
			}
		}
		if !bytes.Equal(combined, sides) {
			t.Error("the file is not key and certificates")
		}
		if types, _ := blocks(t, combined); len(types) == 0 {
			t.Error("no blocks")
		}
	})
}

// FuzzPEM checks the same of PEM, which stays as it is.
func FuzzPEM(f *testing.F) {
	f.Add(fixture(f, "rsa.pem"))
	f.Add(append(encodePEM("RSA PRIVATE KEY", []byte("a key")), fixture(f, "ecdsa.pem")...))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\na: b\n\nAAAA\n-----END CERTIFICATE-----\n-----BEGIN "))
	f.Fuzz(func(t *testing.T, given []byte) {
		files, _, err := Files("c", params.Object{Type: params.Secret}, backed(typePEM, given), Options{SeparateFiles: true})
		if err != nil {
			return
		}
		for _, file := range files {
			if file.Path == "c" {
				if !bytes.Equal(file.Contents.Reveal(), given) {
					t.Error("changed")
				}
			} else if block, _ := pem.Decode(file.Contents.Reveal()); block == nil {
				t.Errorf("%s holds no PEM", file.Path)
			}
		}
	})
}

// FuzzKey checks that no public half makes a panic, and that what is written is one.
func FuzzKey(f *testing.F) {
	f.Add("RSA", "", []byte{1, 2}, []byte{1, 0, 1})
	f.Add("EC", "P-256", []byte{1}, []byte{2})
	f.Fuzz(func(t *testing.T, kty, curve string, a, b []byte) {
		key := &keyvault.PublicKey{Kty: kty, Curve: curve, N: a, E: b, X: a, Y: b}
		files, _, err := Files("k", params.Object{Type: params.Key}, keyvault.Object{Key: key, Value: sdk.Secret{}}, Options{})
		if err == nil {
			parsePublic(t, files[0].Contents.Reveal())
		}
	})
}
