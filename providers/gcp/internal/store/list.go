package store

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"
	"google.golang.org/grpc"

	"github.com/postern-dev/postern/providers/gcp/internal/params"
)

const (
	// pageSize is how many secrets are asked for at a time. A secret's labels and
	// annotations have up to some 30 kB, of which an answer may hold 8 MiB.
	pageSize = 200
	// maxPages bounds what is looked through. A page may have less than its size.
	maxPages = 100
)

// list finds secrets. What the service finds is compared again: it knows labels, but
// of names only that they contain something.
func (s *Store) list(ctx context.Context, as As, sel *params.Select) ([]string, *Error) {
	e, err := s.endpoints.enter(endpointKey{params.Secret, sel.Location})
	if err != nil {
		return nil, (&request{permission: listSecrets, resource: sel.Parent()}).refused(err)
	}
	defer s.endpoints.leave(e)
	r := s.ask(e, as, listSecrets, sel.Parent())
	in := &secretmanagerpb.ListSecretsRequest{Parent: sel.Parent(), PageSize: pageSize, Filter: filterOf(sel)}
	names := make(map[string]bool) // one that moves between pages is there twice
	for range maxPages {
		var page *secretmanagerpb.ListSecretsResponse
		failure := r.repeat(ctx, func(ctx context.Context, e *endpoint, login grpc.CallOption) error {
			var err error
			page, err = e.secrets.ListSecrets(ctx, in, login)
			return err
		})
		if failure != nil {
			return nil, failure
		}
		for _, secret := range page.GetSecrets() {
			name := secret.GetName()[strings.LastIndexByte(secret.GetName(), '/')+1:]
			if sel.Matches(name, secret.GetLabels()) {
				names[name] = true
			}
		}
		in.PageToken = page.GetNextPageToken()
		if in.PageToken == "" || len(names) > sel.Limit {
			sorted := slices.Sorted(maps.Keys(names))
			return sorted[:min(len(sorted), sel.Limit+1)], nil
		}
	}
	return nil, &Error{
		Kind: Invalid, Endpoint: e.host, Operation: r.permission, Resource: r.resource,
		Message: fmt.Sprintf("the list has more than %d pages: select by labels, of which the service finds secrets itself", maxPages),
	}
}

// filterOf is what the service can do of a selection:
// https://cloud.google.com/secret-manager/docs/filtering
func filterOf(sel *params.Select) string {
	var terms []string
	for _, key := range slices.Sorted(maps.Keys(sel.Labels)) {
		terms = append(terms, fmt.Sprintf("labels.%s=%q", key, sel.Labels[key]))
	}
	return strings.Join(terms, " AND ")
}
