package fetch_test

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-dev/postern/gateway/internal/provider"
	"github.com/postern-dev/postern/gateway/internal/providertest"
	"github.com/postern-dev/postern/internal/rpc"
	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
	providerv1 "github.com/postern-dev/postern/proto/gen/go/postern/provider/v1"
	secretv1 "github.com/postern-dev/postern/proto/gen/go/postern/secret/v1"
)

func notSent() error { return &provider.NotSentError{Err: fmt.Errorf("the connection is down")} }

// withTokens is a provider that wants a token for vault, and one for sts if
// there is one.
func withTokens() *scripted {
	return &scripted{description: &providerv1.DescribeResponse{Audiences: []*providerv1.Audience{
		{Source: &providerv1.Audience_Parameter{Parameter: "audience"}, ParameterDefault: "vault"},
		{Source: &providerv1.Audience_Value{Value: "sts"}, Optional: true},
	}}}
}

// An answer in memory is only for pods that could have fetched it themselves.
func TestAdmission_Tokens(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		change func(*gatewayv1.FetchRequest)
		// reason is empty where the pod is served.
		reason string
	}{
		{"its own", func(*gatewayv1.FetchRequest) {}, ""},
		{"none", func(r *gatewayv1.FetchRequest) { r.Tokens = nil }, rpc.ReasonTokenMissing},
		{"for another audience only", func(r *gatewayv1.FetchRequest) { r.Tokens[0] = providertest.Token(r, "other") }, rpc.ReasonTokenMissing},
		{"empty", func(r *gatewayv1.FetchRequest) { r.Tokens[0].Token = "" }, rpc.ReasonTokenMissing},
		{"another pod's", func(r *gatewayv1.FetchRequest) { r.Tokens[0] = providertest.Token(pod("other"), "vault") }, rpc.ReasonTokenInvalid},
		{"another account's", func(r *gatewayv1.FetchRequest) {
			other := pod("b")
			other.Pod.ServiceAccount.Name = "other"
			r.Tokens[0] = providertest.Token(other, "vault")
		}, rpc.ReasonTokenInvalid},
		{"for another audience than it says", func(r *gatewayv1.FetchRequest) {
			r.Tokens[0] = providertest.Token(r, "other")
			r.Tokens[0].Audience = "vault"
		}, rpc.ReasonTokenInvalid},
		{"garbage", func(r *gatewayv1.FetchRequest) { r.Tokens[0].Token = "x" }, rpc.ReasonTokenInvalid},
		{"a bad one that is optional", func(r *gatewayv1.FetchRequest) {
			r.Tokens = append(r.Tokens, &secretv1.Token{Audience: "sts", Token: "x"})
		}, rpc.ReasonTokenInvalid},
		{"a bad one that nobody asked for", func(r *gatewayv1.FetchRequest) {
			r.Tokens = append(r.Tokens, &secretv1.Token{Audience: "unasked", Token: "x"})
		}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, withTokens(), nil)
				first := pod("a")
				first.Tokens = []*secretv1.Token{providertest.Token(first, "vault")}
				w.want(t, first, "1", fromProvider)
				req := pod("b")
				req.Tokens = []*secretv1.Token{providertest.Token(req, "vault")}
				tt.change(req)
				if tt.reason == "" {
					w.want(t, req, "1", fromCache)
				} else {
					w.wantError(t, req, tt.reason)
				}
				w.wantCalls(t, 1)
			})
		})
	}
}

func TestAdmission_TokenExpires(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, withTokens(), nil)
		req := pod("a")
		req.Tokens = []*secretv1.Token{providertest.Token(req, "vault")}
		<-time.After(time.Hour - time.Second)
		w.want(t, req, "1", fromProvider)
		<-time.After(time.Second)
		w.wantError(t, req, rpc.ReasonTokenInvalid)
	})
}

// Pods that a provider is given different tokens of are different to it.
func TestAdmission_OptionalToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, withTokens(), nil)
		one, both := pod("a"), pod("b")
		one.Tokens = []*secretv1.Token{providertest.Token(one, "vault")}
		both.Tokens = []*secretv1.Token{providertest.Token(both, "vault"), providertest.Token(both, "sts")}
		w.want(t, one, "1", fromProvider)
		w.want(t, both, "2", fromProvider)
	})
}

// What the policy denies is neither called nor served from memory.
func TestAdmission_Policy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, &scripted{}, nil)
		w.want(t, pod("a"), "1", fromProvider)
		w.policy.err = failure(rpc.ReasonPolicyDenied)
		w.wantError(t, pod("b"), rpc.ReasonPolicyDenied)
		<-time.After(time.Minute)
		w.wantError(t, pod("c"), rpc.ReasonPolicyDenied)
		w.wantCalls(t, 1)
	})
}

// A store that asks to slow down is asked again when it may be, within one call
// of kubelet's.
func TestBudget_Throttled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &scripted{onFetch: func(call int, _ *gatewayv1.FetchRequest) (*providerv1.FetchResponse, error) {
			if call <= 2 {
				return nil, &rpc.Error{Reason: rpc.ReasonRateLimited, Message: "slow down", RetryAfter: 3 * time.Second}
			}
			return shared(fmt.Sprint(call)), nil
		}}
		w := newWorld(t, p, nil)
		started := time.Now()
		w.want(t, pod("a"), "3", fromProvider)
		if took := time.Since(started); took < 6*time.Second || took > 15*time.Second {
			t.Errorf("it took %v, want the store's pauses", took)
		}
	})
}

// A store that asks to slow down for good fails the mount, with what it said.
func TestBudget_ThrottledForGood(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &scripted{onFetch: func(int, *gatewayv1.FetchRequest) (*providerv1.FetchResponse, error) {
			return nil, failure(rpc.ReasonRateLimited)
		}}
		w := newWorld(t, p, nil)
		started := time.Now()
		w.wantError(t, pod("a"), rpc.ReasonRateLimited)
		if took := time.Since(started); took > 31*time.Second {
			t.Errorf("it took %v", took)
		}
		if calls := len(p.requests()); calls < 2 || calls > 20 {
			t.Errorf("the store was asked %d times", calls)
		}
	})
}

// A store that hangs costs another store of the same provider nothing.
func TestBudget_OneStoreHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &scripted{description: &providerv1.DescribeResponse{
			Parameters: []*providerv1.Parameter{{Name: "address", LocatesStore: true}},
		}}
		w := newWorld(t, p, nil)
		p.onFetch = func(_ int, req *gatewayv1.FetchRequest) (*providerv1.FetchResponse, error) {
			if req.GetParameters()["address"] == "https://bad" {
				<-time.After(25 * time.Second)
				return nil, failure(rpc.ReasonStoreUnavailable)
			}
			return shared("good"), nil
		}
		at := func(name, address string) *gatewayv1.FetchRequest {
			req := pod(name)
			req.Pod.ServiceAccount.Name = name
			req.Parameters["address"] = address
			return req
		}
		var pods sync.WaitGroup
		for i := range 200 {
			pods.Go(func() { w.wantError(t, at(fmt.Sprint(i), "https://bad"), rpc.ReasonStoreUnavailable) })
		}
		synctest.Wait()
		started := time.Now()
		for i := range 20 {
			w.want(t, at(fmt.Sprint(i), "https://good"), "good", fromProvider)
		}
		if took := time.Since(started); took != 0 {
			t.Errorf("the good store's pods waited for %v", took)
		}
		pods.Wait()
	})
}
