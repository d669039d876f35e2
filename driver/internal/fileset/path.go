package fileset

import (
	"fmt"
	"path"
	"path/filepath"
	"strings"
)

const (
	maxPath    = 4096
	maxElement = 255
)

// pathProblem completes "file <path> ...", or is empty if the path is good.
func pathProblem(name string) string {
	switch {
	case name == "":
		return "has no path: each file needs one"
	case path.IsAbs(name):
		return "must be relative to the volume"
	case len(name) > maxPath:
		return fmt.Sprintf("has a path of more than %d bytes", maxPath)
	case strings.ContainsRune(name, 0):
		return "has a zero byte in its path"
	}
	for element := range strings.SplitSeq(name, "/") {
		if element == ".." {
			return `must not have ".." in its path`
		}
		if len(element) > maxElement {
			return fmt.Sprintf("has a name of more than %d bytes in its path", maxElement)
		}
	}
	switch {
	case strings.HasPrefix(name, ".."):
		return `must not start with "..": such names are the volume's own`
	case path.Clean(name) != name, name == ".":
		return `must have a clean path, without "." or empty elements`
	case filepath.Separator != '/' && strings.ContainsRune(name, filepath.Separator), !filepath.IsLocal(filepath.FromSlash(name)):
		return "has a path that this system does not allow"
	}
	return ""
}
