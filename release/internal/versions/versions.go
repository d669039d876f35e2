// Package versions knows what is released together and as which version: the
// file versions.yaml at the repository's root.
package versions

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/mod/semver"
	"sigs.k8s.io/yaml"
)

// FileName is the file's name in the repository's root.
const FileName = "versions.yaml"

// ModulePrefix is what the path of each module begins with.
const ModulePrefix = "github.com/postern-dev/postern/"

// File is what versions.yaml says.
type File struct {
	// Sets in the order in which they are released.
	Sets []*Set `json:"sets"`
	// Unreleased are modules without a version; modules in directories below
	// theirs are so too.
	Unreleased []string `json:"unreleased"`
	// Images by the name of their command.
	Images map[string]Image `json:"images"`
}

// Set is what is released together.
type Set struct {
	Name string `json:"name"`
	// Version such as v0.1.0: the one that it has or gets next.
	Version string `json:"version"`
	// Modules and Charts are directories.
	Modules []string `json:"modules,omitempty"`
	Charts  []string `json:"charts,omitempty"`
	// AppVersion is the set whose version is the appVersion of those charts that
	// are of no image.
	AppVersion string `json:"appVersion,omitempty"`
}

// Image says of an image what its command does not.
type Image struct {
	// UID is the user's id and the group's.
	UID         *int   `json:"uid"`
	Title       string `json:"title"`
	Description string `json:"description"`
}

// Read reads and checks the file in root.
func Read(root string) (*File, error) {
	contents, err := os.ReadFile(filepath.Join(root, FileName))
	if err != nil {
		return nil, fmt.Errorf("read the versions: %w", err)
	}
	var f File
	if err := yaml.UnmarshalStrict(contents, &f); err != nil {
		return nil, fmt.Errorf("%s: %w", FileName, err)
	}
	if err := f.validate(); err != nil {
		return nil, fmt.Errorf("%s: %w", FileName, err)
	}
	return &f, nil
}

func (f *File) validate() error {
	var problems []error
	add := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if len(f.Sets) == 0 {
		add("there are no sets")
	}
	for i, set := range f.Sets {
		if err := set.validate(); err != nil {
			add("set %s: %w", set.Name, err)
		}
		if slices.ContainsFunc(f.Sets[:i], func(other *Set) bool { return other.Name == set.Name }) {
			add("set %s is there twice", set.Name)
		}
		if f.Set(set.AppVersion) == nil && len(set.Charts) > 0 {
			add("set %s: appVersion %q is no set", set.Name, set.AppVersion)
		}
	}
	return errors.Join(append(problems, f.validateImages()...)...)
}

func (f *File) validateImages() []error {
	var problems []error
	add := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	owners := map[int]string{}
	for _, name := range slices.Sorted(maps.Keys(f.Images)) {
		image := f.Images[name]
		switch {
		case image.UID == nil:
			add("image %s has no uid", name)
			continue
		case *image.UID < 0 || *image.UID > 1<<31-1:
			add("image %s: uid %d is none", name, *image.UID)
		case owners[*image.UID] != "":
			add("images %s and %s have the same uid %d, by which daemons know one another", owners[*image.UID], name, *image.UID)
		}
		owners[*image.UID] = name
		if image.Title == "" || image.Description == "" {
			add("image %s lacks a title or a description", name)
		}
	}
	return problems
}

func (s *Set) validate() error {
	switch {
	case s.Name == "":
		return errors.New("it has no name")
	case s.Version == "" || s.Version != semver.Canonical(s.Version) || semver.Build(s.Version) != "":
		return fmt.Errorf("version %q: want one like v1.2.3 or v1.2.3-rc.1", s.Version)
	case len(s.Modules) == 0 && len(s.Charts) == 0:
		return errors.New("it has neither modules nor charts")
	case len(s.Modules) > 0 && len(s.Charts) > 0:
		return errors.New("it has modules and charts: charts are released by themselves")
	case len(s.Modules) > 0 && semver.Compare(semver.Major(s.Version), "v1") > 0:
		return fmt.Errorf("version %s: the path of a Go module of that version ends in /%s", s.Version, semver.Major(s.Version))
	}
	return nil
}

// Set returns the set of this name, nil if there is none.
func (f *File) Set(name string) *Set {
	for _, set := range f.Sets {
		if set.Name == name {
			return set
		}
	}
	return nil
}

// SetsOf returns the sets that a module's or a chart's directory is in: one,
// unless the file is wrong.
func (f *File) SetsOf(dir string) []*Set {
	var sets []*Set
	for _, set := range f.Sets {
		if slices.Contains(set.Dirs(), dir) {
			sets = append(sets, set)
		}
	}
	return sets
}

// IsUnreleased tells whether a module has no version.
func (f *File) IsUnreleased(dir string) bool {
	return slices.ContainsFunc(f.Unreleased, func(top string) bool {
		return dir == top || strings.HasPrefix(dir, top+"/")
	})
}

// Dirs are the directories of what is in the set.
func (s *Set) Dirs() []string { return slices.Concat(s.Modules, s.Charts) }

// tagDirs are what the set's tags begin with: Go finds a module's version by a
// tag of its directory; charts have one of their own.
func (s *Set) tagDirs() []string {
	if len(s.Charts) > 0 {
		return []string{s.Name}
	}
	return s.Modules
}

// Tags are the names of the git tags of one version of the set.
func (s *Set) Tags(version string) []string {
	var tags []string
	for _, dir := range s.tagDirs() {
		tags = append(tags, dir+"/"+version)
	}
	return tags
}

// Tag is the tag that stands for all of a version's.
func (s *Set) Tag(version string) string { return s.Tags(version)[0] }

// Daemon is a command that an image is made of.
type Daemon struct {
	// Name of the command and of the image, such as postern-driver.
	Name string
	// Module is the directory of its module.
	Module string
	// Set that it is released with.
	Set *Set
}

// Daemons finds the commands: each <module>/cmd/postern-* of a released module.
func (f *File) Daemons(root string) ([]Daemon, error) {
	var all []Daemon
	for _, set := range f.Sets {
		for _, module := range set.Modules {
			mains, err := filepath.Glob(filepath.Join(root, module, "cmd", "postern-*", "main.go"))
			if err != nil {
				return nil, fmt.Errorf("look for the commands of %s: %w", module, err)
			}
			for _, file := range mains {
				all = append(all, Daemon{Name: path.Base(filepath.ToSlash(filepath.Dir(file))), Module: module, Set: set})
			}
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no module of %s has a cmd/postern-*/main.go", FileName)
	}
	slices.SortFunc(all, func(a, b Daemon) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}
