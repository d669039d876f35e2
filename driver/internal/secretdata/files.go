package secretdata

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	apiv1 "github.com/postern-dev/postern/driver/api/v1"
)

// maxListed is how many files a message names.
const maxListed = 5

// source is where the value of a key comes from.
type source struct {
	file File
	// missing is true if the volume has no such file, which was said already.
	missing bool
	// field is the field of the secretObject that asks for it.
	field string
}

// selection says which file becomes which key.
type selection struct {
	files   []File // by path
	sources map[string]source
	found   *problems
}

// selectFiles gives each key its file. What data names wins over dataFrom.
func selectFiles(object *apiv1.SecretObject, files []File, found *problems) map[string]source {
	s := &selection{
		files:   slices.SortedFunc(slices.Values(files), func(a, b File) int { return strings.Compare(a.Path, b.Path) }),
		sources: map[string]source{},
		found:   found,
	}
	if len(object.Data) == 0 && len(object.DataFrom) == 0 {
		found.add("data", "is empty: name at least one file here, or take files with dataFrom")
	}
	for i, entry := range object.Data {
		s.addEntry(fmt.Sprintf("data[%d]", i), entry)
	}
	named := make(map[string]bool, len(s.sources))
	for key := range s.sources {
		named[key] = true
	}
	for i, rule := range object.DataFrom {
		s.addRule(fmt.Sprintf("dataFrom[%d]", i), rule, named)
	}
	return s.sources
}

func (s *selection) addEntry(field string, entry *apiv1.SecretObjectData) {
	if entry == nil {
		entry = new(apiv1.SecretObjectData)
	}
	name, key := strings.TrimSpace(entry.ObjectName), strings.TrimSpace(entry.Key)
	file, ok := s.lookup(name)
	switch {
	case name == "":
		s.found.add(field+".objectName", "is not set: name a file of the volume")
	case !ok:
		s.found.add(field+".objectName", "is %.100q, and the volume has no such file: it has %s", name, s.list())
	}
	switch problems := validation.IsConfigMapKey(key); {
	case key == "":
		s.found.add(field+".key", "is not set: name the key of the Secret")
	case len(problems) > 0:
		s.found.add(field+".key", "is %.100q, which is not a key: %s", key, strings.Join(problems, ", "))
	default:
		s.put(key, source{file: file, missing: !ok, field: field})
	}
}

// addRule takes the files of a dataFrom, but for the keys that data names.
func (s *selection) addRule(field string, rule *apiv1.SecretObjectDataFrom, named map[string]bool) {
	if rule == nil {
		rule = new(apiv1.SecretObjectDataFrom)
	}
	pattern, prefix := strings.TrimSpace(rule.Files), strings.TrimSpace(rule.KeyPrefix)
	matches := 0
	for _, file := range s.files {
		if ok, err := path.Match(pattern, file.Path); err != nil {
			s.found.add(field+".files", "is %.100q, which is not a pattern: use *, ? and [a-z], and \\ before these to mean themselves", pattern)
			return
		} else if !ok && pattern != "" {
			continue
		}
		matches++
		key := prefix + strings.ReplaceAll(file.Path, "/", "_")
		switch problems := validation.IsConfigMapKey(key); {
		case named[key]:
		case len(problems) > 0:
			s.found.add(field, "makes key %.100q of file %.100q, which is not a key: name the file in data with a key of its own, and narrow files; %s",
				key, file.Path, strings.Join(problems, ", "))
		default:
			s.put(key, source{file: file, field: field})
		}
	}
	if matches == 0 {
		s.found.add(field+".files", "is %.100q, and no file of the volume matches: it has %s", pattern, s.list())
	}
}

// put enters a key. Two files for one key are an error, and the first stays.
func (s *selection) put(key string, from source) {
	other, taken := s.sources[key]
	switch {
	case !taken:
		s.sources[key] = from
	case other.file.Path != from.file.Path:
		s.found.add(from.field, "makes key %.100q of file %.100q, and %s makes it of file %.100q: give one of them another key, or a keyPrefix",
			key, from.file.Path, other.field, other.file.Path)
	}
}

func (s *selection) lookup(name string) (File, bool) {
	i, ok := slices.BinarySearchFunc(s.files, name, func(f File, name string) int { return strings.Compare(f.Path, name) })
	if !ok {
		return File{Path: name}, false
	}
	return s.files[i], true
}

// list names some of the volume's files.
func (s *selection) list() string {
	var names []string
	for _, file := range s.files[:min(len(s.files), maxListed)] {
		names = append(names, fmt.Sprintf("%.100q", file.Path))
	}
	switch more := len(s.files) - len(names); {
	case len(names) == 0:
		return "no files"
	case more > 0:
		return fmt.Sprintf("%s and %d more", strings.Join(names, ", "), more)
	default:
		return strings.Join(names, ", ")
	}
}
