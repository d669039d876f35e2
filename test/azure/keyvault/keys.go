package keyvault

import (
	"context"
	"errors"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/fake"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"
	keysfake "github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys/fake"

	"github.com/postern-dev/postern/test/azure/api"
	"github.com/postern-dev/postern/test/azure/control"
)

// serveKeys is serveSecrets for keys.
func (s *Store) serveKeys(ctx context.Context, c call) (api.Answer, error) {
	fakeServer := keysfake.NewServerTransport(&keysfake.Server{
		GetKey: func(_ context.Context, name, version string, _ *azkeys.GetKeyOptions) (fake.Responder[azkeys.GetKeyResponse], fake.ErrorResponder) {
			bundle, err := c.keyBundle(name, version)
			return found(azkeys.GetKeyResponse{KeyBundle: bundle}, err)
		},
		NewListKeyPropertiesPager: func(*azkeys.ListKeyPropertiesOptions) fake.PagerResponder[azkeys.ListKeyPropertiesResponse] {
			list, err := s.listKeys(c)
			return onePage(azkeys.ListKeyPropertiesResponse{KeyPropertiesListResult: list}, err)
		},
		NewListKeyPropertiesVersionsPager: func(name string, _ *azkeys.ListKeyPropertiesVersionsOptions) fake.PagerResponder[azkeys.ListKeyPropertiesVersionsResponse] {
			list, err := s.listKeys(c)
			err = errors.Join(err, c.agree(name, ""))
			return onePage(azkeys.ListKeyPropertiesVersionsResponse{KeyPropertiesListResult: list}, err)
		},
	})
	switch c.Operation {
	case control.List:
		return ask[azkeys.KeyPropertiesListResult](ctx, c, fakeServer, "NewListKeyPropertiesPager")
	case control.ListVersions:
		return ask[azkeys.KeyPropertiesListResult](ctx, c, fakeServer, "NewListKeyPropertiesVersionsPager")
	default:
		return ask[azkeys.KeyBundle](ctx, c, fakeServer, "GetKey")
	}
}

func (c call) keyBundle(name, version string) (azkeys.KeyBundle, error) {
	if err := c.agree(name, version); err != nil {
		return azkeys.KeyBundle{}, err
	}
	o, v, err := c.version()
	if err != nil {
		return azkeys.KeyBundle{}, err
	}
	key := &azkeys.JSONWebKey{
		KID: ptr(azkeys.ID(c.vault.idOf(control.Keys, o.name, v.id))), Kty: ptr(azkeys.KeyType(v.key.kty)),
		N: v.key.n, E: v.key.e, X: v.key.x, Y: v.key.y,
		KeyOps: []*azkeys.KeyOperation{ptr(azkeys.KeyOperationSign), ptr(azkeys.KeyOperationVerify)},
	}
	if v.key.curve != "" {
		key.Crv = ptr(azkeys.CurveName(v.key.curve))
	}
	return azkeys.KeyBundle{Key: key, Attributes: v.keyAttributes(), Tags: optionalTags(v.tags), Managed: optionalFlag(v.managed)}, nil
}

func (s *Store) listKeys(c call) (azkeys.KeyPropertiesListResult, error) {
	entries, next, err := s.page(c)
	list := azkeys.KeyPropertiesListResult{NextLink: next, Value: []*azkeys.KeyProperties{}}
	for _, e := range entries {
		list.Value = append(list.Value, &azkeys.KeyProperties{
			KID: ptr(azkeys.ID(e.id)), Attributes: e.version.keyAttributes(), Tags: optionalTags(e.version.tags), Managed: optionalFlag(e.version.managed),
		})
	}
	return list, err
}

func (v *version) keyAttributes() *azkeys.KeyAttributes {
	return &azkeys.KeyAttributes{
		Enabled: &v.enabled, Created: optionalTime(v.created), Updated: optionalTime(v.updated),
		NotBefore: optionalTime(v.notBefore), Expires: optionalTime(v.expires),
		RecoverableDays: ptr(int32(recoverableDays)), RecoveryLevel: ptr(recoveryLevel),
	}
}
