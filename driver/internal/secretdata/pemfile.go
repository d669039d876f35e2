package secretdata

import (
	"bytes"
	"encoding/pem"
	"errors"
	"strings"

	"github.com/postern-dev/postern/internal/redact"
)

const pemBegin = "-----BEGIN "

// isPEM reports whether there is the beginning of a PEM block.
func isPEM(data []byte) bool { return countBegins(data) > 0 }

// countBegins counts the lines that begin a block.
func countBegins(data []byte) int {
	count := bytes.Count(data, []byte("\n"+pemBegin))
	if bytes.HasPrefix(data, []byte(pemBegin)) {
		count++
	}
	return count
}

// splitPEM returns the certificates and private keys. Text between blocks and
// blocks of other kinds, such as EC PARAMETERS, are left out.
func splitPEM(data []byte) ([]block, error) {
	var blocks []block
	begins := countBegins(data)
	for len(data) > 0 {
		decoded, rest := pem.Decode(data)
		if decoded == nil {
			break
		}
		data = rest
		begins--
		contents := redact.NewBytes(decoded.Bytes)
		if decoded.Type != labelCertificate && !strings.HasSuffix(decoded.Type, labelPKCS8) {
			contents.Wipe()
			continue
		}
		blocks = append(blocks, block{
			label:     decoded.Type,
			encrypted: decoded.Type == labelEncryptedKey || strings.Contains(decoded.Headers["Proc-Type"], "ENCRYPTED"),
			der:       contents,
		})
	}
	if begins > 0 {
		// The decoder leaves such blocks out, and a chain would lack a link.
		return blocks, errors.New("has a PEM block that is cut off or damaged: store it again, with its line breaks")
	}
	return blocks, nil
}

// encodePEM writes blocks of one kind. It allocates once, so that no part of a
// key stays behind.
func encodePEM(label string, ders ...[]byte) redact.Bytes {
	const lineLength = 64
	size := 0
	for _, der := range ders {
		encoded := (len(der) + 2) / 3 * 4
		size += len("-----BEGIN -----\n-----END -----\n") + 2*len(label) + encoded + encoded/lineLength + 1
	}
	out := bytes.NewBuffer(make([]byte, 0, size))
	for _, der := range ders {
		_ = pem.Encode(out, &pem.Block{Type: label, Bytes: der}) // a Buffer takes all, and there are no headers
	}
	return redact.NewBytes(out.Bytes())
}
