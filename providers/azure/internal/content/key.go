package content

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math"
	"math/big"
	"strings"

	"github.com/postern-dev/postern/providers/azure/internal/keyvault"
)

// publicKey returns a key's public half in PEM.
func publicKey(key *keyvault.PublicKey) ([]byte, error) {
	if key == nil {
		return nil, errNoContents
	}
	var public crypto.PublicKey
	var err error
	switch strings.ToUpper(key.Kty) {
	case "RSA", "RSA-HSM":
		public, err = rsaKey(key)
	case "EC", "EC-HSM":
		public, err = ellipticKey(key)
	default:
		err = fmt.Errorf("failed to get key. key type '%.20s' currently not supported: only RSA and EC keys have a public half", key.Kty)
	}
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("encode public key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: blockPublicKey, Bytes: der}), nil
}

func rsaKey(key *keyvault.PublicKey) (*rsa.PublicKey, error) {
	n, e := new(big.Int).SetBytes(key.N), new(big.Int).SetBytes(key.E)
	if n.Sign() == 0 || e.Cmp(big.NewInt(2)) < 0 || e.Cmp(big.NewInt(math.MaxInt32)) > 0 {
		return nil, errors.New("the vault's answer is no RSA key")
	}
	return &rsa.PublicKey{N: n, E: int(e.Int64())}, nil
}

func ellipticKey(key *keyvault.PublicKey) (*ecdsa.PublicKey, error) {
	var curve elliptic.Curve
	switch strings.ToUpper(key.Curve) {
	case "P-256":
		curve = elliptic.P256()
	case "P-384":
		curve = elliptic.P384()
	case "P-521":
		curve = elliptic.P521()
	default:
		return nil, fmt.Errorf("curve %.20s is not supported: only P-256, P-384 and P-521 have a form in PEM that programs read", key.Curve)
	}
	size := (curve.Params().BitSize + 7) / 8
	x, y := bytes.TrimLeft(key.X, "\x00"), bytes.TrimLeft(key.Y, "\x00")
	if len(x) > size || len(y) > size {
		return nil, errors.New("the vault's answer is no point of its curve")
	}
	point := make([]byte, 1+2*size)
	point[0] = 4 // not compressed
	copy(point[1+size-len(x):], x)
	copy(point[1+2*size-len(y):], y)
	public, err := ecdsa.ParseUncompressedPublicKey(curve, point)
	if err != nil {
		return nil, errors.New("the vault's answer is no point of its curve")
	}
	return public, nil
}

// certificate returns a certificate in PEM.
func certificate(der []byte) ([]byte, error) {
	if len(der) == 0 {
		return nil, errNoContents
	}
	return pem.EncodeToMemory(&pem.Block{Type: blockCertificate, Bytes: der}), nil
}
