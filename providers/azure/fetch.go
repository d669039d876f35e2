package azure

import (
	"context"

	"github.com/postern-dev/postern/providers/azure/internal/identity"
	"github.com/postern-dev/postern/providers/azure/internal/keyvault"
	"github.com/postern-dev/postern/providers/azure/internal/params"
	"github.com/postern-dev/postern/providers/sdk"
)

// fetch is one call of Fetch.
type fetch struct {
	p    *provider
	req  *sdk.Request
	spec *params.Spec
	use  identity.Use
}

// found is what the vault has of one object of a class, or of one of those that
// its selection matches.
type found struct {
	object params.Object
	ref    keyvault.Ref
	// file is where it goes: the path of its file or, with versions, of the
	// directory of their files.
	file string
	// title is what messages call it.
	title    string
	versions []keyvault.Object
	err      error
}

// outcome is how reading the vault ended.
type outcome struct {
	objects []found
	// err concerns all objects.
	err error
}

// read reads all objects. A token of an earlier fetch that the vault does not
// accept any more is replaced, once.
func (f *fetch) read(ctx context.Context) ([]found, error) {
	for again := true; ; again = false {
		token, err := f.p.tokens.Acquire(ctx, f.use)
		if err != nil {
			return nil, f.failed(ctx, outcome{err: err})
		}
		o := f.readAs(ctx, token)
		if o.rejected() && token.Cached() {
			f.p.tokens.Drop(token)
			if again {
				continue
			}
		}
		if o.failure() != nil {
			return nil, f.failed(ctx, o)
		}
		return o.objects, nil
	}
}

// readAs reads all objects with one token, after it has found out which those of
// the class's selections are.
func (f *fetch) readAs(ctx context.Context, token *identity.Token) outcome {
	vault := keyvault.Vault{URL: f.spec.VaultURL, Identity: token.Key(), Credential: token}
	var o outcome
	for _, object := range f.spec.Objects {
		if object.Select != nil {
			o.objects = append(o.objects, f.selected(ctx, vault, object)...)
			continue
		}
		o.objects = append(o.objects, found{
			object: object, file: object.File(), title: object.Title(),
			ref: keyvault.Ref{Type: object.Type, Name: object.Name, Version: object.Version, History: object.History},
		})
	}
	var refs []keyvault.Ref
	for i := range o.objects {
		if o.objects[i].err == nil {
			refs = append(refs, o.objects[i].ref)
		}
	}
	if len(refs) == 0 {
		return o
	}
	answers, err := f.p.store.Read(ctx, vault, refs)
	if err != nil {
		o.err = err
		return o
	}
	next := 0
	for i := range o.objects {
		if one := &o.objects[i]; one.err == nil {
			one.versions, one.err = answers[next].Objects, answers[next].Err
			next++
		}
	}
	return o
}

// selected are the objects that a selection matches, or the one failure to find
// them.
func (f *fetch) selected(ctx context.Context, vault keyvault.Vault, object params.Object) []found {
	failed := func(err error) []found {
		return []found{{object: object, title: object.Title(), err: err}}
	}
	names, err := f.p.store.List(ctx, vault, object.Type, object.Select)
	switch {
	case err != nil:
		return failed(err)
	case len(names) > object.Select.Limit:
		return failed(&tooManyError{object.Select.Limit})
	case len(names) == 0:
		return failed(errNoneSelected)
	}
	all := make([]found, len(names))
	for i, name := range names {
		all[i] = found{
			object: object, file: object.Select.File(name), title: name,
			ref: keyvault.Ref{Type: object.Type, Name: name},
		}
	}
	return all
}
