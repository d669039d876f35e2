package aws

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io/fs"

	"github.com/postern-dev/postern/providers/aws/internal/extract"
	"github.com/postern-dev/postern/providers/aws/internal/params"
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
					return nil, nameTaken(file.Path, owner, one)
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

// objectVersions are those of the files that are named in the class: the keys of
// a JSON object that become files have no version of their own.
func (f *fetch) objectVersions(o outcome) []sdk.ObjectVersion {
	var versions []sdk.ObjectVersion
	for _, all := range o.objects {
		for i := range all {
			versions = append(versions, f.objectVersion(&all[i]))
		}
	}
	return versions
}

func (f *fetch) objectVersion(one *found) sdk.ObjectVersion {
	id := one.object.File
	if id == "" {
		id = one.name // a selection that nothing matches
	}
	if one.err != nil || one.version == "" {
		return sdk.ObjectVersion{ID: id, Version: versionMissing}
	}
	return sdk.ObjectVersion{ID: id, Version: one.version + "+" + f.digest(one)}
}

// digest stands for all that decides what an object of a version puts into the
// volume. It tells a class that was edited from one that was not, and a parameter
// from another of the same version number.
func (f *fetch) digest(one *found) string {
	text, err := json.Marshal(struct {
		Region, ID, File, Translation string
		Service                       params.Service
		Mode                          fs.FileMode
		Rules                         []params.Rule
	}{one.region, one.ref.ID, one.object.File, f.spec.Translation, one.object.Service, one.object.Mode.Or(f.req.DefaultFileMode), one.object.Rules})
	if err != nil {
		panic(err) // nothing of this cannot be encoded
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:4])
}
