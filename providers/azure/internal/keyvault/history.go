package keyvault

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/postern-dev/postern/providers/azure/internal/params"
)

const (
	// maxVersionPages bounds a list of versions, and maxPages one of objects. A page
	// has 25 entries.
	maxVersionPages = 40
	maxPages        = 100
)

// errTooLong is a list that goes on for ever, or for longer than is waited for.
var errTooLong = errors.New("the list is too long")

// history reads several versions of an object, the newest first.
func (v *visit) history(ctx context.Context, ref Ref) ([]Object, *Error) {
	did := operation{ref.Type, "list", ref.Name}
	versions, failure := v.lists.do(listKey{ref.Type, ref.Name}, func() ([]entry, *Error) { return v.versions(ctx, did) })
	if failure != nil {
		return nil, failure
	}
	wanted, failure := v.wanted(versions, ref, did)
	if failure != nil {
		return nil, failure
	}
	objects := make([]Object, len(wanted))
	failures := make([]*Error, len(wanted))
	var running sync.WaitGroup
	for i, version := range wanted {
		running.Go(func() { objects[i], failures[i] = v.get(ctx, getKey{ref.Type, ref.Name, version}) })
	}
	running.Wait()
	for i, failure := range failures {
		if failure != nil {
			return nil, failure.whileListed(wanted[i])
		}
	}
	return objects, nil
}

// versions lists all versions of an object, the newest first. Vaults tell times in
// seconds: versions of one second are in an order that stays the same.
func (v *visit) versions(ctx context.Context, did operation) ([]entry, *Error) {
	var all []entry
	failure := v.each(ctx, did, maxVersionPages, func(s service) pages { return s.versions(did.object) }, func(page []entry) bool {
		all = append(all, page...)
		return true
	})
	if failure != nil {
		if errors.Is(failure.Err, errTooLong) {
			failure.Message = fmt.Sprintf("there are more versions than a history is looked for in, which is %d pages: "+
				"read objectVersion without objectVersionHistory, or begin a new object", maxVersionPages)
		}
		return nil, failure
	}
	for _, one := range all {
		if one.version == "" || one.created.IsZero() {
			return nil, did.failed(v.vault.URL, nil, &incompleteError{"the creation time of a version, or its id"})
		}
	}
	slices.SortFunc(all, func(a, b entry) int {
		return cmp.Or(b.created.Compare(a.created), strings.Compare(a.version, b.version))
	})
	return all, nil
}

// wanted chooses from all versions those that a ref asks for: enabled ones, from its
// own version back.
func (v *visit) wanted(all []entry, ref Ref, did operation) ([]string, *Error) {
	lost := func(kind Kind, format string, args ...any) ([]string, *Error) {
		return nil, &Error{
			Kind: kind, Vault: v.vault.URL, Operation: did.String(), Object: did.object, Message: fmt.Sprintf(format, args...),
		}
	}
	var wanted []string
	found := ref.Version == ""
	for _, one := range all {
		if !found && strings.EqualFold(one.version, ref.Version) {
			if one.disabled {
				return lost(Disabled, "version %s is disabled, so no history can begin with it", ref.Version)
			}
			found = true
		}
		if found && !one.disabled {
			wanted = append(wanted, one.version)
		}
	}
	switch {
	case len(all) == 0:
		return lost(NotFound, "there is no such %s, or it has no versions", noun(ref.Type))
	case !found:
		return lost(NotFound, "there is no version %s", ref.Version)
	case len(wanted) == 0:
		return lost(Disabled, "all versions are disabled")
	}
	count := ref.History
	if v.store.inclusive {
		count++
	}
	return wanted[:min(count, len(wanted))], nil
}

// list finds the names that a selection matches.
func (v *visit) list(ctx context.Context, kind params.ObjectType, sel *params.Select) ([]string, *Error) {
	names := make(map[string]struct{})
	failure := v.each(ctx, operation{kind, "list", ""}, maxPages, service.objects, func(page []entry) bool {
		for _, one := range page {
			if !one.disabled && sel.Matches(one.name, one.tags) {
				names[one.name] = struct{}{}
			}
		}
		return len(names) <= sel.Limit
	})
	if failure != nil {
		if errors.Is(failure.Err, errTooLong) {
			failure.Message = fmt.Sprintf("the vault has more %s than are looked through, which is %d pages: "+
				"name the objects, or keep them in a vault of their own", collection(kind), maxPages)
		}
		return nil, failure
	}
	sorted := make([]string, 0, len(names))
	for name := range names {
		sorted = append(sorted, name)
	}
	slices.Sort(sorted)
	return sorted[:min(len(sorted), sel.Limit+1)], nil
}

// each reads a list, page by page, until there is no more or see has seen enough.
func (v *visit) each(ctx context.Context, did operation, most int, from func(service) pages, see func([]entry) bool) *Error {
	var next pages
	for range most {
		var page []entry
		var more bool
		failure := v.call(ctx, did, func(ctx context.Context, s service) error {
			if next == nil {
				next = from(s)
			}
			var err error
			page, more, err = next(ctx)
			return err
		})
		if failure != nil {
			return failure
		}
		if !see(page) || !more {
			return nil
		}
	}
	return &Error{Kind: Invalid, Vault: v.vault.URL, Operation: did.String(), Object: did.object, Err: errTooLong}
}
