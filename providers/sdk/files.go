package sdk

import (
	"fmt"
	"io/fs"
	"path"
	"strings"
	"unicode/utf8"
)

// Limits of a file's path in a volume, in bytes.
const (
	maxPathBytes    = 4096
	maxElementBytes = 255
)

// MaxResponseBytes is what the files of a volume may take: contents, paths and
// 64 bytes for each. A gRPC message of ours is at most 16 MiB, of which the
// rest is for objects. The upstream driver's is 4 MiB unless a flag of it says
// otherwise.
const MaxResponseBytes = 15 << 20

// MaxStateBytes is what a Response's State may take.
const MaxStateBytes = 16 << 10

// ValidateFiles checks the rules that the files of a volume keep, which are
// the upstream driver's and the atomic writer's:
//
//   - a path is relative, not empty, in clean form, without "..", without
//     NUL, in UTF-8, at most 4096 bytes long and each element 255;
//   - its first element does not start with "..", which is the atomic
//     writer's own;
//   - paths are unique, and none is a directory on the way to another;
//   - a mode has permission bits only.
//
// The error is an [*Error] with ReasonInvalidResponse and names the first
// file that breaks a rule.
func ValidateFiles(files []File) error {
	paths := make([]string, 0, len(files))
	for _, f := range files {
		if f.Mode&^fs.ModePerm != 0 {
			return invalidResponse("file %q: mode %#o is more than 0777", f.Path, uint32(f.Mode))
		}
		paths = append(paths, f.Path)
	}
	if i, problem := CheckPaths(paths); problem != "" {
		return invalidResponse("file %q: %s", paths[i], problem)
	}
	return nil
}

// CheckPaths checks the rules of ValidateFiles for paths alone, so that a
// provider can refuse them as parameters before it fetches anything. It returns
// the index of the first path that breaks one and what is wrong with it, or "".
func CheckPaths(paths []string) (index int, problem string) {
	seen := make(map[string]bool, len(paths))
	for i, p := range paths {
		if problem := pathProblem(p); problem != "" {
			return i, "the path " + problem
		}
		if seen[p] {
			return i, "two objects give this file: set another path for one of them"
		}
		seen[p] = true
	}
	for i, p := range paths {
		for dir := path.Dir(p); dir != "."; dir = path.Dir(dir) {
			if seen[dir] {
				return i, fmt.Sprintf("%q is a file and cannot be a directory too", dir)
			}
		}
	}
	return 0, ""
}

func pathProblem(p string) string {
	switch {
	case p == "":
		return "is empty"
	case strings.HasPrefix(p, "/"):
		return "is absolute"
	case strings.ContainsRune(p, 0):
		return "holds a NUL"
	case !utf8.ValidString(p):
		return "is not UTF-8"
	case len(p) > maxPathBytes:
		return fmt.Sprintf("is longer than %d bytes", maxPathBytes)
	case strings.HasPrefix(p, ".."):
		return `starts with ".."`
	case path.Clean(p) != p || p == ".":
		return "is not in clean form"
	}
	for element := range strings.SplitSeq(p, "/") {
		if len(element) > maxElementBytes {
			return fmt.Sprintf("has an element longer than %d bytes", maxElementBytes)
		}
	}
	return ""
}

// validateResponse checks the rules of Response.
func validateResponse(def *Definition, req *Request, resp *Response) error {
	if resp == nil {
		return invalidResponse("no answer and no error")
	}
	if resp.FreshFor < 0 || resp.RefreshAfter < 0 {
		return invalidResponse("a time is negative")
	}
	if resp.Sharing < SharingNone || resp.Sharing > SharingNamespace {
		return invalidResponse("sharing %d is not defined", int(resp.Sharing))
	}
	if err := validateState(resp); err != nil {
		return err
	}
	if resp.NotModified {
		return validateNotModified(def, req, resp)
	}
	if len(resp.Files) == 0 {
		return invalidResponse("no files")
	}
	if len(resp.Objects) == 0 {
		return invalidResponse("no objects")
	}
	if err := ValidateFiles(resp.Files); err != nil {
		return err
	}
	if err := validateSize(resp.Files); err != nil {
		return err
	}
	ids, err := validateObjects(resp.Objects)
	if err != nil {
		return err
	}
	return validateLeases(def, resp.Leases, ids)
}

func validateState(resp *Response) error {
	switch size := resp.State.Len(); {
	case size > MaxStateBytes:
		return invalidResponse("the state takes %d bytes, and may take %d", size, MaxStateBytes)
	case size > 0 && resp.Sharing != SharingNone && resp.Sharing != SharingPod:
		return invalidResponse("state, but sharing %s: what is one volume's own cannot be shared", resp.Sharing)
	}
	return nil
}

func validateSize(files []File) error {
	const overhead = 64
	size := 0
	for _, f := range files {
		size += len(f.Path) + f.Contents.Len() + overhead
	}
	if size > MaxResponseBytes {
		return newError(ReasonResponseTooLarge, "", "the files take %d bytes, and a volume may take %d: "+
			"ask for fewer or smaller objects", []any{size, MaxResponseBytes})
	}
	return nil
}

func validateNotModified(def *Definition, req *Request, resp *Response) error {
	switch {
	case !def.NotModified:
		return invalidResponse("not modified, which the provider's definition does not announce")
	case len(req.CurrentObjects) == 0:
		return invalidResponse("not modified, though the volume holds nothing")
	case len(resp.Files) > 0 || len(resp.Objects) > 0:
		return invalidResponse("not modified, but with files or objects")
	}
	ids := make(map[string]bool, len(req.CurrentObjects))
	for _, o := range req.CurrentObjects {
		ids[o.ID] = true
	}
	return validateLeases(def, resp.Leases, ids)
}

func validateObjects(objects []ObjectVersion) (map[string]bool, error) {
	ids := make(map[string]bool, len(objects))
	for _, o := range objects {
		switch {
		case o.ID == "":
			return nil, invalidResponse("an object has no id")
		case o.Version == "":
			return nil, invalidResponse("object %q has no version", o.ID)
		case !utf8.ValidString(o.ID) || !utf8.ValidString(o.Version):
			return nil, invalidResponse("object %q: its id or version is not UTF-8", o.ID)
		case ids[o.ID]:
			return nil, invalidResponse("two objects have the id %q", o.ID)
		}
		ids[o.ID] = true
	}
	return ids, nil
}

func validateLeases(def *Definition, leases []Lease, ids map[string]bool) error {
	if len(leases) > 0 && !def.Leases {
		return invalidResponse("leases, which the provider's definition does not announce")
	}
	for _, l := range leases {
		if !ids[l.ObjectID] {
			return invalidResponse("a lease is of object %q, which is not there", l.ObjectID)
		}
		if l.Duration < 0 {
			return invalidResponse("the lease of object %q has a negative duration", l.ObjectID)
		}
	}
	return nil
}

func invalidResponse(format string, args ...any) *Error {
	return newError(ReasonInvalidResponse, "", format, args)
}
