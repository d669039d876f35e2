package keyvault

import (
	"github.com/postern-dev/postern/providers/azure/internal/params"
	"github.com/postern-dev/postern/providers/sdk"
)

// Ref asks for an object.
type Ref struct {
	Type params.ObjectType
	Name string
	// Version is "" for the newest.
	Version string
	// History is how many versions to read, from Version back. 0 and 1 are the same:
	// no list of versions is asked for.
	History int
}

// Object is one version of an object. It may be printed: a [sdk.Secret] hides itself,
// and the rest is public.
type Object struct {
	Type params.ObjectType
	// Name and Version are the vault's own, of the object's id.
	Name, Version string

	// Value is a secret's.
	Value sdk.Secret
	// ContentType is a secret's; "" if it has none.
	ContentType string
	// CertificateBacked says that a secret belongs to a certificate: the vault writes
	// both its value and its content type.
	CertificateBacked bool

	// Key is a key's public half.
	Key *PublicKey

	// CER is a certificate itself, in DER, without those that signed it.
	CER []byte
}

// PublicKey is the public half of a key, with the fields of a JSON Web Key.
type PublicKey struct {
	// Kty is the key's type, such as RSA or EC-HSM.
	Kty string
	// Curve is an elliptic key's, such as P-256.
	Curve string
	// N and E are an RSA key's modulus and exponent, X and Y an elliptic key's point.
	// All are unsigned, the first byte the highest.
	N, E, X, Y []byte
}

// Answer is what a vault holds of a Ref.
type Answer struct {
	Ref Ref
	// Objects are one, or up to the Ref's History, the newest first.
	Objects []Object
	// Err is why there is nothing of this object: an [*Error], or nil.
	Err error
}
