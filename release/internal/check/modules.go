package check

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/mod/modfile"

	"github.com/postern-dev/postern/release/internal/versions"
)

// module is a Go module of the tree.
type module struct {
	// Dir is its directory, relative to the root.
	Dir string
	// Siblings are the directories of our modules that it requires, with versions.
	Siblings map[string]string
}

// find returns the directories below top that hold a file of this name, relative
// to root and sorted.
func find(root, top, name string) ([]string, error) {
	var dirs []string
	err := filepath.WalkDir(filepath.Join(root, top), func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		hidden := strings.HasPrefix(entry.Name(), ".") || entry.Name() == "testdata"
		if entry.IsDir() && hidden && file != root {
			return filepath.SkipDir
		}
		if entry.IsDir() || entry.Name() != name {
			return nil
		}
		relative, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		dirs = append(dirs, path.Dir(filepath.ToSlash(relative)))
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look for each %s: %w", name, err)
	}
	slices.Sort(dirs)
	return dirs, nil
}

func findModules(root string) ([]module, error) {
	dirs, err := find(root, ".", "go.mod")
	if err != nil {
		return nil, err
	}
	var modules []module
	for _, dir := range dirs {
		file := filepath.Join(root, dir, "go.mod")
		contents, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		parsed, err := modfile.Parse(file, contents, nil)
		if err != nil {
			return nil, err
		}
		m := module{Dir: dir, Siblings: map[string]string{}}
		for _, require := range parsed.Require {
			if sibling, ok := strings.CutPrefix(require.Mod.Path, versions.ModulePrefix); ok {
				m.Siblings[sibling] = require.Mod.Version
			}
		}
		modules = append(modules, m)
	}
	return modules, nil
}

// moduleProblems: each module is in one set, or has no version.
func (t *tree) moduleProblems() []string {
	var problems []string
	known := map[string]bool{}
	for _, m := range t.modules {
		known[m.Dir] = true
		problems = append(problems, t.membership("module "+m.Dir, m.Dir)...)
	}
	for _, set := range t.file.Sets {
		for _, dir := range set.Modules {
			if !known[dir] {
				problems = append(problems, fmt.Sprintf("set %s has module %s, but there is no %s/go.mod", set.Name, dir, dir))
			}
		}
	}
	for _, dir := range t.file.Unreleased {
		if !known[dir] {
			problems = append(problems, fmt.Sprintf("unreleased has module %s, but there is no %s/go.mod", dir, dir))
		}
	}
	return problems
}

// membership: something is in exactly one set.
func (t *tree) membership(what, dir string) []string {
	sets := t.file.SetsOf(dir)
	switch {
	case len(sets) > 1:
		return []string{fmt.Sprintf("%s is in set %s and in set %s: it can have one version only", what, sets[0].Name, sets[1].Name)}
	case len(sets) == 1 && t.file.IsUnreleased(dir):
		return []string{fmt.Sprintf("%s is in set %s and unreleased at once", what, sets[0].Name)}
	case len(sets) == 0 && !t.file.IsUnreleased(dir):
		return []string{fmt.Sprintf("%s is in no set: add it to one in %s, or to unreleased", what, versions.FileName)}
	}
	return nil
}

// requireProblems: whoever requires a module of ours requires the version that
// it is released as.
func (t *tree) requireProblems() []string {
	var problems []string
	for _, m := range t.modules {
		for _, sibling := range slices.Sorted(maps.Keys(m.Siblings)) {
			sets := t.file.SetsOf(sibling)
			if len(sets) > 0 && m.Siblings[sibling] != sets[0].Version {
				problems = append(problems, fmt.Sprintf("%s/go.mod requires %s %s, but set %s is %s",
					m.Dir, sibling, m.Siblings[sibling], sets[0].Name, sets[0].Version))
			}
			if len(sets) == 0 && !t.file.IsUnreleased(m.Dir) {
				problems = append(problems, fmt.Sprintf("%s/go.mod requires %s, which is never released: nobody could build it alone",
					m.Dir, sibling))
			}
		}
	}
	return problems
}

// imageProblems: each daemon has an entry, and each entry a daemon.
func (t *tree) imageProblems() []string {
	var problems []string
	known := map[string]bool{}
	for _, d := range t.daemons {
		known[d.Name] = true
		if _, ok := t.file.Images[d.Name]; !ok {
			problems = append(problems, fmt.Sprintf("%s/cmd/%s has no entry below images in %s", d.Module, d.Name, versions.FileName))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(t.file.Images)) {
		if !known[name] {
			problems = append(problems, fmt.Sprintf("image %s has no cmd/%s in a released module", name, name))
		}
	}
	return problems
}
