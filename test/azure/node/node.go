// Package node answers what a node answers on Azure: the instance metadata service,
// which gives access tokens of the node's identities, and NMI of AAD Pod Identity,
// which gives those of a pod.
package node

import (
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/postern-dev/postern/test/azure/api"
	"github.com/postern-dev/postern/test/azure/control"
	"github.com/postern-dev/postern/test/azure/entra"
)

const (
	// IMDSPath is where IMDS gives tokens.
	IMDSPath = "/metadata/identity/oauth2/token"
	// NMIPath is where NMI gives tokens to those who ask for a pod.
	NMIPath = "/host/token/"
)

// Identities are what a node and its pods may use.
type Identities struct {
	directory *entra.Directory
	resource  func(string) bool

	mu   sync.Mutex
	node []control.Identity
	pods []control.PodIdentity
}

// New returns none yet. Resource tells whether anybody takes tokens for a URL.
func New(directory *entra.Directory, resource func(string) bool) *Identities {
	return &Identities{directory: directory, resource: resource}
}

// Reset forgets all.
func (i *Identities) Reset() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.node, i.pods = nil, nil
}

// Put adds an identity of the node, or replaces the one of the same client.
func (i *Identities) Put(added control.Identity) error {
	if added.ClientID == "" {
		return errors.New("an identity needs a clientId")
	}
	if err := i.directory.NeedTenant(added.Tenant); err != nil {
		return err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.node = slices.DeleteFunc(i.node, func(old control.Identity) bool { return old.ClientID == added.ClientID })
	i.node = append(i.node, added)
	return nil
}

// PutPod adds what a pod may use, or replaces it.
func (i *Identities) PutPod(added control.PodIdentity) error {
	if added.Namespace == "" || added.ClientID == "" {
		return errors.New("a pod identity needs a namespace and a clientId")
	}
	if err := i.directory.NeedTenant(added.Tenant); err != nil {
		return err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.pods = slices.DeleteFunc(i.pods, func(old control.PodIdentity) bool { return old.Namespace == added.Namespace && old.Pod == added.Pod })
	i.pods = append(i.pods, added)
	return nil
}

// Told is how IMDS tells an error.
func Told(status int, code, message string) api.Answer {
	a := api.JSON(status, map[string]string{"error": code, "error_description": message})
	a.Code = code
	return a
}

// ServeIMDS answers a call to the instance metadata service.
func (i *Identities) ServeIMDS(c *api.Call) api.Answer {
	query := c.HTTP.URL.Query()
	switch {
	case c.HTTP.URL.Path != IMDSPath || c.HTTP.Method != http.MethodGet:
		c.Violate("no such request: " + c.HTTP.Method + " " + c.HTTP.URL.Path)
		return Told(http.StatusNotFound, "not_found", "The requested resource is not found.")
	case c.HTTP.Header.Get("Metadata") != "true":
		c.Violate("no header Metadata: true")
		return Told(http.StatusBadRequest, "invalid_request", "Required metadata header not specified")
	case c.HTTP.Header.Get("X-Forwarded-For") != "":
		c.Violate("it came through a proxy")
		return Told(http.StatusBadRequest, "invalid_request", "X-Forwarded-For is not allowed")
	case query.Get("api-version") == "":
		c.Violate("no api-version")
		return Told(http.StatusBadRequest, "invalid_request", "Required query variable 'api-version' is missing")
	case query.Get("resource") == "":
		c.Violate("no resource")
		return Told(http.StatusBadRequest, "invalid_request", "Required query variable 'resource' is missing")
	}
	if c.HTTP.Header.Get("Authorization") != "" {
		c.Violate("an access token was sent to IMDS")
	}
	identity, ok := i.find(query.Get)
	if !ok {
		return Told(http.StatusBadRequest, "invalid_request", "Identity not found")
	}
	c.Tenant, c.ClientID = identity.Tenant, identity.ClientID
	issued, answer := i.issue(identity, query.Get("resource"))
	if answer != nil {
		return *answer
	}
	issued["client_id"] = identity.ClientID
	return api.JSON(http.StatusOK, issued)
}

// find returns the identity of a request to IMDS.
func (i *Identities) find(query func(string) string) (control.Identity, bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	resourceID := query("msi_res_id")
	if resourceID == "" {
		resourceID = query("mi_res_id")
	}
	for _, identity := range i.node {
		var is bool
		switch {
		case query("client_id") != "":
			is = strings.EqualFold(identity.ClientID, query("client_id"))
		case query("object_id") != "":
			is = strings.EqualFold(identity.ObjectID, query("object_id"))
		case resourceID != "":
			is = strings.EqualFold(identity.ResourceID, resourceID)
		default:
			is = identity.System
		}
		if is {
			return identity, true
		}
	}
	return control.Identity{}, false
}

// issue makes a token, as IMDS and NMI write it: all numbers are texts.
func (i *Identities) issue(identity control.Identity, resource string) (map[string]string, *api.Answer) {
	if !i.resource(resource) {
		refused := Told(http.StatusBadRequest, "invalid_resource", "AADSTS500011: The resource principal named "+resource+" was not found in the tenant.")
		return nil, &refused
	}
	issued, err := i.directory.Issue(entra.Subject{
		Tenant: identity.Tenant, ClientID: identity.ClientID, ObjectID: identity.ObjectID, Resource: resource,
	})
	if err != nil {
		refused := Told(http.StatusInternalServerError, "unknown", err.Error())
		return nil, &refused
	}
	seconds := strconv.Itoa(int(issued.Lifetime.Seconds()))
	return map[string]string{
		"access_token": issued.Token, "expires_in": seconds, "ext_expires_in": seconds, "expires_on": strconv.FormatInt(issued.Expires.Unix(), 10),
		"not_before": strconv.FormatInt(issued.Expires.Add(-issued.Lifetime).Unix(), 10), "resource": resource, "token_type": "Bearer",
	}, nil
}

// ToldText is how NMI tells an error.
func ToldText(status int, message string) api.Answer {
	return api.Answer{Status: status, Code: strconv.Itoa(status), ContentType: "text/plain; charset=utf-8", Body: []byte(message + "\n")}
}

// ServeNMI answers a call to NMI.
func (i *Identities) ServeNMI(c *api.Call) api.Answer {
	namespace, pod, resource := c.HTTP.Header.Get("podns"), c.HTTP.Header.Get("podname"), c.HTTP.URL.Query().Get("resource")
	switch {
	case c.HTTP.URL.Path != NMIPath || c.HTTP.Method != http.MethodGet:
		c.Violate("no such request: " + c.HTTP.Method + " " + c.HTTP.URL.Path)
		return ToldText(http.StatusNotFound, "404 page not found")
	case namespace == "" || pod == "":
		c.Violate("no headers podns and podname")
		return ToldText(http.StatusBadRequest, "missing 'podname' and 'podns' from request header")
	case resource == "":
		c.Violate("no resource")
		return ToldText(http.StatusBadRequest, "parameter resource cannot be empty")
	}
	identity, ok := i.findPod(namespace, pod)
	if !ok {
		return ToldText(http.StatusNotFound, "no azure identity found for request clientID , pod "+namespace+"/"+pod)
	}
	c.Tenant, c.ClientID = identity.Tenant, identity.ClientID
	issued, answer := i.issue(control.Identity{Tenant: identity.Tenant, ClientID: identity.ClientID}, resource)
	if answer != nil {
		return ToldText(http.StatusForbidden, string(answer.Body))
	}
	issued["refresh_token"] = ""
	delete(issued, "ext_expires_in")
	return api.JSON(http.StatusOK, map[string]any{"token": issued, "clientid": identity.ClientID})
}

// findPod returns the identity of a pod: its own before its namespace's.
func (i *Identities) findPod(namespace, pod string) (control.PodIdentity, bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, name := range []string{pod, ""} {
		for _, identity := range i.pods {
			if identity.Namespace == namespace && identity.Pod == name {
				return identity, true
			}
		}
	}
	return control.PodIdentity{}, false
}

// Defaults completes a fault with what IMDS and NMI would say.
func Defaults(f control.Fault) control.Fault {
	status, code, message := http.StatusBadRequest, "invalid_request", "an injected error"
	switch f.Kind {
	case control.Throttle:
		status, code, message = http.StatusTooManyRequests, "too_many_requests", "Too many requests"
	case control.Unavailable:
		status, code, message = http.StatusServiceUnavailable, "service_unavailable", "Service Unavailable"
	}
	return api.Complete(f, status, code, message)
}
