package aws

import (
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/postern-dev/postern/providers/sdk"
)

const oneSecret = "- {objectName: NS/a, objectType: secretsmanager, objectAlias: a}"

// There is somebody in the environment who may do everything. A pod without a
// role is refused all the same, and nothing is ever asked as that user.
func TestNoIdentityOfItsOwn(t *testing.T) {
	t.Parallel()
	n := newTenant(t)
	n.secret("a", "canary-a", nil)
	if os.Getenv("AWS_ACCESS_KEY_ID") != adminKey {
		t.Fatal("there is nobody in the environment")
	}
	for name, change := range map[string]func(*sdk.Request){
		"no annotation":    func(r *sdk.Request) { r.Pod.ServiceAccount.Annotations = nil },
		"empty annotation": func(r *sdk.Request) { r.Pod.ServiceAccount.Annotations = map[string]string{roleAnnotation: ""} },
		"no such role": func(r *sdk.Request) {
			r.Pod.ServiceAccount.Annotations = map[string]string{roleAnnotation: "arn:aws:iam::" + account + ":role/nobody"}
		},
		"no association": func(r *sdk.Request) { r.Parameters["usePodIdentity"] = "true" },
	} {
		t.Run(name, func(*testing.T) {
			req := n.request(oneSecret)
			change(req)
			n.wantError(req, sdk.ReasonLoginFailed)
		})
	}
	n.wantNobodyElse()
}

// wantNobodyElse fails the test if something was asked with the keys in the
// environment.
func (n *tenant) wantNobodyElse() {
	n.t.Helper()
	var all struct {
		Requests []struct{ Operation, AccessKeyID string }
	}
	if err := n.control(http.MethodGet, "/requests", nil, &all); err != nil {
		n.t.Fatal(err)
	}
	if len(all.Requests) == 0 {
		n.t.Error("no requests are recorded")
	}
	for _, r := range all.Requests {
		if r.AccessKeyID == adminKey {
			n.t.Errorf("%s was asked with the keys in the environment", r.Operation)
		}
	}
}

func TestIdentity_Refused(t *testing.T) {
	t.Parallel()
	n := newTenant(t)
	n.secret("a", "canary-a", nil)
	n.wantFiles(n.request(oneSecret), map[string]string{"a": "canary-a"})
	for name, tt := range map[string]struct {
		change func(*sdk.Request)
		reason sdk.Reason
		texts  []string
	}{
		"another service account's token": {
			func(r *sdk.Request) { r.Tokens = n.tokens(map[string]any{"sub": "system:serviceaccount:NS:other"}) },
			sdk.ReasonTokenInvalid,
			[]string{"not for the pod's"},
		},
		"another pod's token": {
			func(r *sdk.Request) {
				r.Tokens = n.tokens(map[string]any{"kubernetes.io": map[string]any{"pod": map[string]any{"uid": "other"}}})
			},
			sdk.ReasonTokenInvalid,
			[]string{"another pod"},
		},
		"expired": {
			func(r *sdk.Request) { r.Tokens = n.tokens(map[string]any{"exp": time.Now().Add(-time.Hour).Unix()}) },
			sdk.ReasonTokenInvalid,
			[]string{"expired at"},
		},
		"no token": {
			func(r *sdk.Request) { r.Tokens = r.Tokens[1:] },
			sdk.ReasonTokenMissing,
			[]string{audienceSTS, "driver.tokenRequests"},
		},
	} {
		t.Run(name, func(*testing.T) {
			req := n.request(oneSecret)
			tt.change(req)
			n.wantError(req, tt.reason, tt.texts...)
		})
	}
}

// What AWS itself refuses, by a provider that has no credentials yet.
func TestIdentity_RefusedByAWS(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change func(n *tenant, r *sdk.Request)
		reason sdk.Reason
		texts  []string
	}{
		"audience": {
			func(n *tenant, r *sdk.Request) { r.Tokens = n.tokens(map[string]any{"aud": []string{"other"}}) },
			sdk.ReasonLoginFailed,
			[]string{"InvalidIdentityToken", "the audience " + audienceSTS},
		},
		"issuer": {
			func(n *tenant, r *sdk.Request) { r.Tokens = n.tokens(map[string]any{"iss": "https://elsewhere.test"}) },
			sdk.ReasonLoginFailed,
			[]string{"OIDC provider"},
		},
		"trust": {
			func(n *tenant, r *sdk.Request) {
				r.Pod.ServiceAccount.Name = "other"
				r.Tokens = n.tokens(map[string]any{"sub": "system:serviceaccount:" + n.name + ":other"})
			},
			sdk.ReasonLoginFailed,
			[]string{"Not authorized to perform sts:AssumeRoleWithWebIdentity", "NS:other"},
		},
		"pod identity: no association": {
			func(_ *tenant, r *sdk.Request) { r.Parameters["usePodIdentity"] = "true" },
			sdk.ReasonLoginFailed,
			[]string{"Pod Identity association"},
		},
		"sts throttles": {
			func(n *tenant, _ *sdk.Request) { n.fault(map[string]any{"service": "sts", "kind": "throttle"}) },
			sdk.ReasonRateLimited,
			[]string{"slow down"},
		},
		"sts is down": {
			func(n *tenant, _ *sdk.Request) { n.fault(map[string]any{"service": "sts", "kind": "unavailable"}) },
			sdk.ReasonStoreUnavailable,
			[]string{"failed to assume role"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newTenant(t)
			n.secret("a", "canary-a", nil)
			req := n.request(oneSecret)
			tt.change(n, req)
			n.wantError(req, tt.reason, tt.texts...)
		})
	}
}

func TestPodIdentity(t *testing.T) {
	t.Parallel()
	const nowhere = "http://127.0.0.1:1/v1/credentials"
	for name, tt := range map[string]struct {
		change  func(n *tenant) func(*options)
		address string
		reason  sdk.Reason
	}{
		"IPv4":                  {func(*tenant) func(*options) { return func(o *options) { o.agent.IPv6 = nowhere } }, "ipv4", ""},
		"IPv6":                  {func(*tenant) func(*options) { return func(o *options) { o.agent.IPv4 = nowhere } }, "IPv6", ""},
		"auto":                  {func(*tenant) func(*options) { return func(*options) {} }, "", ""},
		"auto, no IPv4":         {func(*tenant) func(*options) { return func(o *options) { o.agent.IPv4 = nowhere } }, "auto", ""},
		"what nobody knows":     {func(*tenant) func(*options) { return func(*options) {} }, "ipv5", ""},
		"IPv4, which is not on": {func(*tenant) func(*options) { return func(o *options) { o.agent.IPv4 = nowhere } }, "ipv4", sdk.ReasonStoreUnavailable},
		"IPv6, which is not on": {func(*tenant) func(*options) { return func(o *options) { o.agent.IPv6 = nowhere } }, "ipv6", sdk.ReasonStoreUnavailable},
		"auto, and neither's on": {func(*tenant) func(*options) {
			return func(o *options) { o.agent.IPv4, o.agent.IPv6 = nowhere, nowhere }
		}, "auto", sdk.ReasonStoreUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newTenant(t)
			n.provider = n.start(tt.change(n))
			n.secret("a", "canary-a", nil)
			n.put(map[string]any{"associations": []any{map[string]any{"namespace": n.name, "serviceAccount": "web", "role": n.role}}})
			req := n.request(oneSecret)
			req.Pod.ServiceAccount.Annotations = nil
			req.Parameters["usePodIdentity"], req.Parameters["preferredAddressType"] = "true", tt.address
			if tt.reason != "" {
				n.wantError(req, tt.reason, "EKS Pod Identity agent")
				return
			}
			n.wantFiles(req, map[string]string{"a": "canary-a"})
			before := n.calls()
			n.wantFiles(req, map[string]string{"a": "canary-a"})
			n.wantCalls(before, map[string]int{"GetSecretValue": 1})
		})
	}
}

// Credentials that AWS has forgotten or that have ended are replaced, once.
func TestIdentity_Replaced(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(n *tenant){
		"expired": func(n *tenant) {
			if err := n.control(http.MethodPost, "/expire", map[string]string{"role": n.role}, nil); err != nil {
				n.t.Fatal(err)
			}
		},
		"unknown": func(n *tenant) { n.drop("/sessions", map[string][]string{"role": {n.role}}) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newTenant(t)
			n.secret("a", "canary-a", nil)
			req := n.request(oneSecret)
			n.fetchOK(req)
			end(n)
			before := n.calls()
			n.wantFiles(req, map[string]string{"a": "canary-a"})
			if got := since(before, n.calls())["AssumeRoleWithWebIdentity"]; got != 1 {
				t.Errorf("%d logins, want 1", got)
			}
			before = n.calls()
			n.wantFiles(req, map[string]string{"a": "canary-a"})
			n.wantCalls(before, map[string]int{"GetSecretValue": 1})
		})
	}
}

// A role that the class names is the pod's only if it trusts the pod.
func TestRoleARN(t *testing.T) {
	t.Parallel()
	n := newTenant(t)
	n.secret("a", "canary-a", nil)
	req := n.request(oneSecret)
	req.Pod.ServiceAccount.Annotations = nil
	req.Parameters["roleArn"] = n.role
	n.wantFiles(req, map[string]string{"a": "canary-a"})
	other := newTenant(t)
	other.allow(policy(map[string]any{"Effect": "Allow", "Action": "*", "Resource": "*"}))
	req.Parameters["roleArn"] = n.role + "-powerful"
	n.put(map[string]any{"roles": []any{map[string]any{
		"arn": n.role + "-powerful", "serviceAccounts": []string{"elsewhere/web"},
		"policy": policy(map[string]any{"Effect": "Allow", "Action": "*", "Resource": "*"}),
	}}})
	n.wantError(req, sdk.ReasonLoginFailed, "Not authorized")
}
