package sdk

import (
	"fmt"
	"strings"
)

// Paths is which files the objects of a class give, so that two that would write
// the same file, or one where another has a directory, can be refused as
// parameters. [CheckPaths] says what each path has to be by itself.
//
// Its invariants:
//  1. No path is both in files and in directories.
//  2. Each directory on the way to a file is in directories.
type Paths struct {
	// files and directories say which field gives them.
	files       map[string]string
	directories map[string]string
}

// NewPaths returns one without files.
func NewPaths() *Paths {
	return &Paths{files: make(map[string]string), directories: make(map[string]string)}
}

// Claim takes the path of a file for the field that gives it, such as
// "objects[2].objectAlias". If it cannot be had it says why.
func (p *Paths) Claim(path, field string) (problem string) {
	if other := p.files[path]; other != "" {
		return fmt.Sprintf("%q is already the file of %s", path, other)
	}
	if other := p.directories[path]; other != "" {
		return fmt.Sprintf("%q is already a directory of %s", path, other)
	}
	if problem := p.claimDirectories(path, field); problem != "" {
		return problem
	}
	p.files[path] = field
	return ""
}

// ClaimPattern takes what is known of the paths of a pattern with a "*": the
// directories before it.
func (p *Paths) ClaimPattern(pattern, field string) (problem string) {
	known, _, _ := strings.Cut(pattern, "*")
	return p.claimDirectories(known, field)
}

// claimDirectories takes the directories on the way to a path. That one of them is
// there already ends the way up: then those above it are, too.
func (p *Paths) claimDirectories(path, field string) (problem string) {
	for i := strings.LastIndexByte(path, '/'); i > 0; i = strings.LastIndexByte(path[:i], '/') {
		dir := path[:i]
		if other := p.files[dir]; other != "" {
			return fmt.Sprintf("%q is already the file of %s, and cannot be a directory too", dir, other)
		}
		if p.directories[dir] != "" {
			return ""
		}
		p.directories[dir] = field
	}
	return ""
}
