package keyvault

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/postern-dev/postern/test/azure/control"
)

// skipToken is the parameter of a link to the next page.
const skipToken = "$skiptoken"

// entry is one of a list: an object, or a version of one.
type entry struct {
	object  *object
	version *version
	// id is the URL that the list tells.
	id string
}

// entries are all that a call lists, before they are paged.
func (c call) entries() []entry {
	if c.Operation == control.List {
		objects := c.vault.objects[c.Service]
		var all []entry
		for _, name := range slices.Sorted(maps.Keys(objects)) {
			if o := objects[name]; !o.deleted {
				all = append(all, entry{o, o.newest(), c.vault.idOf(c.Service, o.name, "")})
			}
		}
		return all
	}
	o, err := c.object()
	if err != nil {
		// Key Vault lists no versions of what is not there.
		return nil
	}
	var all []entry
	for _, v := range o.versions {
		all = append(all, entry{o, v, c.vault.idOf(c.Service, o.name, v.id)})
	}
	// Versions come in no order that means anything.
	slices.SortFunc(all, func(a, b entry) int {
		sumA, sumB := sha256.Sum256([]byte(a.version.id)), sha256.Sum256([]byte(b.version.id))
		return cmp.Compare(string(sumA[:]), string(sumB[:]))
	})
	return all
}

// page returns the entries of the page that a call asks for, and the link to the
// next one; nil if it is the last.
func (s *Store) page(c call) ([]entry, *string, error) {
	size := s.pageSize
	if raw := c.query.Get("maxresults"); raw != "" {
		n, err := strconv.Atoi(raw)
		if err != nil || n < 1 || n > defaultPageSize {
			c.Violate("maxresults=" + raw)
			return nil, nil, refuse(http.StatusBadRequest, "BadParameter", "Invalid maxresults: %s. It has to be between 1 and %d.", raw, defaultPageSize)
		}
		size = min(size, n)
	}
	all, start := c.entries(), 0
	if raw := c.query.Get(skipToken); raw != "" {
		decoded, err := base64.RawURLEncoding.DecodeString(raw)
		if err == nil {
			start, err = strconv.Atoi(string(decoded))
		}
		if err != nil || start < 0 {
			c.Violate("a skiptoken that is not the double's")
			return nil, nil, refuse(http.StatusBadRequest, "BadParameter", "Invalid skiptoken.")
		}
		start = min(start, len(all))
	}
	end := min(start+size, len(all))
	if end == len(all) {
		return all[start:end], nil, nil
	}
	link := c.link(end, size)
	return all[start:end], &link, nil
}

// link is the URL of the page that begins at an entry.
func (c call) link(next, size int) string {
	query := url.Values{
		"api-version": {c.query.Get("api-version")}, "maxresults": {strconv.Itoa(size)},
		skipToken: {base64.RawURLEncoding.EncodeToString([]byte(strconv.Itoa(next)))},
	}
	// Key Vault's links say the port.
	return "https://" + c.vault.host + ":443" + strings.TrimSuffix(c.HTTP.URL.Path, "/") + "?" + query.Encode()
}
