package azure

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"log/slog"
	"strconv"

	"github.com/postern-dev/postern/providers/azure/internal/content"
	"github.com/postern-dev/postern/providers/azure/internal/identity"
	"github.com/postern-dev/postern/providers/sdk"
)

// versionMissing is the version of an optional object that is not there.
const versionMissing = "missing"

// response makes the files of what was read. Key Vault does not tell versions
// without values, so a refresh has read them, too; what has not changed goes no
// further than here.
func (f *fetch) response(ctx context.Context, read []found) (*sdk.Response, error) {
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
		made, err := f.files(ctx, one)
		if err != nil {
			return nil, err
		}
		for _, file := range made {
			if owner, ok := owners[file.Path]; ok {
				return nil, nameTaken(owner, file.Path, one)
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

// files are those of one object.
func (f *fetch) files(ctx context.Context, one *found) ([]content.File, error) {
	var all []content.File
	for i := range one.versions {
		files, warnings, err := content.Files(one.path(i), one.object, one.versions[i], f.p.options.content)
		if err != nil {
			return nil, contentError(one, err)
		}
		for _, warning := range warnings {
			f.p.logger.LogAttrs(ctx, slog.LevelWarn, "an object is mounted, and may not be what is wanted",
				slog.String("vault", f.spec.VaultName), slog.String("object", one.title), slog.String("warning", warning))
		}
		all = append(all, files...)
	}
	return all, nil
}

// path is that of one version's file.
func (one *found) path(i int) string {
	if one.object.History > 1 {
		return one.file + "/" + strconv.Itoa(i)
	}
	return one.file
}

// answer is for all pods of the service account, which have the same identity; of
// AAD Pod Identity only the pod itself is known to have it.
func (f *fetch) answer(files []sdk.File, objects []sdk.ObjectVersion) *sdk.Response {
	sharing := sdk.SharingServiceAccount
	if f.use.Kind == identity.PodIdentity {
		sharing = sdk.SharingPod
	}
	return &sdk.Response{
		NotModified: files == nil, Files: files, Objects: objects, Sharing: sharing, FreshFor: freshFor,
	}
}

// objectVersions have the upstream provider's ids: <type>/<name>, with versions
// <type>/<name>/<index>. Where a class names an object more than once its file is
// added, since of two with one id only one is kept.
func (f *fetch) objectVersions(read []found) []sdk.ObjectVersion {
	var all []sdk.ObjectVersion
	taken := make(map[string]bool)
	add := func(id, path, version string) {
		if taken[id] {
			id += " in " + path
		}
		taken[id] = true
		all = append(all, sdk.ObjectVersion{ID: id, Version: version})
	}
	for i := range read {
		one := &read[i]
		id := string(one.object.Type) + "/" + one.title
		if one.err != nil {
			add(id, one.file, versionMissing)
			continue
		}
		for j := range one.versions {
			if one.object.History > 1 {
				add(id+"/"+strconv.Itoa(j), one.path(j), f.version(one, j))
			} else {
				add(id, one.path(j), f.version(one, j))
			}
		}
	}
	return all
}

// version is the vault's own, with a digest of all else that decides what it puts
// into the volume: it tells a class that was edited, or a content type that was
// changed, from what was mounted before.
func (f *fetch) version(one *found, i int) string {
	o, v := one.object, &one.versions[i]
	options := f.p.options.content
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %o %t %t %t",
		[]string{f.spec.VaultURL, string(o.Type), v.Name, one.path(i), string(o.Format), string(o.Encoding), v.ContentType},
		o.Mode.Or(f.req.DefaultFileMode), v.CertificateBacked, options.ConstructPEMChain, options.SeparateFiles))
	return v.Version + "+" + hex.EncodeToString(sum[:4])
}
