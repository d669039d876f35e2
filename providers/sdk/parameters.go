package sdk

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"sigs.k8s.io/yaml"
)

// Parameters are the parameters of a SecretProviderClass.
type Parameters map[string]string

// Get returns a parameter, "" if it is not set.
func (p Parameters) Get(name string) string { return p[name] }

// Decoder reads typed values out of parameters.
//
// It goes on after a violation, so that Err tells all of them at once. A
// parameter that is empty counts as not set.
type Decoder struct {
	parameters Parameters
	violations []FieldViolation
}

// NewDecoder returns a Decoder of p.
func NewDecoder(p Parameters) *Decoder { return &Decoder{parameters: p} }

// String returns a parameter, or def if it is not set.
func (d *Decoder) String(name, def string) string {
	if v := d.parameters[name]; v != "" {
		return v
	}
	return def
}

// Required returns a parameter. If it is not set that is a violation, whose
// description is msg, or a plain one if msg is empty.
func (d *Decoder) Required(name, msg string) string {
	v := d.parameters[name]
	if v == "" {
		if msg == "" {
			msg = "is required"
		}
		d.Violate(name, "%s", msg)
	}
	return v
}

// Bool returns a parameter in the spelling of [strconv.ParseBool], or def if
// it is not set.
func (d *Decoder) Bool(name string, def bool) bool {
	return decode(d, name, def, strconv.ParseBool, "must be true or false")
}

// Int returns a decimal parameter, or def if it is not set.
func (d *Decoder) Int(name string, def int) int {
	return decode(d, name, def, strconv.Atoi, "must be a whole number")
}

// Duration returns a parameter in the spelling of [time.ParseDuration], or def
// if it is not set.
func (d *Decoder) Duration(name string, def time.Duration) time.Duration {
	return decode(d, name, def, time.ParseDuration, `must be a duration such as "90s" or "5m"`)
}

func decode[T any](d *Decoder, name string, def T, parse func(string) (T, error), want string) T {
	text := d.parameters[name]
	if text == "" {
		return def
	}
	v, err := parse(text)
	if err != nil {
		d.Violate(name, "%s, not %q", want, text)
		return def
	}
	return v
}

// YAML decodes a parameter that holds YAML into v, a pointer, as
// sigs.k8s.io/yaml does: by json tags, in any case of the keys; keys that v
// does not know are ignored, and plain scalars become strings where v wants
// strings. It reports whether the parameter is set and v holds it.
func (d *Decoder) YAML(name string, v any) bool {
	text := d.parameters[name]
	if strings.TrimSpace(text) == "" {
		return false
	}
	if err := yaml.Unmarshal([]byte(text), v); err != nil {
		d.Violate(name, "%s", yamlProblem(err))
		return false
	}
	return true
}

// Violate notes that a field is wrong.
func (d *Decoder) Violate(field, format string, args ...any) {
	d.violations = append(d.violations, FieldViolation{Field: field, Description: fmt.Sprintf(format, args...)})
}

// Err returns nil or an [*Error] with ReasonInvalidParameters and every
// violation.
func (d *Decoder) Err() error {
	if len(d.violations) == 0 {
		return nil
	}
	return InvalidParameters(d.violations...)
}

// yamlProblem says in a user's words why YAML cannot be decoded.
func yamlProblem(err error) string {
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		problem := fmt.Sprintf("is %s, where %s is wanted", given(e), wanted(e))
		if e.Field != "" {
			problem = "field " + e.Field + " " + problem
		}
		return problem
	}
	if e, ok := errors.AsType[*modeError](err); ok {
		return e.Error()
	}
	text := err.Error()
	if i := strings.LastIndex(text, "yaml: "); i >= 0 {
		text = text[i+len("yaml: "):]
	}
	return "is not valid YAML: " + text
}

// given and wanted are YAML's words for what there is and what there should be.
func given(e *json.UnmarshalTypeError) string {
	switch kind, _, _ := strings.Cut(e.Value, " "); kind {
	case "object":
		return "a map"
	case "array":
		return "a list"
	default:
		return "a " + kind
	}
}

func wanted(e *json.UnmarshalTypeError) string {
	switch e.Type.Kind() {
	case reflect.Slice, reflect.Array:
		return "a list"
	case reflect.Struct, reflect.Map:
		return "a map"
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "a string"
	case reflect.Float32, reflect.Float64:
		return "a number"
	default:
		return "a whole number"
	}
}
