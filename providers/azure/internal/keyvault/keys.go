package keyvault

import (
	"context"

	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"github.com/postern-dev/postern/providers/azure/internal/params"
)

type keys struct{ client *azkeys.Client }

// get reads a key's public half: the vault gives no other.
func (k keys) get(ctx context.Context, name, version string) (Object, error) {
	answer, err := k.client.GetKey(ctx, name, version, nil)
	if err != nil {
		return Object{}, err
	}
	if answer.Key == nil {
		return Object{}, &incompleteError{"the key"}
	}
	name, version, err = identified((*string)(answer.Key.KID), params.Key, name, version)
	if err != nil {
		return Object{}, err
	}
	key := &PublicKey{
		Kty: string(value(answer.Key.Kty)), Curve: string(value(answer.Key.Crv)),
		N: answer.Key.N, E: answer.Key.E, X: answer.Key.X, Y: answer.Key.Y,
	}
	if lacks := key.lacks(); lacks != "" {
		return Object{}, &incompleteError{lacks}
	}
	return Object{Type: params.Key, Name: name, Version: version, Key: key}, nil
}

// lacks says what a key of its type has and this one has not. Types without a public
// half lack nothing: that they make no file is not the vault's fault.
func (k *PublicKey) lacks() string {
	switch azkeys.KeyType(k.Kty) {
	case "":
		return "the key's type"
	case azkeys.KeyTypeRSA, azkeys.KeyTypeRSAHSM:
		if len(k.N) == 0 || len(k.E) == 0 {
			return "the modulus or the exponent of the RSA key"
		}
	case azkeys.KeyTypeEC, azkeys.KeyTypeECHSM:
		if k.Curve == "" || len(k.X) == 0 || len(k.Y) == 0 {
			return "the curve or the point of the EC key"
		}
	}
	return ""
}

func (k keys) versions(name string) pages {
	return pagesOf(k.client.NewListKeyPropertiesVersionsPager(name, nil),
		func(page azkeys.ListKeyPropertiesVersionsResponse) []*azkeys.KeyProperties { return page.Value }, keyProperties)
}

func (k keys) objects() pages {
	return pagesOf(k.client.NewListKeyPropertiesPager(nil),
		func(page azkeys.ListKeyPropertiesResponse) []*azkeys.KeyProperties { return page.Value }, keyProperties)
}

func keyProperties(k *azkeys.KeyProperties) properties {
	attributes := value(k.Attributes)
	return properties{params.Key, (*string)(k.KID), k.Tags, attributes.Enabled, attributes.Created}
}
