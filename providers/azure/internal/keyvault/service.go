package keyvault

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azcertificates"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"

	"github.com/postern-dev/postern/providers/azure/internal/params"
)

// service is what a vault can be asked about objects of one type.
type service interface {
	// get reads an object in one version; the newest if that is "".
	get(ctx context.Context, name, version string) (Object, error)
	// versions lists those of an object, in no order.
	versions(name string) pages
	// objects lists all objects.
	objects() pages
}

// pages gives one page of a list after the other, and says whether there are more.
type pages func(ctx context.Context) (page []entry, more bool, err error)

// entry is what a list says of an object, or of one of its versions.
type entry struct {
	name, version string
	tags          map[string]string
	disabled      bool
	// created is zero if the vault does not say.
	created time.Time
}

// newService returns the one of a type of object.
func newService(key clientKey, credential azcore.TokenCredential, options azcore.ClientOptions) (service, error) {
	switch key.kind {
	case params.Secret:
		client, err := azsecrets.NewClient(key.url, credential, &azsecrets.ClientOptions{ClientOptions: options})
		return secrets{client}, err
	case params.Key:
		client, err := azkeys.NewClient(key.url, credential, &azkeys.ClientOptions{ClientOptions: options})
		return keys{client}, err
	case params.Certificate:
		client, err := azcertificates.NewClient(key.url, credential, &azcertificates.ClientOptions{ClientOptions: options})
		return certificates{client}, err
	default:
		return nil, fmt.Errorf("a vault has no objects of type %q", key.kind)
	}
}

// incompleteError is an answer that lacks what the API says is always there.
type incompleteError struct{ lacks string }

func (e *incompleteError) Error() string { return "the vault answered without " + e.lacks }

// identified takes name and version from an object's id, such as
// https://name.vault.azure.net/secrets/db/4387e9f3d6e14c459867679a90fd0f79. They have
// to be those that were asked for; an empty version is any.
func identified(id *string, kind params.ObjectType, name, version string) (string, string, error) {
	e, err := parseID(id, kind)
	switch {
	case err != nil:
		return "", "", err
	case e.version == "":
		return "", "", &incompleteError{"the version of what it is"}
	case !strings.EqualFold(e.name, name) || (version != "" && !strings.EqualFold(e.version, version)):
		return "", "", &incompleteError{"what it was asked for: this is another object"}
	}
	return e.name, e.version, nil
}

// parseID takes an id apart. Those of lists of objects have no version.
func parseID(id *string, kind params.ObjectType) (entry, error) {
	if id == nil {
		return entry{}, &incompleteError{"an id"}
	}
	address, err := url.Parse(*id)
	if err != nil {
		return entry{}, &incompleteError{"a proper id"}
	}
	segments := strings.Split(strings.Trim(address.Path, "/"), "/")
	if len(segments) < 2 || len(segments) > 3 || segments[0] != collection(kind) || segments[1] == "" {
		return entry{}, &incompleteError{"a proper id"}
	}
	e := entry{name: segments[1]}
	if len(segments) == 3 {
		e.version = segments[2]
	}
	return e, nil
}

// collection is what the API, and permissions, call the objects of a type.
func collection(kind params.ObjectType) string {
	if kind == params.Certificate {
		return "certificates"
	}
	return string(kind) + "s"
}

// properties is what lists say of an object of any type.
type properties struct {
	kind    params.ObjectType
	id      *string
	tags    map[string]*string
	enabled *bool
	created *time.Time
}

// entry makes one of it. What is not said to be disabled is enabled.
func (p properties) entry() (entry, error) {
	e, err := parseID(p.id, p.kind)
	if err != nil {
		return entry{}, err
	}
	e.disabled = p.enabled != nil && !*p.enabled
	if p.created != nil {
		e.created = *p.created
	}
	for key, value := range p.tags {
		if value != nil {
			if e.tags == nil {
				e.tags = make(map[string]string, len(p.tags))
			}
			e.tags[key] = *value
		}
	}
	return e, nil
}

// pagesOf returns those of one of the SDK's pagers.
func pagesOf[Page, Item any](pager *runtime.Pager[Page], items func(Page) []*Item, of func(*Item) properties) pages {
	return func(ctx context.Context) ([]entry, bool, error) {
		page, err := pager.NextPage(ctx)
		if err != nil {
			return nil, false, err
		}
		var entries []entry
		for _, item := range items(page) {
			if item == nil {
				continue
			}
			e, err := of(item).entry()
			if err != nil {
				return nil, false, err
			}
			entries = append(entries, e)
		}
		return entries, pager.More(), nil
	}
}

// value is what p points to, or nothing.
func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}
