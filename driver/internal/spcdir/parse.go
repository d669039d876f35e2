package spcdir

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	apiv1 "github.com/postern-dev/postern/driver/api/v1"
	"github.com/postern-dev/postern/driver/api/v1alpha1" //nolint:staticcheck // deprecated for users, served all the same
)

const defaultNamespace = "default"

var (
	separator    = regexp.MustCompile(`^---(\s|$)`)
	unknownField = regexp.MustCompile(`unknown field "(?:[^"]*\.)?([^".]+)"`)
	yamlLine     = regexp.MustCompile(`yaml: (?:unmarshal errors:\n\s*)?line (\d+): `)
)

// document is one YAML document of a file. Its text has as many empty lines in
// front as there are lines before it in the file, so that line numbers in the
// parser's errors are the file's.
type document struct {
	text []byte
	line int // of its first line that is neither empty nor a comment
}

// parseFile returns the classes of all documents that are good, and the errors
// of those that are not. Objects of other API groups are left alone: the
// directory may be one that is also used with kubectl.
func parseFile(path string, content []byte) ([]located, error) {
	var classes []located
	var problems []error
	for _, doc := range split(content) {
		class, err := parseDocument(doc)
		switch {
		case err != nil:
			problems = append(problems, positioned(path, doc, err))
		case class != nil:
			classes = append(classes, located{class: class, path: path, line: doc.line})
		}
	}
	return classes, errors.Join(problems...)
}

func split(content []byte) []document {
	var docs []document
	var current document
	lines := bytes.SplitAfter(content, []byte("\n"))
	for i, line := range lines {
		if separator.Match(line) {
			docs = appendUsed(docs, current)
			current = document{text: bytes.Repeat([]byte("\n"), i)}
			// Content may follow on the separator's line.
			line = bytes.TrimPrefix(line, []byte("---"))
		}
		current.text = append(current.text, line...)
		used := bytes.TrimSpace(line)
		if current.line == 0 && len(used) > 0 && used[0] != '#' {
			current.line = i + 1
		}
	}
	return appendUsed(docs, current)
}

func appendUsed(docs []document, doc document) []document {
	if doc.line == 0 {
		return docs
	}
	return append(docs, doc)
}

// parseDocument returns nil for what is not of the group.
func parseDocument(doc document) (*apiv1.SecretProviderClass, error) {
	var kind metav1.TypeMeta
	if err := yaml.Unmarshal(doc.text, &kind); err != nil {
		return nil, err
	}
	if kind.APIVersion == "" || kind.Kind == "" {
		return nil, errors.New("apiVersion and kind must be set")
	}
	version, err := schema.ParseGroupVersion(kind.APIVersion)
	switch {
	case err != nil:
		return nil, err
	case kind.Kind == "List" && kind.APIVersion == "v1":
		return nil, errors.New("a List is not understood; write its items as documents of their own, separated by ---")
	case version.Group != apiv1.Group:
		return nil, nil
	case kind.Kind != apiv1.KindSecretProviderClass:
		return nil, fmt.Errorf("kind %s cannot be used here, only %s", kind.Kind, apiv1.KindSecretProviderClass)
	}
	return decode(doc, version.Version)
}

func decode(doc document, version string) (*apiv1.SecretProviderClass, error) {
	class := &apiv1.SecretProviderClass{}
	switch version {
	case apiv1.Version:
		if err := yaml.UnmarshalStrict(doc.text, class); err != nil {
			return nil, err
		}
	case v1alpha1.Version:
		var old v1alpha1.SecretProviderClass
		if err := yaml.UnmarshalStrict(doc.text, &old); err != nil {
			return nil, err
		}
		class.ObjectMeta, class.Spec = old.ObjectMeta, old.Spec
	default:
		return nil, fmt.Errorf("apiVersion %s/%s is not known; use %s", apiv1.Group, version, apiv1.GroupVersion())
	}
	if class.Name == "" {
		return nil, errors.New("metadata.name must be set")
	}
	if class.Namespace == "" {
		class.Namespace = defaultNamespace
	}
	class.TypeMeta = metav1.TypeMeta{APIVersion: apiv1.GroupVersion().String(), Kind: apiv1.KindSecretProviderClass}
	return class, nil
}

// positioned says where the error is, as exactly as is known.
func positioned(path string, doc document, err error) error {
	text := err.Error()
	if at := yamlLine.FindStringSubmatchIndex(text); at != nil {
		return fmt.Errorf("%s:%s: %s", path, text[at[2]:at[3]], text[at[1]:])
	}
	if field := unknownField.FindStringSubmatch(text); field != nil {
		return fmt.Errorf("%s:%d: unknown field %q", path, fieldLine(doc, field[1]), field[1])
	}
	return fmt.Errorf("%s:%d: %w", path, doc.line, err)
}

// fieldLine is the line on which the field is named, as far as text can tell.
func fieldLine(doc document, field string) int {
	for i, line := range strings.Split(string(doc.text), "\n") {
		key := strings.TrimLeft(line, " -{\t")
		key = strings.TrimLeft(key, `"'`)
		if rest, ok := strings.CutPrefix(key, field); ok && strings.HasPrefix(strings.TrimLeft(rest, `"' `), ":") {
			return i + 1
		}
	}
	return doc.line
}
