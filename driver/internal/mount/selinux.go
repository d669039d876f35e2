package mount

import (
	"errors"
	"fmt"
	"strings"
)

// ErrSELinux means that a file system cannot be given the SELinux label asked for.
var ErrSELinux = errors.New("cannot label the volume for SELinux")

// Label checks an SELinux label, which may come quoted as in mount options, and
// returns it without quotes.
func Label(label string) (string, error) {
	if len(label) >= 2 && label[0] == '"' && label[len(label)-1] == '"' {
		label = label[1 : len(label)-1]
	}
	if strings.ContainsFunc(label, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '"' || r == '\\' }) {
		return "", fmt.Errorf("%w: %.256q is not a label", ErrSELinux, label)
	}
	return label, nil
}
