package secretmanager

import (
	"cmp"
	"context"
	"encoding/base64"
	"maps"
	"slices"
	"strings"

	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"

	"github.com/postern-dev/postern/test/gcp/api"
	"github.com/postern-dev/postern/test/gcp/iam"
	"github.com/postern-dev/postern/test/gcp/resource"
)

// maxPage is the most that the service gives in a page.
const maxPage = 25_000

// ListSecrets implements the service.
func (s *Service) ListSecrets(ctx context.Context, r *secretmanagerpb.ListSecretsRequest) (*secretmanagerpb.ListSecretsResponse, error) {
	bearer, err := s.bearer(ctx)
	if err != nil {
		return nil, err
	}
	project, location, ok := resource.ParseParent(r.GetParent())
	if !ok || location != locationOf(ctx) {
		return nil, api.Invalid("The provided parent [" + r.GetParent() + "] does not match the expected format.")
	}
	if !s.store.directory.Allowed(bearer, iam.ListSecrets, r.GetParent()) {
		return nil, api.Denied(iam.ListSecrets, r.GetParent())
	}
	matches, err := parseFilter(r.GetFilter())
	if err != nil {
		return nil, err
	}
	return s.store.page(r, func(k *secret) bool {
		return k.name.Project == s.store.directory.Number(project) && k.name.Location == location && matches(k)
	})
}

// page returns the secrets of a page, by name. Its token is of this list alone.
func (s *Store) page(r *secretmanagerpb.ListSecretsRequest, matches func(*secret) bool) (*secretmanagerpb.ListSecretsResponse, error) {
	after, ok := openToken(r)
	if !ok || r.GetPageSize() < 0 || r.GetPageSize() > maxPage {
		return nil, api.Invalid("Request contains an invalid argument.")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	size := cmp.Or(int(r.GetPageSize()), maxPage)
	if s.pageSize > 0 {
		size = min(size, s.pageSize)
	}
	answer := &secretmanagerpb.ListSecretsResponse{}
	last := ""
	for _, name := range slices.Sorted(maps.Keys(s.secrets)) {
		if !matches(s.secrets[name]) {
			continue
		}
		answer.TotalSize++
		switch {
		case name <= after:
		case len(answer.GetSecrets()) < size:
			answer.Secrets = append(answer.Secrets, s.secrets[name].proto())
			last = name
		default:
			answer.NextPageToken = sealToken(r, last)
		}
	}
	return answer, nil
}

// sealToken makes the token of the page behind a secret.
func sealToken(r *secretmanagerpb.ListSecretsRequest, last string) string {
	return base64.URLEncoding.EncodeToString([]byte(r.GetParent() + "\x00" + r.GetFilter() + "\x00" + last))
}

// openToken returns the secret that a page is behind.
func openToken(r *secretmanagerpb.ListSecretsRequest) (after string, ok bool) {
	if r.GetPageToken() == "" {
		return "", true
	}
	raw, err := base64.URLEncoding.DecodeString(r.GetPageToken())
	if err != nil {
		return "", false
	}
	return strings.CutPrefix(string(raw), r.GetParent()+"\x00"+r.GetFilter()+"\x00")
}

// parseFilter reads the part of the filter language that the double knows: terms
// labels.KEY=VALUE, labels.KEY:*, labels.KEY:VALUE and name:PART, all of which have
// to match.
func parseFilter(filter string) (matches func(*secret) bool, err error) {
	var terms []func(*secret) bool
	for _, term := range strings.Fields(filter) {
		if term == "AND" {
			continue
		}
		i := strings.IndexAny(term, "=:")
		if i < 0 {
			return nil, invalidFilter(filter)
		}
		field, exact, value := term[:i], term[i] == '=', strings.Trim(term[i+1:], `"`)
		label, isLabel := strings.CutPrefix(field, "labels.")
		switch {
		case isLabel:
			terms = append(terms, func(k *secret) bool {
				got, ok := k.labels[label]
				return ok && (got == value || !exact && (value == "*" || strings.Contains(got, value)))
			})
		case field == "name" && !exact:
			terms = append(terms, func(k *secret) bool { return strings.Contains(k.name.String(), value) })
		default:
			return nil, invalidFilter(filter)
		}
	}
	return func(k *secret) bool {
		return !slices.ContainsFunc(terms, func(matches func(*secret) bool) bool { return !matches(k) })
	}, nil
}

func invalidFilter(filter string) error {
	return api.Invalid("The provided filter [" + filter + "] is invalid.")
}
