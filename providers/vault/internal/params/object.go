package params

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"

	"github.com/postern-dev/postern/providers/sdk"
	"github.com/postern-dev/postern/providers/vault/internal/store"
)

// Format is what a file without secretKey holds.
type Format string

const (
	// Envelope is the whole response, without the request's id.
	Envelope Format = "envelope"
	// Data is the secret's data only.
	Data Format = "data"
	// Raw is the whole response with the request's id, which differs in each.
	Raw Format = "raw"
)

// Encoding is how a value is encoded in the store.
type Encoding string

// The encodings.
const (
	UTF8   Encoding = "utf-8"
	Base64 Encoding = "base64"
	Hex    Encoding = "hex"
)

// Object is one file.
type Object struct {
	// Name is the file's path and the object's id.
	Name    string
	Request store.Request
	// Key is of the response's data; "": the whole response, in this Format.
	Key      string
	Format   Format
	Encoding Encoding
	// Mode is zero if it is not set.
	Mode sdk.FileMode
}

// ReadKey is equal for two objects only if one response serves both: method,
// path, query and body are the same.
func (o Object) ReadKey() string {
	r := o.Request
	return strings.Join([]string{r.Method, r.Path, r.Query.Encode(), string(r.Body)}, "\x00")
}

// document is an object as users write it.
type document struct {
	ObjectName     string          `json:"objectName"`
	SecretPath     string          `json:"secretPath"`
	SecretKey      string          `json:"secretKey"`
	Method         string          `json:"method"`
	SecretArgs     json.RawMessage `json:"secretArgs"`
	FilePermission sdk.FileMode    `json:"filePermission"`
	Encoding       string          `json:"encoding"`
	ResponseFormat string          `json:"responseFormat"`
}

// decodeObjects decodes the parameter "objects", a YAML list.
func decodeObjects(d *sdk.Decoder) []Object {
	var documents []document
	if !d.YAML("objects", &documents) {
		if d.String("objects", "") == "" {
			d.Violate("objects", "no secrets configured - the provider will not read any secret material")
		}
		return nil
	}
	if len(documents) == 0 {
		d.Violate("objects", "no secrets configured - the provider will not read any secret material")
	}
	objects := make([]Object, len(documents))
	seen := make(map[string]bool, len(documents))
	var duplicates []string
	for i, doc := range documents {
		objects[i] = doc.object(func(field, format string, args ...any) {
			d.Violate(fmt.Sprintf("objects[%d].%s", i, field), format, args...)
		})
		if name := doc.ObjectName; name != "" && seen[name] {
			duplicates = append(duplicates, name)
		}
		seen[doc.ObjectName] = true
	}
	if len(duplicates) > 0 {
		d.Violate("objects", "objectName is the file's path and must be unique, duplicated: %s", strings.Join(duplicates, ", "))
		return objects
	}
	checkNames(d, objects)
	return objects
}

// checkNames refuses names that cannot be files of one volume, before anything
// is read or issued for them.
func checkNames(d *sdk.Decoder, objects []Object) {
	names := make([]string, len(objects))
	for i, o := range objects {
		names[i] = o.Name
	}
	if i, problem := sdk.CheckPaths(names); problem != "" && names[i] != "" {
		d.Violate(fmt.Sprintf("objects[%d].objectName", i), "%q: %s", names[i], problem)
	}
}

func (doc document) object(violate func(field, format string, args ...any)) Object {
	o := Object{Name: doc.ObjectName, Key: doc.SecretKey, Mode: doc.FilePermission}
	if doc.ObjectName == "" {
		violate("objectName", "is required: it is the file's path")
	}
	var err error
	if o.Request, err = requestOf(doc); err != nil {
		violate("secretPath", "%v", err)
	}
	if o.Request.Body, err = argsOf(doc.SecretArgs); err != nil {
		violate("secretArgs", "%v", err)
	}
	switch o.Encoding = Encoding(strings.ToLower(doc.Encoding)); o.Encoding {
	case "":
		o.Encoding = UTF8
	case UTF8, Base64, Hex:
	default:
		violate("encoding", "unsupported encoding type %q: use utf-8, base64 or hex", doc.Encoding)
	}
	switch o.Format = Format(doc.ResponseFormat); o.Format {
	case "":
		o.Format = Envelope
	case Envelope, Data, Raw:
		if doc.SecretKey != "" {
			violate("responseFormat", "has no effect with secretKey: set one of them")
		}
	default:
		violate("responseFormat", "unknown format %q: use envelope, data or raw", doc.ResponseFormat)
	}
	return o
}

// requestOf takes a path apart: a leading "/" and "v1/" may be there or not,
// and what follows "?" is the query.
func requestOf(doc document) (store.Request, error) {
	r := store.Request{Method: strings.ToUpper(doc.Method)}
	if r.Method == "" {
		r.Method = "GET"
	}
	for _, c := range r.Method {
		if c < 'A' || c > 'Z' {
			return r, fmt.Errorf("method %q is not an HTTP method", doc.Method)
		}
	}
	path, query, _ := strings.Cut(doc.SecretPath, "?")
	path = strings.TrimPrefix(path, "/")
	if path == "" {
		return r, fmt.Errorf("is required, such as secret/data/app")
	}
	if !strings.HasPrefix(path, "v1/") {
		path = "v1/" + path
	}
	for element := range strings.SplitSeq(path, "/") {
		if element == ".." || element == "." {
			return r, fmt.Errorf("%q must not have the element %q", doc.SecretPath, element)
		}
	}
	r.Path = path
	var err error
	if r.Query, err = url.ParseQuery(query); err != nil {
		return r, fmt.Errorf("the query after ? cannot be read: %w", err)
	}
	return r, nil
}

// argsOf returns the arguments in JSON with sorted keys, and numbers as they
// are written.
func argsOf(args json.RawMessage) (json.RawMessage, error) {
	if len(args) == 0 || string(args) == "null" {
		return nil, nil
	}
	decoder := json.NewDecoder(bytes.NewReader(args))
	decoder.UseNumber()
	var values map[string]any
	if err := decoder.Decode(&values); err != nil {
		return nil, fmt.Errorf("must be a map of arguments")
	}
	return json.Marshal(values)
}
