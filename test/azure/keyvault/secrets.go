package keyvault

import (
	"context"
	"errors"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/fake"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"
	secretsfake "github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets/fake"

	"github.com/postern-dev/postern/test/azure/api"
	"github.com/postern-dev/postern/test/azure/control"
)

// serveSecrets has Microsoft's fake answer with what is kept.
func (s *Store) serveSecrets(ctx context.Context, c call) (api.Answer, error) {
	fakeServer := secretsfake.NewServerTransport(&secretsfake.Server{
		GetSecret: func(_ context.Context, name, version string, _ *azsecrets.GetSecretOptions) (fake.Responder[azsecrets.GetSecretResponse], fake.ErrorResponder) {
			secret, err := c.secret(name, version)
			return found(azsecrets.GetSecretResponse{Secret: secret}, err)
		},
		NewListSecretPropertiesPager: func(*azsecrets.ListSecretPropertiesOptions) fake.PagerResponder[azsecrets.ListSecretPropertiesResponse] {
			list, err := s.listSecrets(c)
			return onePage(azsecrets.ListSecretPropertiesResponse{SecretPropertiesListResult: list}, err)
		},
		NewListSecretPropertiesVersionsPager: func(name string, _ *azsecrets.ListSecretPropertiesVersionsOptions) fake.PagerResponder[azsecrets.ListSecretPropertiesVersionsResponse] {
			list, err := s.listSecrets(c)
			err = errors.Join(err, c.agree(name, ""))
			return onePage(azsecrets.ListSecretPropertiesVersionsResponse{SecretPropertiesListResult: list}, err)
		},
	})
	switch c.Operation {
	case control.List:
		return ask[azsecrets.SecretPropertiesListResult](ctx, c, fakeServer, "NewListSecretPropertiesPager")
	case control.ListVersions:
		return ask[azsecrets.SecretPropertiesListResult](ctx, c, fakeServer, "NewListSecretPropertiesVersionsPager")
	default:
		return ask[azsecrets.Secret](ctx, c, fakeServer, "GetSecret")
	}
}

func (c call) secret(name, version string) (azsecrets.Secret, error) {
	if err := c.agree(name, version); err != nil {
		return azsecrets.Secret{}, err
	}
	o, v, err := c.version()
	switch {
	case err != nil:
		return azsecrets.Secret{}, err
	case !v.enabled:
		return azsecrets.Secret{}, disabled()
	}
	secret := azsecrets.Secret{
		ID: ptr(azsecrets.ID(c.vault.idOf(control.Secrets, o.name, v.id))), Value: &v.value, ContentType: v.contentType,
		Attributes: v.secretAttributes(), Tags: optionalTags(v.tags), Managed: optionalFlag(v.managed),
	}
	if v.kid != "" {
		secret.KID = ptr(azsecrets.ID(v.kid))
	}
	return secret, nil
}

func (s *Store) listSecrets(c call) (azsecrets.SecretPropertiesListResult, error) {
	entries, next, err := s.page(c)
	list := azsecrets.SecretPropertiesListResult{NextLink: next, Value: []*azsecrets.SecretProperties{}}
	for _, e := range entries {
		list.Value = append(list.Value, &azsecrets.SecretProperties{
			ID: ptr(azsecrets.ID(e.id)), ContentType: e.version.contentType, Attributes: e.version.secretAttributes(),
			Tags: optionalTags(e.version.tags), Managed: optionalFlag(e.version.managed),
		})
	}
	return list, err
}

func (v *version) secretAttributes() *azsecrets.SecretAttributes {
	return &azsecrets.SecretAttributes{
		Enabled: &v.enabled, Created: optionalTime(v.created), Updated: optionalTime(v.updated),
		NotBefore: optionalTime(v.notBefore), Expires: optionalTime(v.expires),
		RecoverableDays: ptr(int32(recoverableDays)), RecoveryLevel: ptr(recoveryLevel),
	}
}
