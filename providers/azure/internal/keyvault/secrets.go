package keyvault

import (
	"context"

	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"

	"github.com/postern-dev/postern/providers/azure/internal/params"
	"github.com/postern-dev/postern/providers/sdk"
)

type secrets struct{ client *azsecrets.Client }

func (s secrets) get(ctx context.Context, name, version string) (Object, error) {
	answer, err := s.client.GetSecret(ctx, name, version, nil)
	if err != nil {
		return Object{}, err
	}
	name, version, err = identified((*string)(answer.ID), params.Secret, name, version)
	if err != nil {
		return Object{}, err
	}
	if answer.Value == nil {
		return Object{}, &incompleteError{"the secret's value"}
	}
	return Object{
		Type: params.Secret, Name: name, Version: version,
		Value:             sdk.NewSecret([]byte(*answer.Value)),
		ContentType:       value(answer.ContentType),
		CertificateBacked: answer.KID != nil,
	}, nil
}

func (s secrets) versions(name string) pages {
	return pagesOf(s.client.NewListSecretPropertiesVersionsPager(name, nil),
		func(page azsecrets.ListSecretPropertiesVersionsResponse) []*azsecrets.SecretProperties {
			return page.Value
		}, secretProperties)
}

func (s secrets) objects() pages {
	return pagesOf(s.client.NewListSecretPropertiesPager(nil),
		func(page azsecrets.ListSecretPropertiesResponse) []*azsecrets.SecretProperties { return page.Value }, secretProperties)
}

func secretProperties(s *azsecrets.SecretProperties) properties {
	attributes := value(s.Attributes)
	return properties{params.Secret, (*string)(s.ID), s.Tags, attributes.Enabled, attributes.Created}
}
