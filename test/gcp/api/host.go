package api

import (
	"regexp"
	"strings"

	"github.com/postern-dev/postern/test/gcp/control"
)

const (
	googleapis = ".googleapis.com"
	regional   = ".rep" + googleapis
)

// ServiceOf returns the service that a host is; "" for none.
func ServiceOf(host string) string {
	if service, location, ok := cutRegional(host); ok && isRegion(location) {
		return service
	}
	service, ok := strings.CutSuffix(host, googleapis)
	if !ok {
		return ""
	}
	switch service {
	case control.SecretManager, control.ParameterManager, control.STS, control.SecureToken, control.IAMCredentials, control.OAuth2:
		return service
	default:
		return ""
	}
}

// LocationOf returns the location of a regional endpoint; "" for a global one.
func LocationOf(host string) string {
	_, location, _ := cutRegional(host)
	return location
}

func cutRegional(host string) (service, location string, ok bool) {
	name, ok := strings.CutSuffix(host, regional)
	if !ok {
		return "", "", false
	}
	service, location, ok = strings.Cut(name, ".")
	return service, location, ok && (service == control.SecretManager || service == control.ParameterManager)
}

// isRegion tells whether there may be a region of that name, as europe-west1.
func isRegion(location string) bool {
	return regexp.MustCompile(`^[a-z]+-[a-z]+[0-9]+$`).MatchString(location)
}
