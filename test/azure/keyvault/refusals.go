package keyvault

import (
	"fmt"
	"net/http"

	"github.com/postern-dev/postern/test/azure/api"
	"github.com/postern-dev/postern/test/azure/control"
	"github.com/postern-dev/postern/test/azure/entra"
)

// forbidden is the code of all refusals that are not of a request's form.
const forbidden = "Forbidden"

// Told is how Key Vault tells an error.
func Told(r api.Refusal) api.Answer {
	body := map[string]any{"code": r.Code, "message": r.Message}
	if r.InnerCode != "" {
		body["innererror"] = map[string]string{"code": r.InnerCode}
	}
	a := api.JSON(r.Status, map[string]any{"error": body})
	a.Code, a.InnerCode = r.Code, r.InnerCode
	return a
}

// Defaults completes a fault with what Key Vault would say.
func Defaults(f control.Fault) control.Fault {
	switch f.Kind {
	case control.Throttle:
		return api.Complete(f, http.StatusTooManyRequests, "Throttled", "Request was not processed because too many requests were received. Reason: VaultRequestTypeLimitReached")
	case control.Unavailable:
		return api.Complete(f, http.StatusServiceUnavailable, "ServiceUnavailable", "Key Vault is temporarily unavailable.")
	default:
		return api.Complete(f, http.StatusBadRequest, "BadParameter", "an injected error")
	}
}

func refuse(status int, code, format string, args ...any) *api.Refusal {
	return &api.Refusal{Status: status, Code: code, Message: fmt.Sprintf(format, args...)}
}

// help ends the texts of Key Vault's errors.
func help(link int) string {
	return fmt.Sprintf("For help resolving this issue, please see https://go.microsoft.com/fwlink/?linkid=%d", link)
}

// notFound is the error of an object that is not there, or has no such version.
func (c call) notFound() error {
	kinds := map[string]string{control.Secrets: "Secret", control.Keys: "Key", control.Certificates: "Certificate"}
	kind, id := kinds[c.Service], c.Object
	if c.Version != "" {
		id += "/" + c.Version
	}
	article := "A " + c.Service[:len(c.Service)-1]
	return refuse(http.StatusNotFound, kind+"NotFound", "%s with (name/id) %s was not found in this key vault. If you recently deleted this %s you may be able to "+
		"recover it using the correct recovery command. %s", article, id, c.Service[:len(c.Service)-1], help(2125182))
}

// disabled is the error of a secret that is disabled.
func disabled() error {
	return &api.Refusal{Status: http.StatusForbidden, Code: forbidden, InnerCode: "SecretDisabled", Message: "Operation get is not allowed on a disabled secret."}
}

// caller is how refusals name who asks.
func caller(c entra.Claims) string {
	return "appid=" + c.AppID + ";oid=" + c.ObjectID + ";iss=" + c.Issuer
}

// closed is the error of a vault that the client's network does not reach.
func (v *vault) closed(who entra.Claims, address string) error {
	r := &api.Refusal{Status: http.StatusForbidden, Code: forbidden, InnerCode: "ForbiddenByFirewall", Message: fmt.Sprintf(
		"Client address is not authorized and caller is not a trusted service.\r\nClient address: %s\r\nCaller: %s\r\nVault: %s;location=%s",
		address, caller(who), v.Name, v.Location)}
	if v.Network == control.Private {
		r.InnerCode = "ForbiddenByConnection"
		r.Message = fmt.Sprintf("Public network access is disabled and request is not from a trusted service nor via an approved private link.\r\n"+
			"Caller: %s\r\nVault: %s;location=%s", caller(who), v.Name, v.Location)
	}
	return r
}

// denied is the error of a caller who may not do something.
func (v *vault) denied(who entra.Claims, c call) error {
	permission := map[string]string{control.Get: "get"}[c.Operation]
	if permission == "" {
		permission = "list"
	}
	if v.Authorization == control.Policy {
		return &api.Refusal{Status: http.StatusForbidden, Code: forbidden, InnerCode: "ForbiddenByPolicy", Message: fmt.Sprintf(
			"The user, group or application '%s' does not have %s %s permission on key vault '%s;location=%s'. %s",
			caller(who), c.Service, permission, v.Name, v.Location, help(2125287))}
	}
	action := map[string]string{
		control.Secrets + "get": "secrets/getSecret/action", control.Secrets + "list": "secrets/readMetadata/action",
	}[c.Service+permission]
	if action == "" {
		action = c.Service + "/read"
	}
	resource := "/subscriptions/00000000-0000-0000-0000-000000000000/resourcegroups/test/providers/microsoft.keyvault/vaults/" + v.Name
	if c.Object != "" {
		resource += "/" + c.Service + "/" + c.Object
	}
	return &api.Refusal{Status: http.StatusForbidden, Code: forbidden, InnerCode: "ForbiddenByRbac", Message: fmt.Sprintf(
		"Caller is not authorized to perform action on resource.\r\n"+
			"If role assignments, deny assignments or role definitions were changed recently, please observe propagation time.\r\n"+
			"Caller: %s\r\nAction: 'Microsoft.KeyVault/vaults/%s'\r\nResource: '%s'\r\nAssignment: (not found)\r\nDenyAssignmentId: null\r\n"+
			"DecisionReason: null\r\nVault: %s;location=%s\r\n", caller(who), action, resource, v.Name, v.Location)}
}
