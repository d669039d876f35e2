// Package docs reads the documents that list things, so that tests can hold
// them to the code that has those things.
package docs

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Observables is the document that lists metrics, spans, events and reasons,
// below the repository's root.
const Observables = "docs/metrics.md"

// Listed returns the names that a section of Observables lists: the first
// column of its tables, sorted.
func Listed(root, section string) ([]string, error) {
	content, err := os.ReadFile(filepath.Join(root, Observables))
	if err != nil {
		return nil, err
	}
	_, text, ok := strings.Cut(string(content), "\n## "+section+"\n")
	if !ok {
		return nil, fmt.Errorf("%s has no section %q", Observables, section)
	}
	text, _, _ = strings.Cut(text, "\n## ")
	var names []string
	for _, match := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(text, -1) {
		names = append(names, match[1])
	}
	slices.Sort(names)
	return names, nil
}
