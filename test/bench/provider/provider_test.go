package provider_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-dev/postern/providers/sdk"
	"github.com/postern-dev/postern/test/bench/provider"
)

func TestDefinition(t *testing.T) {
	t.Parallel()
	if err := provider.Definition().Validate(); err != nil {
		t.Error(err)
	}
}

// A served call takes the latency and says whose answer it is.
func TestFetch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		resp, err := provider.New().Fetch(t.Context(), request("pod", map[string]string{"latency": "50ms"}))
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took != 50*time.Millisecond {
			t.Errorf("it took %v, want 50ms", took)
		}
		if len(resp.Files) != 1 || string(resp.Files[0].Contents.Reveal()) != "shop/web" || resp.Files[0].Path != provider.File {
			t.Errorf("files %v, want one that says shop/web", resp.Files)
		}
		if resp.Sharing != sdk.SharingServiceAccount || resp.FreshFor < time.Hour {
			t.Errorf("shared with %v for %v, want the service account, for longer than a benchmark", resp.Sharing, resp.FreshFor)
		}
	})
}

func TestFetch_EndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := provider.New().Fetch(ctx, request("pod", map[string]string{"latency": "1h"}))
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Fetch() = %v, want the context's error", err)
		}
	})
}

// Over its rate a store refuses, at once; another store has a limit of its own.
func TestFetch_Rate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := provider.New()
		limited := map[string]string{"rate": "2", "latency": "1ms"}
		fetch(t, p, "a", limited, "")
		fetch(t, p, "b", limited, "")
		start := time.Now()
		_, err := p.Fetch(t.Context(), request("c", limited))
		refused, ok := errors.AsType[*sdk.Error](err)
		if !ok || refused.Reason != sdk.ReasonRateLimited || refused.RetryAfter != time.Second || time.Since(start) != 0 {
			t.Errorf("refused with %v after %v, want RATE_LIMITED at once, asking for 1s", err, time.Since(start))
		}
		fetch(t, p, "c", map[string]string{"rate": "2", "store": "another"}, "")
		<-time.After(500 * time.Millisecond)
		fetch(t, p, "c", limited, "")
		fetch(t, p, "d", limited, sdk.ReasonRateLimited)
	})
}

func TestFetch_RefusesEachPodOnce(t *testing.T) {
	t.Parallel()
	p := provider.New()
	once := map[string]string{"refuseFirst": "true"}
	fetch(t, p, "a", once, sdk.ReasonRateLimited)
	fetch(t, p, "b", once, sdk.ReasonRateLimited)
	fetch(t, p, "a", once, "")
	fetch(t, p, "b", once, "")
}

func TestFetch_WantsATokenAndAStore(t *testing.T) {
	t.Parallel()
	r := request("pod", nil)
	r.Tokens = nil
	wantReason(t, sdk.ReasonTokenMissing, r)
	r = request("pod", nil)
	delete(r.Parameters, "store")
	wantReason(t, sdk.ReasonInvalidParameters, r)
}

func wantReason(t *testing.T, want sdk.Reason, r *sdk.Request) {
	t.Helper()
	_, err := provider.New().Fetch(t.Context(), r)
	if e, ok := errors.AsType[*sdk.Error](err); !ok || e.Reason != want {
		t.Errorf("Fetch() = %v, want %s", err, want)
	}
}

// fetch fails unless the call comes to the reason; "" is success.
func fetch(t *testing.T, p *provider.Provider, uid string, parameters map[string]string, want sdk.Reason) {
	t.Helper()
	_, err := p.Fetch(t.Context(), request(uid, parameters))
	e, ok := errors.AsType[*sdk.Error](err)
	switch {
	case want == "" && err != nil:
		t.Errorf("pod %s: %v", uid, err)
	case want != "" && (!ok || e.Reason != want):
		t.Errorf("pod %s: %v, want %s", uid, err, want)
	}
}

func request(uid string, parameters map[string]string) *sdk.Request {
	merged := sdk.Parameters{"store": "one"}
	for name, value := range parameters {
		merged[name] = value
	}
	return &sdk.Request{
		Pod:             sdk.Pod{Namespace: "shop", Name: "web-0", UID: uid, ServiceAccount: sdk.ServiceAccount{Name: "web"}},
		Parameters:      merged,
		Tokens:          sdk.Tokens{{Audience: provider.Audience, Token: sdk.NewSecretString("token")}},
		DefaultFileMode: 0o644,
	}
}
