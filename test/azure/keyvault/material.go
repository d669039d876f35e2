package keyvault

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"

	"software.sslmate.com/src/go-pkcs12"

	"github.com/postern-dev/postern/test/azure/control"
)

// material is what a version of a certificate is made of.
type material struct {
	private crypto.Signer
	chain   []*x509.Certificate
	// pem and pfx are what it is read from, which Key Vault keeps as it is.
	pem, pfx []byte

	cer      []byte
	chainPEM string
	key      *publicKey // nil: Key Vault has no keys of its kind
	// secretType is the policy's, contentType the secret's.
	secretType  string
	contentType *string
	secretValue string
}

func newMaterial(c control.Certificate) (*material, error) {
	m := &material{secretType: c.ContentType}
	if m.secretType == "" {
		m.secretType = control.PKCS12
	}
	m.contentType = &m.secretType
	if err := m.load(c); err != nil {
		return nil, err
	}
	m.cer = m.chain[0].Raw
	var chain bytes.Buffer
	for _, certificate := range m.chain {
		chain.Write(encodePEM("CERTIFICATE", certificate.Raw))
	}
	m.chainPEM = chain.String()
	var err error
	if m.key, err = publicKeyOf(m.chain[0].PublicKey, ""); err != nil && !errors.Is(err, errNoSuchKey) {
		return nil, err
	}
	err = m.encode(c)
	return m, err
}

// load reads the key and the chain, or makes them up.
func (m *material) load(c control.Certificate) error {
	switch {
	case len(c.PFX) != 0:
		key, leaf, chain, err := pkcs12.DecodeChain(c.PFX, "")
		if err != nil {
			return fmt.Errorf("read the pfx: %w", err)
		}
		m.pfx, m.chain = c.PFX, append([]*x509.Certificate{leaf}, chain...)
		var ok bool
		if m.private, ok = key.(crypto.Signer); !ok {
			return fmt.Errorf("%w: %T", errNoSuchKey, key)
		}
		return nil
	case c.PEM != "":
		return m.parse(c.PEM)
	default:
		return m.generate(c)
	}
}

// parse reads PEM.
func (m *material) parse(contents string) error {
	m.pem = []byte(contents)
	for rest := []byte(contents); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type == "CERTIFICATE" {
			certificate, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return fmt.Errorf("read a certificate: %w", err)
			}
			m.chain = append(m.chain, certificate)
			continue
		}
		key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			return fmt.Errorf("read the private key: %w", err)
		}
		var ok bool
		if m.private, ok = key.(crypto.Signer); !ok {
			return fmt.Errorf("%w: %T", errNoSuchKey, key)
		}
	}
	if m.private == nil || len(m.chain) == 0 {
		return errors.New("pem: it needs a private key and a certificate")
	}
	return nil
}

// generate makes a leaf of an intermediate authority of a root.
func (m *material) generate(c control.Certificate) error {
	private, err := newPrivate(c.KeyType)
	if err != nil {
		return err
	}
	subject := strings.TrimPrefix(c.Subject, "CN=")
	if subject == "" {
		subject = c.Name
	}
	m.private = private
	root, rootKey, err := issue(certificateRequest{name: subject + " root"})
	if err != nil {
		return err
	}
	between, betweenKey, err := issue(certificateRequest{name: subject + " intermediate", parent: root, parentKey: rootKey})
	if err != nil {
		return err
	}
	leaf, _, err := issue(certificateRequest{name: subject, dnsNames: c.DNSNames, key: private, parent: between, parentKey: betweenKey})
	if err != nil {
		return err
	}
	m.chain = []*x509.Certificate{leaf, between, root}
	return nil
}

func newPrivate(kind string) (crypto.Signer, error) {
	switch kind {
	case "", rsaType:
		return rsa.GenerateKey(rand.Reader, defaultBits)
	case ecType:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "Ed25519":
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	default:
		return nil, fmt.Errorf("unknown keyType %q", kind)
	}
}

// certificateRequest asks for a certificate: an authority's, unless it has a key.
type certificateRequest struct {
	name      string
	dnsNames  []string
	key       crypto.Signer
	parent    *x509.Certificate // nil: it signs itself
	parentKey crypto.Signer
}

func issue(r certificateRequest) (*x509.Certificate, crypto.Signer, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, nil, fmt.Errorf("number a certificate: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: r.name}, DNSNames: r.dnsNames,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0), BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if r.key == nil {
		template.IsCA, template.KeyUsage, template.ExtKeyUsage = true, x509.KeyUsageCertSign, nil
		if r.key, err = newPrivate(ecType); err != nil {
			return nil, nil, err
		}
	}
	if r.parent == nil {
		r.parent, r.parentKey = template, r.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, r.parent, r.key.Public(), r.parentKey)
	if err != nil {
		return nil, nil, fmt.Errorf("certify %s: %w", r.name, err)
	}
	certificate, err := x509.ParseCertificate(der)
	return certificate, r.key, err
}

// encode makes the secret.
func (m *material) encode(c control.Certificate) error {
	value, err := m.secret(c.Encryption)
	if err != nil {
		return err
	}
	m.secretValue = value
	if c.SecretValue != nil {
		m.secretValue = *c.SecretValue
	}
	if c.SecretContentType != nil {
		m.contentType = c.SecretContentType
		if *c.SecretContentType == "" {
			m.contentType = nil
		}
	}
	return nil
}

func (m *material) secret(encryption string) (string, error) {
	switch {
	case m.secretType == control.PEM && m.pem != nil:
		return string(m.pem), nil
	case m.secretType == control.PEM:
		der, err := x509.MarshalPKCS8PrivateKey(m.private)
		if err != nil {
			return "", fmt.Errorf("encode the private key: %w", err)
		}
		return string(encodePEM("PRIVATE KEY", der)) + m.chainPEM, nil
	case m.secretType != control.PKCS12:
		return "", fmt.Errorf("unknown contentType %q, want %s or %s", m.secretType, control.PKCS12, control.PEM)
	case m.pfx != nil:
		return base64.StdEncoding.EncodeToString(m.pfx), nil
	}
	encoder := pkcs12.LegacyDES
	switch encryption {
	case "", control.Legacy:
	case control.Modern:
		encoder = pkcs12.Modern
	default:
		return "", fmt.Errorf("unknown encryption %q", encryption)
	}
	pfx, err := encoder.Encode(m.private, m.chain[0], m.chain[1:], "")
	if err != nil {
		return "", fmt.Errorf("encode the pfx: %w", err)
	}
	return base64.StdEncoding.EncodeToString(pfx), nil
}

func encodePEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
