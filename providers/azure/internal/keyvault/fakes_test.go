package keyvault

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"slices"
	"strings"

	azfake "github.com/Azure/azure-sdk-for-go/sdk/azcore/fake"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azcertificates"
	fakecertificates "github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azcertificates/fake"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"
	fakekeys "github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys/fake"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"
	fakesecrets "github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets/fake"

	"github.com/postern-dev/postern/providers/azure/internal/params"
)

func (m *memoryVault) secrets() policy.Transporter {
	properties := func(o *object, v version, id string) *azsecrets.SecretProperties {
		return &azsecrets.SecretProperties{
			ID: to.Ptr(azsecrets.ID(id)), Tags: o.tags,
			Attributes: &azsecrets.SecretAttributes{Enabled: to.Ptr(!v.disabled), Created: &v.created},
		}
	}
	type page = azsecrets.SecretPropertiesListResult
	return fakesecrets.NewServerTransport(&fakesecrets.Server{
		GetSecret: func(_ context.Context, name, v string, _ *azsecrets.GetSecretOptions) (out azfake.Responder[azsecrets.GetSecretResponse], _ azfake.ErrorResponder) {
			o, found := m.locked(request{collection: "secrets", name: name, version: v})
			out.SetResponse(http.StatusOK, azsecrets.GetSecretResponse{Secret: azsecrets.Secret{
				ID: to.Ptr(azsecrets.ID(idOf(o, found))), Value: to.Ptr(contentsOf + o.name + found.id),
			}}, nil)
			return
		},
		NewListSecretPropertiesPager: func(*azsecrets.ListSecretPropertiesOptions) (out azfake.PagerResponder[azsecrets.ListSecretPropertiesResponse]) {
			for some := range pagesIn(m, params.Secret, properties) {
				out.AddPage(http.StatusOK, azsecrets.ListSecretPropertiesResponse{SecretPropertiesListResult: page{Value: some}}, nil)
			}
			return
		},
		NewListSecretPropertiesVersionsPager: func(name string, _ *azsecrets.ListSecretPropertiesVersionsOptions) (out azfake.PagerResponder[azsecrets.ListSecretPropertiesVersionsResponse]) {
			for some := range versionPagesIn(m, params.Secret, name, properties) {
				out.AddPage(http.StatusOK, azsecrets.ListSecretPropertiesVersionsResponse{SecretPropertiesListResult: page{Value: some}}, nil)
			}
			return
		},
	})
}

func (m *memoryVault) keys() policy.Transporter {
	properties := func(o *object, v version, id string) *azkeys.KeyProperties {
		return &azkeys.KeyProperties{
			KID: to.Ptr(azkeys.ID(id)), Tags: o.tags,
			Attributes: &azkeys.KeyAttributes{Enabled: to.Ptr(!v.disabled), Created: &v.created},
		}
	}
	type page = azkeys.KeyPropertiesListResult
	return fakekeys.NewServerTransport(&fakekeys.Server{
		GetKey: func(_ context.Context, name, v string, _ *azkeys.GetKeyOptions) (out azfake.Responder[azkeys.GetKeyResponse], _ azfake.ErrorResponder) {
			o, found := m.locked(request{collection: "keys", name: name, version: v})
			out.SetResponse(http.StatusOK, azkeys.GetKeyResponse{KeyBundle: azkeys.KeyBundle{Key: &azkeys.JSONWebKey{
				KID: to.Ptr(azkeys.ID(idOf(o, found))), Kty: to.Ptr(azkeys.KeyTypeEC), Crv: to.Ptr(azkeys.CurveNameP256),
				X: []byte(o.name), Y: []byte(found.id),
			}}}, nil)
			return
		},
		NewListKeyPropertiesPager: func(*azkeys.ListKeyPropertiesOptions) (out azfake.PagerResponder[azkeys.ListKeyPropertiesResponse]) {
			for some := range pagesIn(m, params.Key, properties) {
				out.AddPage(http.StatusOK, azkeys.ListKeyPropertiesResponse{KeyPropertiesListResult: page{Value: some}}, nil)
			}
			return
		},
		NewListKeyPropertiesVersionsPager: func(name string, _ *azkeys.ListKeyPropertiesVersionsOptions) (out azfake.PagerResponder[azkeys.ListKeyPropertiesVersionsResponse]) {
			for some := range versionPagesIn(m, params.Key, name, properties) {
				out.AddPage(http.StatusOK, azkeys.ListKeyPropertiesVersionsResponse{KeyPropertiesListResult: page{Value: some}}, nil)
			}
			return
		},
	})
}

func (m *memoryVault) certificates() policy.Transporter {
	properties := func(o *object, v version, id string) *azcertificates.CertificateProperties {
		return &azcertificates.CertificateProperties{
			ID: to.Ptr(azcertificates.ID(id)), Tags: o.tags,
			Attributes: &azcertificates.CertificateAttributes{Enabled: to.Ptr(!v.disabled), Created: &v.created},
		}
	}
	type page = azcertificates.CertificatePropertiesListResult
	return fakecertificates.NewServerTransport(&fakecertificates.Server{
		GetCertificate: func(_ context.Context, name, v string, _ *azcertificates.GetCertificateOptions) (out azfake.Responder[azcertificates.GetCertificateResponse], _ azfake.ErrorResponder) {
			o, found := m.locked(request{collection: "certificates", name: name, version: v})
			out.SetResponse(http.StatusOK, azcertificates.GetCertificateResponse{Certificate: azcertificates.Certificate{
				ID: to.Ptr(azcertificates.ID(idOf(o, found))), CER: []byte(o.name + found.id),
			}}, nil)
			return
		},
		NewListCertificatePropertiesPager: func(*azcertificates.ListCertificatePropertiesOptions) (out azfake.PagerResponder[azcertificates.ListCertificatePropertiesResponse]) {
			for some := range pagesIn(m, params.Certificate, properties) {
				out.AddPage(http.StatusOK, azcertificates.ListCertificatePropertiesResponse{CertificatePropertiesListResult: page{Value: some}}, nil)
			}
			return
		},
		NewListCertificatePropertiesVersionsPager: func(name string, _ *azcertificates.ListCertificatePropertiesVersionsOptions) (out azfake.PagerResponder[azcertificates.ListCertificatePropertiesVersionsResponse]) {
			for some := range versionPagesIn(m, params.Certificate, name, properties) {
				out.AddPage(http.StatusOK, azcertificates.ListCertificatePropertiesVersionsResponse{CertificatePropertiesListResult: page{Value: some}}, nil)
			}
			return
		},
	})
}

func (m *memoryVault) locked(r request) (*object, version) {
	m.mu.Lock()
	defer m.mu.Unlock()
	// The fakes of two of the types take the version for a part of the name.
	if name, v, ok := strings.Cut(r.name, "/"); ok {
		r.name, r.version = name, v
	}
	return m.find(r)
}

func idOf(o *object, v version) string {
	return fmt.Sprintf("%s%s/%s/%s", vaultURL, collection(o.kind), o.name, v.id)
}

// pagesIn are those of the list of all objects.
func pagesIn[Item any](m *memoryVault, kind params.ObjectType, item func(*object, version, string) *Item) iter.Seq[[]*Item] {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []*Item
	for _, o := range m.objects {
		if o.kind == kind {
			all = append(all, item(o, o.newest(), vaultURL+collection(kind)+"/"+o.name))
		}
	}
	return paged(all, m.pageSize)
}

// versionPagesIn are those of the list of an object's versions.
func versionPagesIn[Item any](m *memoryVault, kind params.ObjectType, name string, item func(*object, version, string) *Item) iter.Seq[[]*Item] {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []*Item
	for _, o := range m.objects {
		if o.kind == kind && strings.EqualFold(o.name, name) {
			for _, v := range o.versions {
				all = append(all, item(o, v, idOf(o, v)))
			}
		}
	}
	return paged(all, m.pageSize)
}

// paged cuts a list into pages. An empty list has one.
func paged[Item any](all []*Item, size int) iter.Seq[[]*Item] {
	if size == 0 || len(all) == 0 {
		return func(yield func([]*Item) bool) { yield(all) }
	}
	return slices.Chunk(all, size)
}
