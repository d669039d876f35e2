package secretdata

import (
	"crypto/x509"
	"errors"

	"github.com/postern-dev/postern/internal/redact"
)

// The keys of a TLS Secret that are taken out of files of several parts. Any
// other key holds its file as it is.
const (
	keyCertificate = "tls.crt"
	keyPrivateKey  = "tls.key"
	keyCA          = "ca.crt"
)

// asIs ends the messages about what a TLS Secret cannot be made of.
const asIs = "; type " + typeOpaque + " takes files as they are"

// deriveTLS makes the certificates and the private key of a TLS Secret. A key
// that cannot be made is not in the result.
func deriveTLS(sources map[string]source, found *problems) values {
	result := values{}
	files := bundles{}
	defer files.wipe()

	var certificates []*x509.Certificate
	var key *privateKey
	read := map[string]func(*bundle) error{
		keyCertificate: func(b *bundle) (err error) { certificates, err = b.certificates(); return err },
		keyPrivateKey:  func(b *bundle) (err error) { key, err = b.privateKey(); return err },
		keyCA: func(b *bundle) error {
			authorities, err := b.certificates()
			result[keyCA] = encodeCertificates(authorities)
			return err
		},
	}
	for _, name := range []string{keyCertificate, keyPrivateKey, keyCA} {
		s, ok := sources[name]
		if !ok || s.missing {
			continue
		}
		b, err := files.open(s.file)
		if err == nil {
			err = read[name](b)
		}
		if err != nil {
			found.addKey(name, s, "%v", err)
		}
	}
	if key == nil || certificates == nil {
		return result
	}
	chain, err := key.chain(certificates)
	if err != nil {
		found.addKey(keyCertificate, sources[keyCertificate], "does not fit key %q of file %.100q: %v",
			keyPrivateKey, sources[keyPrivateKey].file.Path, err)
		return result
	}
	result[keyCertificate] = encodeCertificates(chain)
	result[keyPrivateKey] = key.encode()
	return result
}

// bundles are the files of a TLS Secret, by path: one may give several keys.
type bundles map[string]*bundle

func (o bundles) open(file File) (*bundle, error) {
	if b, ok := o[file.Path]; ok {
		return b, b.err
	}
	b := openBundle(file.Contents)
	o[file.Path] = b
	return b, b.err
}

func (o bundles) wipe() {
	for _, b := range o {
		b.wipe()
	}
}

// bundle is a file with certificates, a private key or both.
type bundle struct {
	blocks []block
	err    error
}

// block is one part of a bundle, in DER.
type block struct {
	label     string // of PEM
	encrypted bool
	der       redact.Bytes
}

const (
	labelCertificate  = "CERTIFICATE"
	labelEncryptedKey = "ENCRYPTED PRIVATE KEY"
	labelPKCS8        = "PRIVATE KEY"
	labelPKCS1        = "RSA PRIVATE KEY"
	labelSEC1         = "EC PRIVATE KEY"
)

func openBundle(contents redact.Bytes) *bundle {
	b := new(bundle)
	switch data := contents.Reveal(); {
	case len(data) == 0:
		b.err = errors.New("is empty")
	case isPEM(data):
		b.blocks, b.err = splitPEM(data)
	default:
		b.blocks, b.err = openPFX(data)
	}
	return b
}

func (b *bundle) wipe() {
	for _, block := range b.blocks {
		block.der.Wipe()
	}
}
