package gcp

import (
	"context"

	"github.com/postern-dev/postern/providers/gcp/internal/identity"
	"github.com/postern-dev/postern/providers/gcp/internal/params"
	"github.com/postern-dev/postern/providers/gcp/internal/store"
	"github.com/postern-dev/postern/providers/sdk"
)

// fetch is one call of Fetch.
type fetch struct {
	p    *provider
	req  *sdk.Request
	spec *params.Spec
	use  identity.Use
}

// found is what the store has of one object of a class, or of one of those that
// its selection matches.
type found struct {
	object params.Object
	ref    store.Ref
	// file is the path of its file.
	file string
	// title is what messages call it.
	title    string
	version  string
	contents sdk.Secret
	err      error
}

// outcome is how looking the objects up ended.
type outcome struct {
	objects []found
	// err concerns all objects.
	err error
}

// run answers that nothing has changed, if that can be told without reading, or
// else reads everything.
func (f *fetch) run(ctx context.Context) (*sdk.Response, error) {
	if f.p.options.refreshCheck == checkDescribe && len(f.req.CurrentObjects) > 0 {
		if o := f.lookUp(ctx, f.describe); o.failure() == nil && f.req.Holds(f.objectVersions(o.objects)) {
			return f.answer(nil, nil), nil
		}
	}
	o := f.lookUp(ctx, f.readContents)
	if o.failure() != nil {
		return nil, f.failed(ctx, o)
	}
	return f.response(o.objects)
}

// lookup finds out about objects, all at once.
type lookup func(ctx context.Context, as store.As, objects []*found) error

// readContents reads each.
func (f *fetch) readContents(ctx context.Context, as store.As, objects []*found) error {
	answers, err := f.p.store.Read(ctx, as, refsOf(objects))
	if err != nil {
		return err
	}
	for i, a := range answers {
		objects[i].version, objects[i].contents, objects[i].err = a.Version, a.Contents, a.Err
	}
	return nil
}

// describe asks for the versions.
func (f *fetch) describe(ctx context.Context, as store.As, objects []*found) error {
	versions, ok, err := f.p.store.Versions(ctx, as, refsOf(objects))
	switch {
	case err != nil:
		return err
	case !ok:
		return errUntold
	}
	for i, version := range versions {
		objects[i].version = version
	}
	return nil
}

func refsOf(objects []*found) []store.Ref {
	refs := make([]store.Ref, len(objects))
	for i, one := range objects {
		refs[i] = one.ref
	}
	return refs
}

// lookUp looks all objects up. A token of an earlier fetch that Google does not
// accept any more is replaced, once.
func (f *fetch) lookUp(ctx context.Context, look lookup) outcome {
	for again := true; ; again = false {
		token, err := f.p.tokens.Acquire(ctx, f.use)
		if err != nil {
			return outcome{err: err}
		}
		o := f.lookUpAs(ctx, store.As{Credentials: token.PerRPC(), Identity: token.Identity()}, look)
		if !o.rejected() || !token.Cached() {
			return o
		}
		f.p.tokens.Drop(token)
		if !again {
			return o
		}
	}
}

// lookUpAs looks all objects up with one token, after it has found out which those
// of the class's selections are.
func (f *fetch) lookUpAs(ctx context.Context, as store.As, look lookup) outcome {
	var o outcome
	for _, object := range f.spec.Secrets {
		if object.Select != nil {
			o.objects = append(o.objects, f.selected(ctx, as, object)...)
			continue
		}
		o.objects = append(o.objects, found{
			object: object, file: object.File, title: object.Title(),
			ref: store.Ref{Kind: object.Kind, Resource: object.Resource, Location: object.Location},
		})
	}
	var wanted []*found
	for i := range o.objects {
		if o.objects[i].err == nil {
			wanted = append(wanted, &o.objects[i])
		}
	}
	if len(wanted) > 0 {
		o.err = look(ctx, as, wanted)
	}
	return o
}

// selected are the secrets that a selection matches, each in its newest version, or
// the one failure to find them.
func (f *fetch) selected(ctx context.Context, as store.As, object params.Object) []found {
	failed := func(err error) []found {
		return []found{{object: object, title: object.Title(), err: err}}
	}
	names, err := f.p.store.List(ctx, as, object.Select)
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
		resource := object.Select.Resource(name)
		all[i] = found{
			object: object, file: object.Select.File(name), title: resource,
			ref: store.Ref{Kind: params.Secret, Resource: resource, Location: object.Select.Location},
		}
	}
	return all
}
