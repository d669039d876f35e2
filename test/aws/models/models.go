// Package models holds AWS' own models of the operations that the double serves,
// and checks requests and answers against them.
//
// The JSON files are cut from those of github.com/aws/aws-sdk-go (see NOTICE);
// the package's test makes them: go test -update.
package models

import (
	"embed"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

//go:embed *.json
var files embed.FS

// Model is a service's.
type Model struct {
	Metadata   Metadata
	Operations map[string]Operation
	Shapes     map[string]*Shape
}

// Metadata says how a service is spoken to.
type Metadata struct {
	Protocol      string
	JSONVersion   string
	TargetPrefix  string
	APIVersion    string
	XMLNamespace  string
	SigningName   string
	EndpointName  string `json:"endpointPrefix"`
	ServiceFullID string `json:"serviceId"`
}

// Operation has the names of its shapes.
type Operation struct {
	Name   string
	Input  ShapeRef
	Output ShapeRef
	Errors []ShapeRef
}

// ShapeRef names a shape.
type ShapeRef struct {
	Shape         string
	ResultWrapper string
}

// Shape is a type of a model.
type Shape struct {
	Type      string
	Required  []string
	Members   map[string]ShapeRef
	Member    ShapeRef
	Key       ShapeRef
	Value     ShapeRef
	Min, Max  *int64
	Enum      []string
	Pattern   string
	Exception bool
	Error     struct {
		Code           string
		HTTPStatusCode int `json:"httpStatusCode"`
	}

	pattern *regexp.Regexp
}

// Load reads the model of secretsmanager, ssm or sts.
func Load(service string) (*Model, error) {
	contents, err := files.ReadFile(service + ".json")
	if err != nil {
		return nil, fmt.Errorf("no model of %s: %w", service, err)
	}
	return Parse(contents)
}

// Parse reads an api-2.json.
func Parse(contents []byte) (*Model, error) {
	var m Model
	if err := json.Unmarshal(contents, &m); err != nil {
		return nil, fmt.Errorf("read a service model: %w", err)
	}
	for name, shape := range m.Shapes {
		if shape.Pattern == "" {
			continue
		}
		var err error
		if shape.pattern, err = regexp.Compile("^(?:" + goPattern(shape.Pattern) + ")$"); err != nil {
			return nil, fmt.Errorf("pattern of shape %s: %w", name, err)
		}
	}
	return &m, nil
}

// goPattern writes a code point of a Java pattern as Go does.
func goPattern(pattern string) string {
	return regexp.MustCompile(`\\u([0-9A-Fa-f]{4,6})`).ReplaceAllString(pattern, `\x{$1}`)
}

// Violation is a place where a document breaks a model, and how.
type Violation struct{ Path, Problem string }

// CheckInput checks a request, as encoding/json decodes it with UseNumber.
func (m *Model) CheckInput(operation string, document any) []Violation {
	op, ok := m.Operations[operation]
	if !ok {
		return []Violation{{"", "the model has no operation " + operation}}
	}
	return m.check("", op.Input.Shape, document)
}

// CheckOutput checks a success.
func (m *Model) CheckOutput(operation string, document any) []Violation {
	op, ok := m.Operations[operation]
	if !ok {
		return []Violation{{"", "the model has no operation " + operation}}
	}
	return m.check("", op.Output.Shape, document)
}

// CheckError checks an error: its code has to be one of the operation or one that
// all operations have, and its members have to be the model's.
func (m *Model) CheckError(operation, code string, document map[string]any) []Violation {
	if slices.Contains(commonErrors(), code) {
		return nil
	}
	for _, ref := range m.Operations[operation].Errors {
		shape := m.Shapes[ref.Shape]
		if code != ref.Shape && code != shape.Error.Code {
			continue
		}
		return m.check("", ref.Shape, document)
	}
	return []Violation{{"", "operation " + operation + " has no error " + code}}
}

// commonErrors are those that AWS documents for every operation of a service.
func commonErrors() []string {
	return []string{
		"AccessDeniedException", "ExpiredTokenException", "IncompleteSignatureException", "InternalFailure",
		"InvalidSignatureException", "MissingAuthenticationTokenException", "SerializationException", "ServiceUnavailable",
		"ThrottlingException", "UnknownOperationException", "UnrecognizedClientException", "ValidationException",
		// Of the query protocol.
		"AccessDenied", "InvalidAction", "MissingAction", "Throttling", "ValidationError",
	}
}

// member is the path of a member, as AWS' messages have it.
func member(path, name string) string {
	name = strings.ToLower(name[:1]) + name[1:]
	if path == "" {
		return name
	}
	return path + "." + name
}

func element(path string, i int) string { return path + "." + strconv.Itoa(i+1) + ".member" }
