// Package roots has the certificate authorities that images trust: Mozilla's, as
// a Go module of a fixed version has them, so that images do not depend on the
// machine that makes them.
package roots

import (
	"bytes"
	"encoding/pem"
	"fmt"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// Path is where Go programs look for the file.
const Path = "/etc/ssl/certs/ca-certificates.crt"

// PEM returns the authorities as a file of certificates. Those that are trusted
// only for certificates from before some day are left out, because such a file
// cannot say so.
func PEM() ([]byte, error) {
	var out bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint != nil {
			continue
		}
		if err := pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}); err != nil {
			return nil, fmt.Errorf("encode a certificate authority: %w", err)
		}
	}
	return out.Bytes(), nil
}
