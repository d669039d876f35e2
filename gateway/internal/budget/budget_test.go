package budget_test

import (
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/metric"

	"github.com/postern-dev/postern/gateway/internal/budget"
	"github.com/postern-dev/postern/internal/rpc"
	"github.com/postern-dev/postern/internal/telemetry"
)

func meter() metric.Meter { return telemetry.Discard().Meter("test") }

func TestNew_Refuses(t *testing.T) {
	t.Parallel()
	for want, cfg := range map[string]budget.Config{
		"budget: no meter is given":                                         {},
		"budget: the default limits: a number of calls is negative":         {Meter: meter(), Default: budget.Limits{Calls: -1}},
		"budget: the default limits: NaN calls per second are no rate":      {Meter: meter(), Default: budget.Limits{Rate: math.NaN()}},
		"budget: the default limits: +Inf calls per second are no rate":     {Meter: meter(), Default: budget.Limits{Rate: math.Inf(1)}},
		`budget: the limits of provider "a": a number of calls is negative`: {Meter: meter(), Providers: map[string]budget.Limits{"a": {Queue: -1}}},
		`budget: the limits of provider "b": -1 calls per second are no rate`: {
			Meter: meter(), Providers: map[string]budget.Limits{"b": {Rate: -1}},
		},
	} {
		if _, err := budget.New(cfg); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorldOf(t, budget.Config{
			Default:   budget.Limits{Queue: 100},
			Providers: map[string]budget.Limits{"aws": {Calls: 8, Rate: 5}, "gcp": {Calls: 100, StoreCalls: 90, Queue: 7}},
		})
		for name, want := range map[string]struct {
			budget.Budget
			store uint32
		}{
			vault: {budget.Budget{MaxCalls: 64, MaxQueued: 100}, 16},
			"aws": {budget.Budget{MaxCalls: 8, MaxQueued: 100, MaxRate: 5}, 6}, // three quarters
			"gcp": {budget.Budget{MaxCalls: 100, MaxQueued: 7}, 75},
		} {
			if got, stores := w.Status(name); got != want.Budget || len(stores) != 0 {
				t.Errorf("%s: %+v, %v", name, got, stores)
			}
			leave := w.beginOf(name, "a")
			got, stores := w.Status(name)
			want.Calls = 1
			if got != want.Budget {
				t.Errorf("%s in use: %+v", name, got)
			}
			if want := []budget.Store{{Store: "a", State: budget.Closed, Calls: 1, MaxCalls: want.store}}; !cmp.Equal(want, stores) {
				t.Errorf("%s: %s", name, cmp.Diff(want, stores))
			}
			leave.Done(nil)
		}
		if got := w.Providers(); !slices.Equal(got, []string{"aws", "gcp", vault}) {
			t.Errorf("providers are %v", got)
		}
	})
}

// What people read says what to do, and holds nothing of another's error.
func TestMessages(t *testing.T) {
	t.Parallel()
	const slow = `look why it is slow, or raise `
	synctest.Test(t, func(t *testing.T) {
		check := func(err *rpc.Error, want string) {
			t.Helper()
			if err.Message != want {
				t.Errorf("the message is\n%s\nwant\n%s", err.Message, want)
			}
			if err.Metadata[rpc.MetadataProvider] != vault {
				t.Errorf("it does not name the provider: %v", err.Metadata)
			}
		}
		tooLate := func(w world, store string) *rpc.Error {
			c := w.queueFor(store, time.Second)
			<-c.done
			return refusalOf(t, c.err, rpc.ReasonBudgetExhausted)
		}

		w := newWorld(t, budget.Limits{Calls: 3, StoreCalls: 2, Queue: 1})
		for range 5 {
			w.begin("bad").Done(failure(rpc.ReasonStoreUnavailable))
		}
		check(w.refusal("bad", rpc.ReasonStoreUnavailable), `the store "bad" of provider "vault" failed 5 times in a row, `+
			`most recently with STORE_UNAVAILABLE; it is asked again in 500ms: check the provider's log and whether the store answers`)
		<-time.After(time.Second)
		probe := w.begin("bad")
		check(w.refusal("bad", rpc.ReasonStoreUnavailable), `the store "bad" of provider "vault" failed 5 times in a row, `+
			`most recently with STORE_UNAVAILABLE; one call is finding out now whether it works again: check the provider's log and whether the store answers`)
		probe.Done(nil)

		w.begin("busy").Done(&rpc.Error{Reason: rpc.ReasonRateLimited, Message: "of another pod", RetryAfter: 90*time.Second + 1})
		check(w.refusal("busy", rpc.ReasonRateLimited), `the store "busy" of provider "vault" asked to slow down and is asked again in 1m30.1s, `+
			`which is later than this call's deadline: raise the store's limit, or ask it less with --max-rate=vault=N (Helm value gateway.budgets.maxRate)`)
		<-time.After(2 * time.Minute)
		leave := w.begin("busy") // its window is 1
		check(tooLate(w, "busy"), `the turn of this call does not come before its deadline, because the store "busy" of provider "vault" `+
			`failed or asked to slow down lately, so that its calls are limited to 1 at a time: see the provider's log, or raise the store's limit`)
		leave.Done(nil)

		leaves := []*budget.Leave{w.begin("a"), w.begin("a")}
		check(tooLate(w, "a"), `the turn of this call does not come before its deadline, because the store "a" of provider "vault" `+
			`has 2 calls under way: `+slow+`--max-store-calls (Helm value gateway.budgets.maxStoreCalls)`)
		leaves = append(leaves, w.begin("b"))
		check(tooLate(w, "c"), `the turn of this call does not come before its deadline, because provider "vault" `+
			`has 3 of 3 calls under way: `+slow+`--max-calls (Helm value gateway.budgets.maxCalls)`)
		c := w.queue("c")
		check(w.refusal("c", rpc.ReasonBudgetExhausted), `provider "vault" has 3 calls under way and 1 waiting, and no more may wait: `+
			slow+`--max-queued, --max-calls or --max-store-calls (Helm values gateway.budgets.maxQueued, maxCalls, maxStoreCalls)`)
		for _, leave := range leaves {
			leave.Done(nil)
		}
		c.letIn(t).Done(nil)

		w = newWorld(t, budget.Limits{Rate: 0.5})
		w.begin("a").Done(nil)
		<-time.After(1500 * time.Millisecond) // half a second is missing
		first, second := w.queueFor("a", time.Second), w.queue("b")
		third := w.queueFor("c", 2400*time.Millisecond) // before the second one's turn
		<-third.done
		check(refusalOf(t, third.err, rpc.ReasonBudgetExhausted), `the turn of this call does not come before its deadline, because provider "vault" `+
			`may make 0.5 calls per second: raise --max-rate=vault=N (Helm value gateway.budgets.maxRate)`)
		first.letIn(t).Done(nil)
		second.letIn(t).Done(nil)

		w = newWorld(t, budget.Limits{Rate: 1e-15})
		w.begin("a").Done(nil)
		check(w.refusal("a", rpc.ReasonBudgetExhausted), `the turn of this call does not come before its deadline, because provider "vault" `+
			`may make 1e-15 calls per second: raise --max-rate=vault=N (Helm value gateway.budgets.maxRate)`)
	})
}

// A store that nobody asks for is forgotten, and how many there are is bounded.
func TestStores_Forgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, budget.Limits{})
		used := w.begin("in use")
		w.begin("idle").Done(nil)
		<-time.After(10*time.Minute - 1)
		if _, stores := w.Status(vault); len(stores) != 2 {
			t.Errorf("stores are %v", stores)
		}
		<-time.After(1)
		if _, stores := w.Status(vault); len(stores) != 1 || stores[0].Store != "in use" {
			t.Errorf("stores are %v", stores)
		}
		for i := range 3000 {
			w.begin(numbered(i)).Done(nil)
			<-time.After(time.Millisecond)
		}
		_, stores := w.Status(vault)
		if len(stores) != 1024 {
			t.Fatalf("%d stores are remembered", len(stores))
		}
		if stores[0].Store != "in use" || stores[1].Store != numbered(3000-1023) {
			t.Errorf("the first that are remembered are %v and %v, want the last used", stores[0].Store, stores[1].Store)
		}
		used.Done(nil)
		w.empty()
		<-time.After(10*time.Minute - 1)
		if _, stores := w.Status(vault); len(stores) != 1 || stores[0].Store != "in use" {
			t.Errorf("of a store that was in use until then are remembered %v", stores)
		}
	})
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tel := telemetry.Discard()
		w := newWorldOf(t, budget.Config{Meter: tel.Meter("test"), Default: budget.Limits{StoreCalls: 6}})
		for range 5 {
			w.begin("open").Done(failure(rpc.ReasonStoreUnavailable))
		}
		w.refused("open", rpc.ReasonStoreUnavailable)
		w.begin("throttled").Done(&rpc.Error{Reason: rpc.ReasonRateLimited, RetryAfter: time.Hour})
		w.refused("throttled", rpc.ReasonRateLimited)
		var leaves []*budget.Leave
		for range 6 {
			leaves = append(leaves, w.begin("closed"))
		}
		c := w.queue("closed")
		<-time.After(300 * time.Millisecond)
		leaves[0].Done(nil)
		leaves = append(leaves[1:], c.letIn(t))
		waiting, gone := w.queue("closed"), w.queue("closed")
		gone.cancel()
		<-gone.done
		text := scrape(t, tel)
		for _, want := range []string{
			`postern_gateway_budget_calls{provider="vault"} 6`,
			`postern_gateway_budget_queued{provider="vault"} 1`,
			`postern_gateway_budget_refused_total{provider="vault",reason="STORE_UNAVAILABLE"} 1`,
			`postern_gateway_budget_refused_total{provider="vault",reason="RATE_LIMITED"} 1`,
			`postern_gateway_budget_wait_duration_seconds_count{provider="vault"} 1`,
			`postern_gateway_budget_wait_duration_seconds_sum{provider="vault"} 0.3`,
			`postern_gateway_stores{provider="vault",state="closed"} 1`,
			`postern_gateway_stores{provider="vault",state="open"} 1`,
			`postern_gateway_stores{provider="vault",state="half_open"} 0`,
			`postern_gateway_stores{provider="vault",state="throttled"} 1`,
		} {
			if !strings.Contains(text, want+"\n") {
				t.Errorf("there is no %s", want)
			}
		}
		if t.Failed() {
			t.Log(text)
		}
		if used, _ := w.Status(vault); used.Refused != 2 {
			t.Errorf("%d calls were refused", used.Refused)
		}
		for _, leave := range leaves {
			leave.Done(nil)
		}
		waiting.letIn(t).Done(nil)
	})
}

func scrape(t *testing.T, tel *telemetry.Telemetry) string {
	t.Helper()
	recorder := httptest.NewRecorder()
	tel.MetricsHandler().ServeHTTP(recorder, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	var lines []string
	for line := range strings.Lines(recorder.Body.String()) {
		if strings.HasPrefix(line, "postern_gateway") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}
