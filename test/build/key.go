package build

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// keyLength is how many hexadecimal digits of a hash name a directory.
const keyLength = 16

// key hashes all that decides what the binary is: the module's go.mod, go.sum
// and Go files, those of modules inside it that it is replaced with included,
// the toolchain, the platform and the flags.
func (b *Builder) key(s Server, moduleDir string) (string, error) {
	h := sha256.New()
	_, _ = fmt.Fprintf(h, "%s\n%s/%s\n%s\n%s\n", b.goVersion, runtime.GOOS, runtime.GOARCH, s.Package, s.LDFlags)
	var names []string
	err := filepath.WalkDir(moduleDir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		if name := entry.Name(); name == "go.mod" || name == "go.sum" || strings.HasSuffix(name, ".go") {
			names = append(names, path)
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	slices.Sort(names)
	for _, name := range names {
		if err := hashFile(h, moduleDir, name); err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(h.Sum(nil))[:keyLength], nil
}

func hashFile(w io.Writer, dir, path string) error {
	contents, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	name, err := filepath.Rel(dir, path)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s %d\n%s\n", filepath.ToSlash(name), len(contents), contents)
	return err
}

func hashString(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])[:keyLength]
}
