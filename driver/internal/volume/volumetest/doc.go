// Package volumetest looks at volumes from outside, as a pod and an operator do,
// and makes what other drivers leave behind. It serves the tests of the packages
// that make volumes.
package volumetest

import (
	"github.com/postern-dev/postern/driver/internal/fileset"
	"github.com/postern-dev/postern/internal/redact"
)

// Content holds a string.
func Content(s string) redact.Bytes { return redact.NewBytes([]byte(s)) }

// File is a file that everybody may read.
func File(path, contents string) fileset.File {
	return fileset.File{Path: path, Mode: 0o644, Contents: Content(contents)}
}
