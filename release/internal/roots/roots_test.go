package roots_test

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"testing"

	"golang.org/x/crypto/x509roots/fallback/bundle"

	"github.com/postern-dev/postern/release/internal/roots"
)

func TestPEM(t *testing.T) {
	t.Parallel()
	file, err := roots.PEM()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for rest := file; len(rest) > 0; {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		if block == nil {
			t.Fatalf("not PEM: %q", rest[:min(100, len(rest))])
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if !certificate.IsCA {
			t.Errorf("%s is no authority", certificate.Subject)
		}
		found[string(block.Bytes)] = true
	}
	if len(found) < 100 {
		t.Errorf("only %d authorities", len(found))
	}
	for root := range bundle.Roots() {
		if found[string(root.Certificate)] != (root.Constraint == nil) {
			t.Errorf("an authority is trusted = %t, limited = %t", found[string(root.Certificate)], root.Constraint != nil)
		}
	}
	if !x509.NewCertPool().AppendCertsFromPEM(file) {
		t.Error("Go does not read it")
	}
	again, err := roots.PEM()
	if err != nil || !bytes.Equal(file, again) {
		t.Errorf("the file is not the same each time: %v", err)
	}
}
