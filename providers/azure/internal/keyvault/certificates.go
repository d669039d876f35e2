package keyvault

import (
	"context"

	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azcertificates"

	"github.com/postern-dev/postern/providers/azure/internal/params"
)

type certificates struct{ client *azcertificates.Client }

func (c certificates) get(ctx context.Context, name, version string) (Object, error) {
	answer, err := c.client.GetCertificate(ctx, name, version, nil)
	if err != nil {
		return Object{}, err
	}
	name, version, err = identified((*string)(answer.ID), params.Certificate, name, version)
	if err != nil {
		return Object{}, err
	}
	if len(answer.CER) == 0 {
		return Object{}, &incompleteError{"the certificate itself: it may not have been issued yet"}
	}
	return Object{Type: params.Certificate, Name: name, Version: version, CER: answer.CER}, nil
}

func (c certificates) versions(name string) pages {
	return pagesOf(c.client.NewListCertificatePropertiesVersionsPager(name, nil),
		func(page azcertificates.ListCertificatePropertiesVersionsResponse) []*azcertificates.CertificateProperties {
			return page.Value
		}, certificateProperties)
}

// objects leaves those out that are not issued yet, as the vault does unless asked.
func (c certificates) objects() pages {
	return pagesOf(c.client.NewListCertificatePropertiesPager(nil),
		func(page azcertificates.ListCertificatePropertiesResponse) []*azcertificates.CertificateProperties {
			return page.Value
		},
		certificateProperties)
}

func certificateProperties(c *azcertificates.CertificateProperties) properties {
	attributes := value(c.Attributes)
	return properties{params.Certificate, (*string)(c.ID), c.Tags, attributes.Enabled, attributes.Created}
}
