package fetch

import (
	"net/url"
	"strings"

	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
)

const (
	// defaultStore is the store of an SPC that does not say which one.
	defaultStore = "default"
	// maxStoreBytes bounds a store's name: what an SPC may hold is longer.
	maxStoreBytes = 200
)

// storeOf tells one store of a provider from another: by the parameters that
// its provider says locate it. Of a legacy provider nothing is known, so each
// SPC has a store of its own: nobody suffers from another's.
func storeOf(description Description, req *gatewayv1.FetchRequest) string {
	if description.Legacy {
		return req.GetPod().GetNamespace() + "/" + req.GetSecretProviderClass()
	}
	var parts []string
	for _, parameter := range description.GetParameters() {
		value := req.GetParameters()[parameter.GetName()]
		if parameter.GetLocatesStore() && value != "" {
			parts = append(parts, parameter.GetName()+"="+withoutCredentials(value))
		}
	}
	if len(parts) == 0 {
		return defaultStore
	}
	store := strings.Join(parts, ",")
	if len(store) > maxStoreBytes {
		store = strings.ToValidUTF8(store[:maxStoreBytes], "")
	}
	return store
}

// withoutCredentials is a value as it may be shown: an address without what
// may hold a password.
func withoutCredentials(value string) string {
	address, err := url.Parse(value)
	if err != nil || address.Host == "" {
		before, _, _ := strings.Cut(value, "?")
		return before[strings.LastIndex(before, "@")+1:]
	}
	address.User, address.RawQuery, address.Fragment = nil, "", ""
	return address.String()
}
