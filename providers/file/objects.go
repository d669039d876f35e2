package file

import (
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/postern-dev/postern/providers/sdk"
)

const objectsParameter = "objects"

// The encodings that a file may be in.
const (
	encodingUTF8   = "utf-8"
	encodingBase64 = "base64"
	encodingHex    = "hex"
)

// object is one entry of the objects parameter.
type object struct {
	// ObjectName is the path of a file or directory.
	ObjectName string `json:"objectName"`
	// Path is where it is put in the volume. Default: ObjectName.
	Path string `json:"path"`
	// ObjectAlias is Path by the name that other providers use.
	ObjectAlias string `json:"objectAlias"`
	// FilePermission is the mode of the file, or of all in the directory.
	FilePermission sdk.FileMode `json:"filePermission"`
	// ObjectEncoding is what the file is decoded from.
	ObjectEncoding string `json:"objectEncoding"`
}

// parseObjects decodes and checks the objects parameter. Paths come out clean.
func parseObjects(p sdk.Parameters) ([]object, error) {
	d := sdk.NewDecoder(p)
	var objects []object
	if !d.YAML(objectsParameter, &objects) {
		if err := d.Err(); err != nil {
			return nil, err
		}
	}
	if len(objects) == 0 {
		d.Violate(objectsParameter, "names no file: write a YAML list of maps with objectName")
	}
	for i := range objects {
		objects[i].check(d, fmt.Sprintf("%s[%d].", objectsParameter, i))
	}
	return objects, d.Err()
}

func (o *object) check(d *sdk.Decoder, prefix string) {
	switch {
	case o.ObjectName == "":
		d.Violate(prefix+"objectName", "is required")
	case !local(o.ObjectName):
		d.Violate(prefix+"objectName", "%q must be a path below the provider's directory, without a leading / and \"..\"",
			o.ObjectName)
	}
	o.ObjectName = path.Clean(o.ObjectName)
	if o.Path != "" && o.ObjectAlias != "" && o.Path != o.ObjectAlias {
		d.Violate(prefix+"path", "differs from objectAlias, which says the same: set one of them")
	}
	if o.Path == "" {
		o.Path = o.ObjectAlias
	}
	if o.Path != "" && !local(o.Path) {
		d.Violate(prefix+"path", "%q must be a path within the volume, without a leading / and \"..\"", o.Path)
	}
	if o.Path == "" {
		o.Path = o.ObjectName
	}
	o.Path = path.Clean(o.Path)
	o.ObjectEncoding = strings.ToLower(o.ObjectEncoding)
	if !slices.Contains([]string{"", encodingUTF8, encodingBase64, encodingHex}, o.ObjectEncoding) {
		d.Violate(prefix+"objectEncoding", "%q must be utf-8, base64 or hex", o.ObjectEncoding)
	}
}

// local reports whether a path stays below where it starts, and is no path
// that one operating system reads so and another not.
func local(p string) bool {
	return filepath.IsLocal(p) && !strings.ContainsAny(p, "\x00\\")
}
