package gcp

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"

	"github.com/postern-dev/postern/providers/gcp/internal/extract"
	"github.com/postern-dev/postern/providers/sdk"
)

// versionMissing is the version of an optional object that is not there.
const versionMissing = "missing"

// response makes the files of what was read.
func (f *fetch) response(read []found) (*sdk.Response, error) {
	objects := f.objectVersions(read)
	if f.req.Holds(objects) {
		return f.answer(nil, nil), nil
	}
	var files []sdk.File
	owners := make(map[string]string)
	for i := range read {
		one := &read[i]
		if one.err != nil {
			continue // it is optional
		}
		made, err := extract.Files(one.object, one.file, one.contents.Reveal())
		if err != nil {
			return nil, contentError(one, err)
		}
		for _, file := range made {
			if owner, ok := owners[file.Path]; ok {
				return nil, nameTaken(owner, one)
			}
			owners[file.Path] = one.title
			files = append(files, sdk.File{Path: file.Path, Mode: fs.FileMode(file.Mode), Contents: file.Contents})
		}
	}
	if len(files) == 0 {
		return nil, nothingThere(f.spec)
	}
	return f.answer(files, objects), nil
}

// answer is for all pods of the service account, which have the same identity.
func (f *fetch) answer(files []sdk.File, objects []sdk.ObjectVersion) *sdk.Response {
	return &sdk.Response{
		NotModified: files == nil, Files: files, Objects: objects,
		Sharing: sdk.SharingServiceAccount, FreshFor: freshFor,
	}
}

// objectVersions have the upstream provider's ids, the names as the class writes
// them. Where it names one more than once the file is added, since of two with one
// id only one is kept.
func (f *fetch) objectVersions(read []found) []sdk.ObjectVersion {
	all := make([]sdk.ObjectVersion, len(read))
	taken := make(map[string]bool)
	for i := range read {
		one := &read[i]
		id := one.title
		if taken[id] {
			id += " in " + one.file
		}
		taken[id] = true
		all[i] = sdk.ObjectVersion{ID: id, Version: f.version(one)}
	}
	return all
}

// version is the store's own, with a digest of all else that decides what it puts
// into the volume: it tells a class that was edited from what was mounted before.
func (f *fetch) version(one *found) string {
	if one.err != nil || one.version == "" {
		return versionMissing
	}
	o := one.object
	text := fmt.Appendf(nil, "%q %o", []string{one.ref.Resource, one.file}, o.Mode.Or(f.req.DefaultFileMode))
	if o.Rule != nil {
		text = fmt.Appendf(text, " %q %q", o.Rule.Format, o.Rule.Key)
	}
	sum := sha256.Sum256(text)
	return one.version + "+" + hex.EncodeToString(sum[:4])
}
