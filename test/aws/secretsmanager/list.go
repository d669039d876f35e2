package secretsmanager

import (
	"cmp"
	"encoding/base64"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/postern-dev/postern/test/aws/api"
)

// filter is one of ListSecrets or BatchGetSecretValue.
type filter struct {
	Key    string
	Values []string
}

// matches tells whether one of the values matches, or none that is negated. Names
// and tags are compared by prefix; a tag's key and value are not looked at together.
func (f filter) matches(s *secret) bool {
	var texts []string
	fold := false
	switch f.Key {
	case "name":
		texts = []string{s.name}
	case "description":
		texts, fold = strings.Fields(s.description), true
	case "tag-key":
		texts = slices.Collect(maps.Keys(s.tags))
	case "tag-value":
		texts = slices.Collect(maps.Values(s.tags))
	case "primary-region":
		texts = []string{s.primary}
	case "all":
		texts = slices.Concat([]string{s.name}, strings.Fields(s.description), slices.Collect(maps.Keys(s.tags)), slices.Collect(maps.Values(s.tags)))
		fold = true
	}
	return slices.ContainsFunc(f.Values, func(value string) bool {
		wanted, negated := strings.CutPrefix(value, "!")
		return negated != slices.ContainsFunc(texts, func(text string) bool {
			if fold {
				return strings.HasPrefix(strings.ToLower(text), strings.ToLower(wanted))
			}
			return strings.HasPrefix(text, wanted)
		})
	})
}

// list returns the secrets of the caller's account that all filters match, by
// the time of their creation and name.
func (s *Service) list(c api.Call, filters []filter, deleted bool) []*secret {
	var found []*secret
	for _, candidate := range s.secrets {
		matches := candidate.region == c.Region && candidate.account == c.Caller.Account &&
			(deleted || candidate.deleted.IsZero()) &&
			!slices.ContainsFunc(filters, func(f filter) bool { return !f.matches(candidate) })
		if matches {
			found = append(found, candidate)
		}
	}
	slices.SortFunc(found, func(a, b *secret) int {
		return cmp.Or(a.created.Compare(b.created), strings.Compare(a.name, b.name))
	})
	return found
}

// maxList is the most secrets of one answer of ListSecrets.
const maxList = 100

func (s *Service) listSecrets(c api.Call) (api.Answer, error) {
	var in struct {
		IncludePlannedDeletion bool
		MaxResults             int
		NextToken              string
		Filters                []filter
		SortOrder              string
	}
	if err := c.Decode(&in); err != nil {
		return nil, err
	}
	if err := s.allowed(c, "secretsmanager:ListSecrets"); err != nil {
		return nil, err
	}
	found := s.list(c, in.Filters, in.IncludePlannedDeletion)
	if in.SortOrder == "desc" {
		slices.Reverse(found)
	}
	arns := make([]string, len(found))
	for i, f := range found {
		arns[i] = f.arn
	}
	page, next, err := s.page(arns, in.NextToken, cmp.Or(in.MaxResults, maxList))
	if err != nil {
		return nil, err
	}
	entries := []api.Answer{}
	for _, arn := range page {
		secret := s.byARN(c.Region, arn)
		entry := secret.describe("SecretVersionsToStages")
		for name, value := range secret.details {
			if name != "ReplicationStatus" {
				entry[name] = value
			}
		}
		entries = append(entries, entry)
	}
	return withNext(api.Answer{"SecretList": entries}, next), nil
}

// page cuts a page out of ids. A token holds the place where it goes on.
func (s *Service) page(ids []string, token string, size int) (page []string, next string, err error) {
	if s.pageSize > 0 {
		size = min(size, s.pageSize)
	}
	from := 0
	if token != "" {
		place, err := base64.StdEncoding.DecodeString(token)
		if err != nil {
			return nil, "", invalidToken()
		}
		if from, err = strconv.Atoi(string(place)); err != nil || from <= 0 || from >= len(ids) {
			return nil, "", invalidToken()
		}
	}
	to := min(from+size, len(ids))
	if to < len(ids) {
		next = base64.StdEncoding.EncodeToString([]byte(strconv.Itoa(to)))
	}
	return ids[from:to], next, nil
}

// invalidToken is the answer to a NextToken that was not handed out.
func invalidToken() error {
	return api.BadRequest("InvalidNextTokenException", "The NextToken value is invalid.")
}

func withNext(answer api.Answer, next string) api.Answer {
	if next != "" {
		answer["NextToken"] = next
	}
	return answer
}
