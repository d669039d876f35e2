package ssm

import (
	"encoding/base64"
	"slices"
	"strconv"
	"strings"

	"github.com/postern-dev/postern/test/aws/api"
)

// filter is one of DescribeParameters.
type filter struct {
	Key    string
	Option string
	Values []string
}

// check refuses what DescribeParameters does not filter by.
func (f filter) check() error {
	options := map[string][]string{
		"Name": {"", "Equals", "BeginsWith", "Contains"}, "Type": {"", "Equals", "BeginsWith"}, "KeyId": {"", "Equals", "BeginsWith"},
		"Path": {"", "OneLevel", "Recursive"}, "Tier": {"", "Equals"}, "DataType": {"", "Equals"},
	}
	allowed, ok := options[f.Key]
	if strings.HasPrefix(f.Key, "tag:") {
		allowed, ok = []string{"", "Equals"}, true
	}
	switch {
	case !ok:
		return api.BadRequest("InvalidFilterKey", "")
	case !slices.Contains(allowed, f.Option):
		return api.BadRequest("InvalidFilterOption", "The following filter option is not valid: "+f.Option+". Valid options include: "+strings.Join(allowed[1:], ", ")+".")
	case len(f.Values) == 0 && !strings.HasPrefix(f.Key, "tag:"):
		return api.BadRequest("InvalidFilterValue", "The filter "+f.Key+" has no value.")
	}
	return nil
}

// matches tells whether one of the values matches. A tag without a value matches
// any that is there.
func (f filter) matches(p *parameter) bool {
	text := map[string]string{
		"Name": p.name, "Type": p.latest().kind, "KeyId": p.keyID, "Tier": "Standard", "DataType": p.dataType,
	}[f.Key]
	if tag, ok := strings.CutPrefix(f.Key, "tag:"); ok {
		if text, ok = p.tags[tag]; !ok {
			return false
		}
		if len(f.Values) == 0 {
			return true
		}
	}
	return slices.ContainsFunc(f.Values, func(value string) bool {
		if f.Key == "Path" {
			rest, ok := strings.CutPrefix(p.name, strings.TrimSuffix(value, "/")+"/")
			return ok && (f.Option == "Recursive" || !strings.Contains(rest, "/"))
		}
		switch f.Option {
		case "BeginsWith":
			return strings.HasPrefix(text, value)
		case "Contains":
			return strings.Contains(text, value)
		default:
			return text == value
		}
	})
}

// page cuts a page out of all parameters, before they are filtered: as in AWS, a
// page may hold less than there is, or nothing, and yet be followed by another.
func (s *Service) page(all []*parameter, token string, size int) (page []*parameter, next string, err error) {
	if s.pageSize > 0 {
		size = min(size, s.pageSize)
	}
	from := 0
	if token != "" {
		place, err := base64.StdEncoding.DecodeString(token)
		if err == nil {
			from, err = strconv.Atoi(string(place))
		}
		if err != nil || from <= 0 || from >= len(all) {
			return nil, "", api.BadRequest("InvalidNextToken", "The specified token is not valid.")
		}
	}
	to := min(from+size, len(all))
	if to < len(all) {
		next = base64.StdEncoding.EncodeToString([]byte(strconv.Itoa(to)))
	}
	return all[from:to], next, nil
}
