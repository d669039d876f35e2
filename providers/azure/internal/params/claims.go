package params

import (
	"fmt"
	"strconv"
	"strings"
)

// claims is which paths the objects before have taken.
//
// Its invariants:
//  1. No path is both in files and in directories.
//  2. Each directory on the way to a file is in directories.
type claims struct {
	// files and directories say which field gives them.
	files       map[string]string
	directories map[string]string
}

func newClaims() *claims {
	return &claims{files: make(map[string]string), directories: make(map[string]string)}
}

// claim takes the paths of an object: its file, or those of its history.
func (e *entry) claim(o *Object) {
	owner := e.field + "." + e.pathField()
	if o.History > 1 {
		e.taken(e.claims.history(o.File(), o.History, owner))
		return
	}
	e.taken(e.claims.file(o.File(), owner))
}

// claimPattern takes the directories of a pattern of paths, of which those before the
// "*" are known.
func (e *entry) claimPattern(pattern string) {
	before, _, _ := strings.Cut(pattern, "*")
	if i := strings.LastIndexByte(before, '/'); i > 0 {
		e.taken(e.claims.directory(before[:i], e.field+"."+e.pathField()))
	}
}

func (e *entry) taken(problem string) {
	if problem != "" {
		e.violate(e.pathField(), "%s: set another objectAlias", problem)
	}
}

// file takes a path, or says why it cannot be had.
func (c *claims) file(path, owner string) (problem string) {
	if other := c.files[path]; other != "" {
		return fmt.Sprintf("%q is already the file of %s", path, other)
	}
	if other := c.directories[path]; other != "" {
		return fmt.Sprintf("%q is already a directory of %s", path, other)
	}
	if i := strings.LastIndexByte(path, '/'); i > 0 {
		if problem := c.directory(path[:i], owner); problem != "" {
			return problem
		}
	}
	c.files[path] = owner
	return ""
}

// history takes the paths of an object's versions. There is one more than are asked
// for, as the provider's operator may have it so.
func (c *claims) history(path string, count int, owner string) (problem string) {
	for i := range count + 1 {
		if problem := c.file(path+"/"+strconv.Itoa(i), owner); problem != "" {
			return problem
		}
	}
	return ""
}

// directory takes a path and those above it. That a directory is already one stops
// the way up: then those above it are, too.
func (c *claims) directory(path, owner string) (problem string) {
	for dir := path; ; {
		if other := c.files[dir]; other != "" {
			return fmt.Sprintf("%q is already the file of %s, and cannot be a directory too", dir, other)
		}
		if c.directories[dir] != "" {
			return ""
		}
		c.directories[dir] = owner
		i := strings.LastIndexByte(dir, '/')
		if i < 0 {
			return ""
		}
		dir = dir[:i]
	}
}
