package refresh_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/postern-dev/postern/driver/internal/refresh"
	"github.com/postern-dev/postern/internal/rpc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestInterval(t *testing.T) {
	t.Parallel()
	const fallback = 2 * time.Minute
	for text, want := range map[string]time.Duration{
		"": fallback, "5s": 5 * time.Second, "1s": time.Second, "2h30m": 150 * time.Minute, "0": 0, "0s": 0, "off": 0, "8760h": 8760 * time.Hour,
	} {
		got, err := refresh.Interval(map[string]string{refresh.ParameterInterval: text}, fallback)
		if err != nil || got != want {
			t.Errorf("Interval(%q) = %v, %v; want %v", text, got, err, want)
		}
	}
	if got, err := refresh.Interval(nil, fallback); err != nil || got != fallback {
		t.Errorf("without parameters: %v, %v", got, err)
	}
	for _, text := range []string{"5", "999ms", "-1m", "never", "8761h", "1d", " 5s"} {
		_, err := refresh.Interval(map[string]string{refresh.ParameterInterval: text}, fallback)
		failure, ok := errors.AsType[*rpc.Error](err)
		if !ok || failure.Reason != rpc.ReasonInvalidParameters || len(failure.FieldViolations) != 1 ||
			failure.FieldViolations[0].Field != "parameters.rotationPollInterval" || !strings.Contains(failure.Message, text) {
			t.Errorf("Interval(%q): %v", text, err)
		}
	}
}

func TestWithoutInterval(t *testing.T) {
	t.Parallel()
	parameters := map[string]string{refresh.ParameterInterval: "5s", "roleName": "shop"}
	got := refresh.WithoutInterval(parameters)
	if len(got) != 1 || got["roleName"] != "shop" || len(parameters) != 2 {
		t.Errorf("%v of %v", got, parameters)
	}
}

var fetched = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// What volumes of a class hold of one answer is due at one moment, soon after
// the interval; nodes, classes and answers differ.
func TestTiming_Next(t *testing.T) {
	t.Parallel()
	for _, interval := range []time.Duration{time.Second, 5 * time.Second, 2 * time.Minute, time.Hour} {
		limit := min(interval/10, time.Second)
		moments := make(map[time.Duration]bool)
		for i := range 200 {
			content := refresh.Content{Class: "shop/db", FetchedAt: fetched.Add(time.Duration(i) * time.Minute), Interval: interval}
			late := refresh.Timing{Node: "a"}.Next(content).Sub(content.FetchedAt) - interval
			if late < 0 || late > limit {
				t.Fatalf("interval %v: due %v after it, want 0 to %v", interval, late, limit)
			}
			if again := (refresh.Timing{Node: "a"}).Next(content).Sub(content.FetchedAt) - interval; again != late {
				t.Fatalf("the same content is due at two moments")
			}
			moments[late] = true
		}
		if len(moments) < 190 {
			t.Errorf("interval %v: only %d different moments in 200", interval, len(moments))
		}
	}
	content := refresh.Content{Class: "shop/db", FetchedAt: fetched, Interval: time.Hour}
	other := content
	other.Class = "shop/cache"
	if (refresh.Timing{Node: "a"}).Next(content).Equal(refresh.Timing{Node: "b"}.Next(content)) {
		t.Error("two nodes are due at the same moment")
	}
	if (refresh.Timing{Node: "a"}).Next(content).Equal(refresh.Timing{Node: "a"}.Next(other)) {
		t.Error("two classes are due at the same moment")
	}
}

// What many nodes mount at once is not due on all of them at once.
func TestTiming_NextOfMount(t *testing.T) {
	t.Parallel()
	quarters := [4]int{}
	for i := range 400 {
		node := refresh.Timing{Node: strings.Repeat("n", i+1)}
		after := node.Next(refresh.Content{Class: "shop/db", FetchedAt: fetched, Interval: 2 * time.Minute, First: true}).Sub(fetched)
		if after < time.Minute || after > 2*time.Minute {
			t.Fatalf("due after %v", after)
		}
		quarters[min(3, (after-time.Minute)/(15*time.Second))]++
	}
	for i, count := range quarters {
		if count < 60 {
			t.Errorf("%d of 400 nodes are due in quarter %d", count, i)
		}
	}
}

func TestTiming_NextNever(t *testing.T) {
	t.Parallel()
	if due := (refresh.Timing{}).Next(refresh.Content{FetchedAt: fetched}); !due.IsZero() {
		t.Errorf("due at %v", due)
	}
}

func TestTiming_Retry(t *testing.T) {
	t.Parallel()
	const s = time.Second
	tests := []struct {
		name     string
		failure  rpc.Error
		interval time.Duration
		want     []time.Duration // of the first attempts, without what is added
	}{
		{"store down", rpc.Error{Reason: rpc.ReasonStoreUnavailable}, 2 * time.Minute, []time.Duration{s, 2 * s, 4 * s, 8 * s, 16 * s, 32 * s, 60 * s, 60 * s}},
		{"short interval", rpc.Error{Reason: rpc.ReasonStoreUnavailable}, 5 * s, []time.Duration{s, 2 * s, 4 * s, 5 * s, 5 * s}},
		{"unknown", rpc.Error{}, time.Hour, []time.Duration{s, 2 * s, 4 * s, 8 * s, 16 * s, 32 * s, 60 * s}},
		{"breaker says when", rpc.Error{Reason: rpc.ReasonStoreUnavailable, RetryAfter: 17 * s}, 5 * s, []time.Duration{17 * s, 17 * s}},
		{"throttled", rpc.Error{Reason: rpc.ReasonRateLimited}, 5 * s, []time.Duration{10 * s, 20 * s, 40 * s, 80 * s, 120 * s, 120 * s}},
		{"throttled for longer", rpc.Error{Reason: rpc.ReasonRateLimited, RetryAfter: 300 * s}, 120 * s, []time.Duration{300 * s}},
		{"budget", rpc.Error{Reason: rpc.ReasonBudgetExhausted}, time.Hour, []time.Duration{10 * s, 20 * s, 40 * s, 80 * s, 160 * s, 320 * s, 640 * s}},
		{"denied", rpc.Error{Reason: rpc.ReasonAccessDenied}, 2 * time.Minute, []time.Duration{30 * s, 60 * s, 120 * s, 120 * s}},
		{"denied, short", rpc.Error{Reason: rpc.ReasonObjectNotFound}, 5 * s, []time.Duration{5 * s, 5 * s}},
		{"denied, never refreshed", rpc.Error{Reason: rpc.ReasonPolicyDenied}, 0, []time.Duration{30 * s, 60 * s, 120 * s, 120 * s}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			for i, want := range test.want {
				got := refresh.Timing{Node: "a"}.Retry(refresh.Failure{Class: "shop/db", Err: &test.failure, Attempts: i + 1, Interval: test.interval})
				if got < want || got > want+want/5 {
					t.Errorf("after %d failures: %v, want %v and up to a fifth more", i+1, got, want)
				}
			}
			if got := (refresh.Timing{Node: "a"}).Retry(refresh.Failure{Err: &test.failure, Attempts: 1 << 30, Interval: test.interval}); got <= 0 || got > time.Hour*2 {
				t.Errorf("after very many failures: %v", got)
			}
		})
	}
}

func TestOutlookOf(t *testing.T) {
	t.Parallel()
	for outlook, reasons := range map[refresh.Outlook][]string{
		refresh.Transient: {rpc.ReasonStoreUnavailable, rpc.ReasonProviderUnavailable, rpc.ReasonGatewayUnavailable, rpc.ReasonDeadlineExceeded, rpc.ReasonInternal, ""},
		refresh.Throttled: {rpc.ReasonRateLimited, rpc.ReasonBudgetExhausted},
		refresh.Refused: {
			rpc.ReasonAccessDenied, rpc.ReasonObjectNotFound, rpc.ReasonLoginFailed, rpc.ReasonInvalidParameters, rpc.ReasonPolicyDenied,
			rpc.ReasonSecretProviderClassNotFound, rpc.ReasonResponseTooLarge, rpc.ReasonInvalidResponse, rpc.ReasonCallerRefused, rpc.ReasonMountFailed,
		},
		refresh.NeedsToken: {rpc.ReasonTokenInvalid, rpc.ReasonTokenMissing},
	} {
		for _, reason := range reasons {
			if got := refresh.OutlookOf(&rpc.Error{Reason: reason}); got != outlook {
				t.Errorf("%q: outlook %d, want %d", reason, got, outlook)
			}
		}
	}
}
