package mount

import (
	"errors"
	"testing"
)

func TestLabel(t *testing.T) {
	t.Parallel()
	const label = "system_u:object_r:container_file_t:s0:c1,c2"
	for in, want := range map[string]string{"": "", label: label, `"` + label + `"`: label} {
		if got, err := Label(in); got != want || err != nil {
			t.Errorf("Label(%q): %q, %v", in, got, err)
		}
	}
	for in, want := range map[string]string{
		`a",size=0`: `cannot label the volume for SELinux: "a\",size=0" is not a label`,
		"a b":       `cannot label the volume for SELinux: "a b" is not a label`,
		`"`:         `cannot label the volume for SELinux: "\"" is not a label`,
		`a\b`:       `cannot label the volume for SELinux: "a\\b" is not a label`,
	} {
		if _, err := Label(in); !errors.Is(err, ErrSELinux) || err.Error() != want {
			t.Errorf("Label(%q): %v, want %s", in, err, want)
		}
	}
}
