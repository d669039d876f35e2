package aws

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"

	"github.com/postern-dev/postern/providers/aws/internal/extract"
	"github.com/postern-dev/postern/providers/sdk"
)

// versionMissing is the version of an optional object that is not there.
const versionMissing = "missing"

// response makes the files of what was read.
func (f *fetch) response(o outcome) (*sdk.Response, error) {
	objects := f.objectVersions(o)
	if f.req.Holds(objects) {
		return f.answer(nil, nil), nil
	}
	var files []sdk.File
	owners := make(map[string]string)
	for _, all := range o.objects {
		for i := range all {
			one := &all[i]
			if one.err != nil {
				continue // it is optional
			}
			made, err := extract.Files(one.object, f.spec.Translation, one.contents.Reveal())
			if err != nil {
				return nil, contentError(one, err)
			}
			for _, file := range made {
				if owner, ok := owners[file.Path]; ok {
					return nil, nameTaken(owner, one)
				}
				owners[file.Path] = one.name
				files = append(files, sdk.File{Path: file.Path, Mode: fs.FileMode(file.Mode), Contents: file.Contents})
			}
		}
	}
	if len(files) == 0 {
		return nil, nothingThere(f.spec)
	}
	return f.answer(files, objects), nil
}

// answer is for all pods of the service account: they have the same role.
func (f *fetch) answer(files []sdk.File, objects []sdk.ObjectVersion) *sdk.Response {
	return &sdk.Response{
		NotModified: files == nil, Files: files, Objects: objects,
		Sharing: sdk.SharingServiceAccount, FreshFor: freshFor,
	}
}

// objectVersions are those of the files that the class names. What a "*" of a rule
// stands for is not known without the contents: such files have no version of
// their own.
func (f *fetch) objectVersions(o outcome) []sdk.ObjectVersion {
	var versions []sdk.ObjectVersion
	for _, all := range o.objects {
		for i := range all {
			versions = append(versions, f.versionsOf(&all[i])...)
		}
	}
	return versions
}

func (f *fetch) versionsOf(one *found) []sdk.ObjectVersion {
	id := one.object.File
	if id == "" {
		id = one.name // a selection that nothing matches
	}
	if one.err != nil || one.version == "" {
		return []sdk.ObjectVersion{{ID: id, Version: versionMissing}}
	}
	version := one.version + "+" + f.digest(one)
	versions := []sdk.ObjectVersion{{ID: id, Version: version}}
	for _, r := range one.object.Rules {
		if !r.All {
			versions = append(versions, sdk.ObjectVersion{ID: r.File, Version: version})
		}
	}
	return versions
}

// digest stands for all that decides what an object of a version puts into the
// volume. It tells a class that was edited from one that was not, and a parameter
// from another of the same version number.
func (f *fetch) digest(one *found) string {
	o := one.object
	text := fmt.Appendf(nil, "%q %o", []string{one.region, string(o.Service), one.ref.ID, o.File, f.spec.Translation}, o.Mode.Or(f.req.DefaultFileMode))
	for _, r := range o.Rules {
		text = fmt.Appendf(text, " %q %q %o %t", r.Expression, r.File, r.Mode, r.All)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:4])
}
