package sdk

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
)

// FileMode is a file mode in a parameter's YAML: an octal string ("0640",
// "640") or an integer (0640, which YAML reads as octal, or 416). Only the
// permission bits may be set. Its zero value is "not set".
type FileMode fs.FileMode

// Or returns m, or def if m is not set.
func (m FileMode) Or(def fs.FileMode) fs.FileMode {
	if m == 0 {
		return def
	}
	return fs.FileMode(m)
}

// UnmarshalJSON decodes a string or a number; null leaves m unset.
func (m *FileMode) UnmarshalJSON(b []byte) error {
	var text string
	base := 10
	switch {
	case string(b) == "null":
		return nil
	case len(b) > 0 && b[0] == '"':
		if err := json.Unmarshal(b, &text); err != nil {
			return &modeError{Value: string(b)}
		}
		if text == "" {
			return nil
		}
		text, base = strings.TrimPrefix(text, "0o"), 8
	default:
		text = string(b)
	}
	v, err := strconv.ParseUint(text, base, 32)
	if err != nil || v > uint64(fs.ModePerm) {
		return &modeError{Value: string(b)}
	}
	*m = FileMode(v)
	return nil
}

// modeError is a file mode that is none.
type modeError struct {
	Value string
}

func (e *modeError) Error() string {
	return fmt.Sprintf(`%s is not a file mode: write an octal string such as "0640", at most "0777"`, e.Value)
}
