package content

import (
	"encoding/pem"
	"errors"
	"strings"

	"github.com/postern-dev/postern/providers/sdk"
)

// Types of PEM blocks.
const (
	blockCertificate = "CERTIFICATE"
	blockPrivateKey  = "PRIVATE KEY"
	blockPublicKey   = "PUBLIC KEY"
)

// split is a certificate's secret in PEM, in two parts.
type split struct {
	certificates []byte
	// key is empty if the vault does not give the key away.
	key []byte
}

// splitPEM splits a text by the types of its blocks. What is neither, such as the
// parameters of a curve, is in none of the parts.
func splitPEM(text []byte) (split, error) {
	var s split
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		switch {
		case block.Type == blockCertificate:
			s.certificates = append(s.certificates, pem.EncodeToMemory(block)...)
		case strings.HasSuffix(block.Type, blockPrivateKey):
			s.key = append(s.key, pem.EncodeToMemory(block)...)
		}
	}
	if len(s.certificates) == 0 {
		return split{}, errors.New("its text has no certificate in PEM, though its content type says so")
	}
	return s, nil
}

// files are those beside the object's own. An empty one is left out, which is found
// sooner than one that holds nothing.
func (s split) files(path string) []File {
	var files []File
	if len(s.certificates) > 0 {
		files = append(files, File{Path: path + ".crt", Contents: sdk.NewSecret(s.certificates)})
	}
	if len(s.key) > 0 {
		files = append(files, File{Path: path + ".key", Contents: sdk.NewSecret(s.key)})
	}
	return files
}

func (s split) warnings() []string {
	if len(s.key) > 0 {
		return nil
	}
	return []string{"there is no .key: the vault does not give the certificate's key away"}
}
