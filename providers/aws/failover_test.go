package aws

import (
	"maps"
	"testing"

	"github.com/postern-dev/postern/providers/sdk"
)

const second = "us-west-2"

// The failover region is asked when the first does not work, never when it
// refuses, and not at all when all is well.
func TestFailover(t *testing.T) {
	t.Parallel()
	down := map[string]any{"kind": "unavailable", "region": region}
	for name, tt := range map[string]struct {
		faults []map[string]any
		change func(n *tenant)
		want   string // the contents
		reason sdk.Reason
		texts  []string
		asked  bool // the failover region
	}{
		"all is well":               {want: "canary-first"},
		"5xx":                       {faults: []map[string]any{{"kind": "unavailable", "region": region, "service": "secretsmanager"}}, want: "canary-second", asked: true},
		"STS 5xx":                   {faults: []map[string]any{{"kind": "unavailable", "service": "sts", "count": 3}}, want: "canary-second", asked: true},
		"no connection":             {faults: []map[string]any{{"kind": "close", "region": region}}, want: "canary-second", asked: true},
		"hangs":                     {faults: []map[string]any{{"kind": "hang", "region": region, "service": "secretsmanager"}}, want: "canary-second", asked: true},
		"slow":                      {faults: []map[string]any{{"kind": "latency", "latency": "1s", "region": region, "service": "secretsmanager"}}, want: "canary-first"},
		"internal error":            {faults: []map[string]any{{"kind": "error", "status": 500, "code": "InternalServiceError", "region": region, "service": "secretsmanager"}}, want: "canary-second", asked: true},
		"not there":                 {change: func(n *tenant) { n.drop("/secrets", map[string][]string{"region": {region}, "name": {n.name + "/a"}}) }, reason: sdk.ReasonObjectNotFound},
		"denied":                    {change: func(n *tenant) { n.allow(n.onlyIn(second)) }, reason: sdk.ReasonAccessDenied},
		"throttled":                 {faults: []map[string]any{{"kind": "throttle", "region": region, "service": "secretsmanager"}}, reason: sdk.ReasonRateLimited},
		"both fail":                 {faults: []map[string]any{{"kind": "unavailable", "service": "secretsmanager"}}, reason: sdk.ReasonStoreUnavailable, texts: []string{"Failed to fetch secret from all regions", region, second}, asked: true},
		"first fails, second lacks": {faults: []map[string]any{down}, change: func(n *tenant) { n.drop("/secrets", map[string][]string{"region": {second}, "name": {n.name + "/a"}}) }, reason: sdk.ReasonObjectNotFound, texts: []string{"Failed to fetch secret from all regions", "NS/a"}, asked: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newTenant(t)
			n.secret("a", "canary-first", nil)
			n.secret("a", "canary-second", map[string]any{"region": second})
			if tt.change != nil {
				tt.change(n)
			}
			for _, fault := range tt.faults {
				n.fault(maps.Clone(fault))
			}
			req := n.request(oneSecret)
			req.Parameters["failoverRegion"] = second
			if tt.reason != "" {
				n.wantError(req, tt.reason, tt.texts...)
			} else {
				n.wantFiles(req, map[string]string{"a": tt.want})
			}
			calls := n.calls()
			if asked := calls[second+" GetSecretValue"] > 0; asked != tt.asked {
				t.Errorf("the failover region was asked: %t, want %t (%v)", asked, tt.asked, calls)
			}
		})
	}
}

// onlyIn lets the role read in one region.
func (n *tenant) onlyIn(region string) map[string]any {
	return policy(map[string]any{
		"Effect": "Allow", "Action": "secretsmanager:*", "Resource": "arn:aws:secretsmanager:" + region + ":*:secret:*",
	})
}

// A failover object has a name of its own, and is read in its region. It is not
// parallel: it ends the faults of all.
func TestFailover_Object(t *testing.T) {
	n := newTenant(t)
	n.secret("a", "canary-first", map[string]any{"suffix": "AAAAAA"})
	n.secret("b", "canary-second", map[string]any{"region": second, "suffix": "BBBBBB"})
	req := n.request(`
- objectName: arn:aws:secretsmanager:eu-west-1:111122223333:secret:NS/a-AAAAAA
  objectAlias: a
  failoverObject: {objectName: "arn:aws:secretsmanager:us-west-2:111122223333:secret:NS/b-BBBBBB"}
`)
	req.Parameters["failoverRegion"] = second
	resp := n.fetchOK(req)
	if got := contentsOf(resp); got["a"] != "canary-first" {
		t.Errorf("files %v", got)
	}
	n.fault(map[string]any{"kind": "unavailable", "region": region})
	again := refreshed(req, resp)
	got := n.fetchOK(again)
	if files := contentsOf(got); files["a"] != "canary-second" {
		t.Errorf("files %v", files)
	}
	n.drop("/faults", nil)
	if files := contentsOf(n.fetchOK(refreshed(again, got))); files["a"] != "canary-first" {
		t.Errorf("files %v once the region is back", files)
	}
}

// A refresh does not wait for a first region that hangs either.
func TestFailover_RefreshWhileItHangs(t *testing.T) {
	t.Parallel()
	n := newTenant(t)
	n.secret("a", "canary-first", nil)
	n.secret("a", "canary-second", map[string]any{"region": second})
	req := n.request(oneSecret)
	req.Parameters["failoverRegion"] = second
	again := refreshed(req, n.fetchOK(req))
	n.fault(map[string]any{"kind": "hang", "region": region, "service": "secretsmanager"})
	n.wantFiles(again, map[string]string{"a": "canary-second"})
}
