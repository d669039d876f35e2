package aws

import (
	"maps"
	"testing"

	"github.com/postern-dev/postern/providers/sdk"
)

// What a user reads of each way in which AWS refuses, with what has to be done.
func TestErrors(t *testing.T) {
	t.Parallel()
	const (
		parameter = "- {objectName: /NS/p, objectType: ssmparameter}"
		two       = oneSecret + "\n- {objectName: NS/b, objectType: secretsmanager}"
	)
	broken := func(service, code string, status int) map[string]any {
		return map[string]any{"service": service, "kind": "error", "code": code, "status": status, "message": "because of a test"}
	}
	for name, tt := range map[string]struct {
		objects string
		fault   map[string]any
		change  func(n *tenant)
		reason  sdk.Reason
		texts   []string
	}{
		"no such secret": {
			objects: "- {objectName: NS/none, objectType: secretsmanager}", reason: sdk.ReasonObjectNotFound,
			texts: []string{"eu-west-1: Failed fetching secret NS/none: ResourceNotFoundException", "Check the name, the region"},
		},
		"no such version": {
			objects: "- {objectName: NS/a, objectType: secretsmanager, objectVersionLabel: NOWHERE}", reason: sdk.ReasonObjectNotFound,
			texts: []string{"Failed fetching secret NS/a", "version or label"},
		},
		"two do not exist": {
			objects: "- {objectName: NS/x, objectType: secretsmanager}\n- {objectName: NS/y, objectType: secretsmanager}", reason: sdk.ReasonObjectNotFound,
			texts: []string{"NS/x", "nor can be had: NS/y"},
		},
		"marked for deletion": {
			objects: oneSecret, change: func(n *tenant) {
				n.put(map[string]any{"secrets": []any{with(map[string]any{"deleted": true}, "name", n.name+"/a")}})
			},
			reason: sdk.ReasonObjectNotFound, texts: []string{"marked for deletion"},
		},
		"no such parameter": {
			objects: "- {objectName: /NS/none, objectType: ssmparameter}", reason: sdk.ReasonObjectNotFound,
			texts: []string{"400: eu-west-1: invalid parameters: /NS/none"},
		},
		"may not read a secret": {
			objects: oneSecret, change: func(n *tenant) { n.allow(n.without("secretsmanager:GetSecretValue")) }, reason: sdk.ReasonAccessDenied,
			texts: []string{"is not authorized to perform: secretsmanager:GetSecretValue", "role arn:aws:iam::111122223333:role/NS must allow secretsmanager:GetSecretValue on NS/a"},
		},
		"may read one of two": {
			objects: two, reason: sdk.ReasonAccessDenied,
			change: func(n *tenant) {
				n.allow(policy(
					map[string]any{"Effect": "Allow", "Action": "secretsmanager:BatchGetSecretValue", "Resource": "*"},
					map[string]any{"Effect": "Allow", "Action": "secretsmanager:GetSecretValue", "Resource": "arn:aws:secretsmanager:*:*:secret:" + n.name + "/a-??????"},
				))
			},
			texts: []string{`object "NS/b"`, "must allow secretsmanager:GetSecretValue on NS/b"},
		},
		"may not read a parameter": {
			objects: parameter, change: func(n *tenant) { n.allow(policy()) }, reason: sdk.ReasonAccessDenied,
			texts: []string{"eu-west-1: Failed fetching parameters: AccessDeniedException", "must allow ssm:GetParameters on /NS/p"},
		},
		"may not use the key": {
			objects: oneSecret, change: func(n *tenant) {
				n.put(map[string]any{"secrets": []any{with(map[string]any{"kms": "denied"}, "name", n.name+"/a")}})
			},
			reason: sdk.ReasonAccessDenied, texts: []string{"kms:Decrypt"},
		},
		"throttled":        {objects: oneSecret, fault: map[string]any{"service": "secretsmanager", "kind": "throttle"}, reason: sdk.ReasonRateLimited, texts: []string{"slow down"}},
		"SSM throttled":    {objects: parameter, fault: map[string]any{"service": "ssm", "kind": "throttle"}, reason: sdk.ReasonRateLimited, texts: []string{"slow down"}},
		"unavailable":      {objects: oneSecret, fault: map[string]any{"service": "secretsmanager", "kind": "unavailable"}, reason: sdk.ReasonStoreUnavailable, texts: []string{"endpoints of secretsmanager in eu-west-1"}},
		"no connection":    {objects: parameter, fault: map[string]any{"service": "ssm", "kind": "close"}, reason: sdk.ReasonStoreUnavailable, texts: []string{"endpoints of ssm"}},
		"garbage":          {objects: oneSecret, fault: map[string]any{"service": "secretsmanager", "kind": "garbage"}, reason: sdk.ReasonStoreUnavailable},
		"internal error":   {objects: oneSecret, fault: broken("secretsmanager", "InternalServiceError", 500), reason: sdk.ReasonStoreUnavailable, texts: []string{"InternalServiceError"}},
		"invalid request":  {objects: oneSecret, fault: broken("secretsmanager", "InvalidParameterException", 400), reason: sdk.ReasonInvalidParameters, texts: []string{"objects[0]", "because of a test"}},
		"not JSON":         {objects: "- {objectName: NS/a, objectType: secretsmanager, jmesPath: [{path: x, objectAlias: x}]}", reason: sdk.ReasonInvalidParameters, texts: []string{"Invalid JSON used with jmesPath in secret: NS/a."}},
		"no such key":      {objects: "- {objectName: NS/json, objectType: secretsmanager, jmesPath: [{path: x, objectAlias: x}]}", reason: sdk.ReasonObjectNotFound, texts: []string{"does not point to a valid object"}},
		"not an object":    {objects: "- {objectName: NS/json, objectType: secretsmanager, jmesPath: [{path: k, objectAlias: 'x-*'}]}", reason: sdk.ReasonInvalidParameters, texts: []string{"k"}},
		"the region's off": {objects: oneSecret, fault: map[string]any{"service": "sts", "kind": "error", "code": "RegionDisabledException", "status": 403}, reason: sdk.ReasonLoginFailed, texts: []string{"RegionDisabledException"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newTenant(t)
			n.secret("a", "canary-a", nil)
			n.secret("b", "canary-b", nil)
			n.secret("json", `{"k":"canary-v"}`, nil)
			n.parameter("p", "canary-p", nil)
			if tt.change != nil {
				tt.change(n)
			}
			if tt.fault != nil {
				n.fault(maps.Clone(tt.fault))
			}
			n.wantError(n.request(tt.objects), tt.reason, tt.texts...)
		})
	}
}

// Nobody may find out why a pod's volume is missing only by reading the
// provider's log: all that is wrong with a class is said at once.
func TestErrors_Parameters(t *testing.T) {
	t.Parallel()
	n := newTenant(t)
	req := n.request("- {objectName: NS/a, objectType: ssm}\n- {objectType: secretsmanager}")
	delete(req.Parameters, "region")
	req.Parameters["usePodIdentity"] = "yes"
	n.wantError(req, sdk.ReasonInvalidParameters, "region: failed to retrieve region from node", "usePodIdentity", "objects[0]", "objects[1].objectName")
	req = n.request(oneSecret)
	delete(req.Parameters, "region")
	n.secret("a", "canary-a", nil)
	req.Node.Labels = map[string]string{regionLabel: region}
	n.wantFiles(req, map[string]string{"a": "canary-a"})
}
