package keyvault

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"

	"github.com/postern-dev/postern/test/azure/control"
)

const (
	rsaType, ecType, octType = "RSA", "EC", "oct"
	hsm                      = "-HSM"
	defaultBits              = 2048
	koblitz                  = "P-256K"
)

// The base point of secp256k1, which is as good a public key as any: Go has no such
// curve to make one on.
const (
	koblitzX = "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
	koblitzY = "483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8"
)

// publicKey is what Key Vault tells of a key.
type publicKey struct {
	kty, curve string
	n, e, x, y []byte
}

// document is the key for the control API.
func (k *publicKey) document() control.JSONWebKey {
	encode := base64.RawURLEncoding.EncodeToString
	return control.JSONWebKey{Kty: k.kty, Crv: k.curve, N: encode(k.n), E: encode(k.e), X: encode(k.x), Y: encode(k.y)}
}

// newKey makes one of the type that is said, or takes the one that is given.
func newKey(c control.Key) (*publicKey, error) {
	if c.PEM != "" {
		public, err := parsePublic(c.PEM)
		if err != nil {
			return nil, err
		}
		return publicKeyOf(public, c.Kty)
	}
	kind := c.Kty
	if kind == octType || kind == octType+hsm {
		return &publicKey{kty: kind}, nil
	}
	switch strings.TrimSuffix(kind, hsm) {
	case rsaType:
		bits := c.Size
		if bits == 0 {
			bits = defaultBits
		}
		key, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			return nil, fmt.Errorf("make an RSA key: %w", err)
		}
		return publicKeyOf(&key.PublicKey, kind)
	case ecType:
		return newElliptic(c.Curve, kind)
	default:
		return nil, fmt.Errorf("unknown kty %q", kind)
	}
}

func newElliptic(name, kty string) (*publicKey, error) {
	if name == koblitz {
		x, errX := hex.DecodeString(koblitzX)
		y, errY := hex.DecodeString(koblitzY)
		return &publicKey{kty: kty, curve: koblitz, x: x, y: y}, errors.Join(errX, errY)
	}
	curve := elliptic.P256()
	if name != "" {
		i := slices.IndexFunc(curves(), func(c elliptic.Curve) bool { return c.Params().Name == name })
		if i < 0 {
			return nil, fmt.Errorf("unknown curve %q", name)
		}
		curve = curves()[i]
	}
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key on %s: %w", name, err)
	}
	return publicKeyOf(&key.PublicKey, kty)
}

func curves() []elliptic.Curve {
	return []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()}
}

// publicKeyOf has the type kty, or that of its kind if kty is empty.
func publicKeyOf(public crypto.PublicKey, kty string) (*publicKey, error) {
	switch k := public.(type) {
	case *rsa.PublicKey:
		if kty == "" {
			kty = rsaType
		}
		return &publicKey{kty: kty, n: k.N.Bytes(), e: big.NewInt(int64(k.E)).Bytes()}, nil
	case *ecdsa.PublicKey:
		if kty == "" {
			kty = ecType
		}
		point, err := k.Bytes()
		if err != nil {
			return nil, fmt.Errorf("encode the key: %w", err)
		}
		half := len(point) / 2 // behind the byte that says that both coordinates follow
		return &publicKey{kty: kty, curve: k.Params().Name, x: point[1 : 1+half], y: point[1+half:]}, nil
	default:
		return nil, fmt.Errorf("%w: %T", errNoSuchKey, public)
	}
}

// errNoSuchKey says that Key Vault has no keys of a kind.
var errNoSuchKey = errors.New("not a kind of key that Key Vault has")

// parsePublic reads the public part of a key in PEM.
func parsePublic(contents string) (crypto.PublicKey, error) {
	block, _ := pem.Decode([]byte(contents))
	if block == nil {
		return nil, errors.New("no PEM")
	}
	if block.Type == "PUBLIC KEY" {
		return x509.ParsePKIXPublicKey(block.Bytes)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read the key: %w", err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%w: %T", errNoSuchKey, key)
	}
	return signer.Public(), nil
}

// keyOf is the key of an object's name in maps.
func keyOf(name string) string { return strings.ToLower(name) }
