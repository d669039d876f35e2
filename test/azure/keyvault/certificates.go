package keyvault

import (
	"context"
	"crypto/sha1"
	"errors"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/fake"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azcertificates"
	certificatesfake "github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azcertificates/fake"

	"github.com/postern-dev/postern/test/azure/api"
	"github.com/postern-dev/postern/test/azure/control"
)

// serveCertificates is serveSecrets for certificates.
func (s *Store) serveCertificates(ctx context.Context, c call) (api.Answer, error) {
	fakeServer := certificatesfake.NewServerTransport(&certificatesfake.Server{
		GetCertificate: func(_ context.Context, name, version string, _ *azcertificates.GetCertificateOptions) (fake.Responder[azcertificates.GetCertificateResponse], fake.ErrorResponder) {
			certificate, err := c.certificate(name, version)
			return found(azcertificates.GetCertificateResponse{Certificate: certificate}, err)
		},
		NewListCertificatePropertiesPager: func(*azcertificates.ListCertificatePropertiesOptions) fake.PagerResponder[azcertificates.ListCertificatePropertiesResponse] {
			list, err := s.listCertificates(c)
			return onePage(azcertificates.ListCertificatePropertiesResponse{CertificatePropertiesListResult: list}, err)
		},
		NewListCertificatePropertiesVersionsPager: func(name string, _ *azcertificates.ListCertificatePropertiesVersionsOptions) fake.PagerResponder[azcertificates.ListCertificatePropertiesVersionsResponse] {
			list, err := s.listCertificates(c)
			err = errors.Join(err, c.agree(name, ""))
			return onePage(azcertificates.ListCertificatePropertiesVersionsResponse{CertificatePropertiesListResult: list}, err)
		},
	})
	switch c.Operation {
	case control.List:
		return ask[azcertificates.CertificatePropertiesListResult](ctx, c, fakeServer, "NewListCertificatePropertiesPager")
	case control.ListVersions:
		return ask[azcertificates.CertificatePropertiesListResult](ctx, c, fakeServer, "NewListCertificatePropertiesVersionsPager")
	default:
		return ask[azcertificates.Certificate](ctx, c, fakeServer, "GetCertificate")
	}
}

func (c call) certificate(name, version string) (azcertificates.Certificate, error) {
	if err := c.agree(name, version); err != nil {
		return azcertificates.Certificate{}, err
	}
	o, v, err := c.version()
	if err != nil {
		return azcertificates.Certificate{}, err
	}
	id := func(service string) *azcertificates.ID {
		return ptr(azcertificates.ID(c.vault.idOf(service, o.name, v.id)))
	}
	certificate := azcertificates.Certificate{
		ID: id(control.Certificates), SID: id(control.Secrets), CER: v.cer, X509Thumbprint: v.thumbprint(),
		Attributes: v.certificateAttributes(), Tags: optionalTags(v.tags),
		Policy: &azcertificates.CertificatePolicy{
			ID:               ptr(azcertificates.ID(c.vault.idOf(control.Certificates, o.name, "") + "/policy")),
			SecretProperties: &azcertificates.SecretProperties{ContentType: &v.secretType},
			IssuerParameters: &azcertificates.IssuerParameters{Name: ptr("Unknown")},
		},
	}
	if c.vault.objects[control.Keys][strings.ToLower(o.name)] != nil {
		certificate.KID = id(control.Keys)
	}
	return certificate, nil
}

func (s *Store) listCertificates(c call) (azcertificates.CertificatePropertiesListResult, error) {
	entries, next, err := s.page(c)
	list := azcertificates.CertificatePropertiesListResult{NextLink: next, Value: []*azcertificates.CertificateProperties{}}
	for _, e := range entries {
		list.Value = append(list.Value, &azcertificates.CertificateProperties{
			ID: ptr(azcertificates.ID(e.id)), X509Thumbprint: e.version.thumbprint(), Attributes: e.version.certificateAttributes(), Tags: optionalTags(e.version.tags),
		})
	}
	return list, err
}

// thumbprint is SHA-1, as Key Vault has it.
func (v *version) thumbprint() []byte {
	sum := sha1.Sum(v.cer)
	return sum[:]
}

func (v *version) certificateAttributes() *azcertificates.CertificateAttributes {
	return &azcertificates.CertificateAttributes{
		Enabled: &v.enabled, Created: optionalTime(v.created), Updated: optionalTime(v.updated),
		NotBefore: optionalTime(v.notBefore), Expires: optionalTime(v.expires),
		RecoverableDays: ptr(int32(recoverableDays)), RecoveryLevel: ptr(recoveryLevel),
	}
}
