// Package crds holds the CustomResourceDefinitions of driver/api, as
// controller-gen makes them, for tests and tools that install them.
package crds

import (
	"embed"
	"fmt"
	"io/fs"
	"path"
)

//go:embed *.yaml
var files embed.FS

// All returns each CustomResourceDefinition as YAML, by its file's name.
func All() (map[string][]byte, error) {
	names, err := fs.Glob(files, "*.yaml")
	if err != nil {
		return nil, fmt.Errorf("list CustomResourceDefinitions: %w", err)
	}
	all := make(map[string][]byte, len(names))
	for _, name := range names {
		content, err := files.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("read CustomResourceDefinition %s: %w", path.Base(name), err)
		}
		all[name] = content
	}
	return all, nil
}
