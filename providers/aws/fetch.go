package aws

import (
	"context"
	"time"

	"github.com/postern-dev/postern/providers/aws/internal/identity"
	"github.com/postern-dev/postern/providers/aws/internal/params"
	"github.com/postern-dev/postern/providers/aws/internal/store"
	"github.com/postern-dev/postern/providers/sdk"
)

// failoverPatience is how long the first region may take before the failover
// region is asked: one that hangs costs a pod no more than this.
const failoverPatience = 5 * time.Second

// fetch is one call of Fetch.
type fetch struct {
	p    *provider
	req  *sdk.Request
	spec *params.Spec
	use  identity.Use
}

// found is what a region has of one object of a class, or of one of those that
// its selection matches.
type found struct {
	// object is the class's, and its File this one's.
	object params.Object
	ref    store.Ref
	region string
	// name is what messages call it.
	name     string
	version  string
	contents sdk.Secret
	err      error
}

// outcome is how reading one region ended.
type outcome struct {
	region string
	// objects are by place in the class.
	objects [][]found
	// err concerns all objects.
	err error
}

// run answers that nothing has changed, if that can be told without reading, or
// else reads everything.
func (f *fetch) run(ctx context.Context) (*sdk.Response, error) {
	if f.p.describe && len(f.req.CurrentObjects) > 0 {
		objects, ok := f.versions(ctx)
		if ok && f.req.Holds(objects) {
			return f.answer(nil, nil), nil
		}
	}
	read, err := f.read(ctx)
	if err != nil {
		return nil, err
	}
	return f.response(read)
}

// versions tells what a read would answer, from the first region. Where that
// cannot be told, ok is false: reading says what is wrong.
func (f *fetch) versions(ctx context.Context) (objects []sdk.ObjectVersion, ok bool) {
	o := f.inFirst(ctx, f.describe)
	if o.failure() != nil {
		return nil, false
	}
	return f.objectVersions(o), true
}

// read reads in the first region and, where that region does not work, in the
// failover region. What the first region refuses is refused: the other is not
// asked for a way around it.
func (f *fetch) read(ctx context.Context) (outcome, error) {
	first := f.inFirst(ctx, f.readContents)
	if len(f.spec.Regions) == 1 || !first.allowsFailover() {
		return f.checked(ctx, first)
	}
	second := f.inRegion(ctx, 1, f.readContents)
	if second.failure() != nil {
		return outcome{}, f.bothFailed(ctx, first, second)
	}
	return second, nil
}

// inFirst looks all objects up in the first region. Where there is another one to
// ask, it does not wait for longer than failoverPatience.
func (f *fetch) inFirst(ctx context.Context, look lookup) outcome {
	if len(f.spec.Regions) > 1 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, failoverPatience)
		defer cancel()
	}
	return f.inRegion(ctx, 0, look)
}

// checked is an outcome that has everything, or the error that says what not.
func (f *fetch) checked(ctx context.Context, o outcome) (outcome, error) {
	if o.failure() != nil {
		return outcome{}, f.failed(ctx, o)
	}
	return o, nil
}

// lookup finds out about objects in one region, all at once.
type lookup func(ctx context.Context, region store.Region, objects []*found) error

// readContents reads each.
func (f *fetch) readContents(ctx context.Context, region store.Region, objects []*found) error {
	answers, err := f.p.store.Read(ctx, region, refsOf(objects))
	if err != nil {
		return err
	}
	for i, a := range answers {
		objects[i].version, objects[i].contents, objects[i].err = a.Version, a.Contents, a.Err
	}
	return nil
}

// describe asks for the versions.
func (f *fetch) describe(ctx context.Context, region store.Region, objects []*found) error {
	versions, ok, err := f.p.store.Versions(ctx, region, refsOf(objects))
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

// inRegion looks all objects up in one region. Credentials of an earlier fetch
// that AWS does not accept any more are replaced, once.
func (f *fetch) inRegion(ctx context.Context, index int, look lookup) outcome {
	use := f.use
	use.Region = f.spec.Regions[index]
	for again := true; ; again = false {
		o := outcome{region: use.Region}
		session, err := f.p.sessions.Acquire(ctx, use)
		if err != nil {
			o.err = err
			return o
		}
		region := store.Region{Name: use.Region, Credentials: session.Provider(), Identity: session.Key()}
		o.objects, o.err = f.lookUp(ctx, region, index, look)
		if !o.rejected() || !session.Cached() {
			return o
		}
		f.p.sessions.Drop(session)
		if !again {
			return o
		}
	}
}

// lookUp looks all objects up in one region, after it has found out which those
// of the class's selections are.
func (f *fetch) lookUp(ctx context.Context, region store.Region, index int, look lookup) ([][]found, error) {
	objects := make([][]found, len(f.spec.Objects))
	var wanted []*found
	for i, object := range f.spec.Objects {
		if object.Select == nil {
			ref := store.Ref{Service: object.Service, Source: object.Sources[index]}
			objects[i] = []found{{object: object, region: region.Name, name: object.Name(), ref: ref}}
		} else {
			objects[i] = f.selected(ctx, region, object)
		}
		for j := range objects[i] {
			if objects[i][j].err == nil {
				wanted = append(wanted, &objects[i][j])
			}
		}
	}
	if len(wanted) == 0 {
		return objects, nil
	}
	return objects, look(ctx, region, wanted)
}

// selected finds what an object's selection matches. A failure is that of one
// object, too.
func (f *fetch) selected(ctx context.Context, region store.Region, object params.Object) []found {
	failed := func(err error) []found {
		return []found{{object: object, region: region.Name, name: object.Name(), err: err}}
	}
	items, err := f.p.store.List(ctx, region, object.Service, object.Select)
	switch {
	case err != nil:
		return failed(err)
	case len(items) > object.Select.Limit:
		return failed(&tooManyError{object.Select.Limit})
	case len(items) == 0:
		return failed(errNoneSelected)
	}
	all := make([]found, len(items))
	for i, item := range items {
		one := object
		one.File = object.Select.File(item.Name, f.spec.Translation)
		all[i] = found{
			object: one, region: region.Name, name: item.Name,
			ref: store.Ref{Service: object.Service, Source: params.Source{ID: item.ID}},
		}
	}
	return all
}
