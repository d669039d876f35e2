package volume

import (
	"bytes"
	"fmt"
	"path/filepath"

	"github.com/postern-dev/postern/internal/redact"
)

// fiveFiles are five files of 1 KiB.
func fiveFiles() []File {
	files := make([]File, 0, 5)
	for i := range 5 {
		files = append(files, File{
			Path:     fmt.Sprintf("secret-%d", i),
			Mode:     0o640,
			Contents: redact.NewBytes(bytes.Repeat([]byte{byte('a' + i)}, 1024)),
		})
	}
	return files
}

// targetIn is where kubelet would want a volume.
func targetIn(root string) string {
	return filepath.Join(root, "pods", "5e2a", "volumes", "kubernetes.io~csi", "secrets", "mount")
}
