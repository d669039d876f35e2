package budget_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-dev/postern/gateway/internal/budget"
	"github.com/postern-dev/postern/internal/rpc"
)

// TestStates is what becomes of one store, line by line:
//
//	begin NAMES                calls that are let in at once
//	end NAMES OUTCOME [AFTER]  what they came to: ok, left (the caller was
//	                           cancelled), unmade, or a reason with its RetryAfter
//	call OUTCOME [AFTER]       both
//	wait DURATION
//	refused REASON AFTER       a call is refused at once, with that RetryAfter
//	is STATE MAX [FAILURES REASON]
//
// There may be 16 calls at a time, and pauses are the shortest that jitter makes.
func TestStates(t *testing.T) {
	t.Parallel()
	for name, script := range map[string]string{
		"works": `
			call ok
			is closed 16
			call ACCESS_DENIED
			call OBJECT_NOT_FOUND
			call INVALID_PARAMETERS
			call SOMETHING_NEW
			is closed 16`,
		"fails five times": `
			call STORE_UNAVAILABLE
			is closed 16 1 STORE_UNAVAILABLE
			call DEADLINE_EXCEEDED
			call STORE_UNAVAILABLE
			call STORE_UNAVAILABLE
			is closed 16 4 STORE_UNAVAILABLE
			call DEADLINE_EXCEEDED
			is open 0 5 DEADLINE_EXCEEDED
			refused STORE_UNAVAILABLE 500ms
			wait 499ms
			refused STORE_UNAVAILABLE 1ms
			wait 1ms
			is half_open 1 5 DEADLINE_EXCEEDED
			call ok
			is closed 2`,
		"an answer forgets failures": `
			call STORE_UNAVAILABLE
			call STORE_UNAVAILABLE
			call STORE_UNAVAILABLE
			call STORE_UNAVAILABLE
			call ACCESS_DENIED
			is closed 16
			call STORE_UNAVAILABLE
			is closed 16 1 STORE_UNAVAILABLE`,
		"what says nothing": `
			call STORE_UNAVAILABLE
			call left
			call unmade
			call PROVIDER_UNAVAILABLE
			call BUDGET_EXHAUSTED
			is closed 16 1 STORE_UNAVAILABLE`,
		"failures of calls under way when it opened": `
			begin a b c d e f g
			end a b c d e STORE_UNAVAILABLE
			is open 0 5 STORE_UNAVAILABLE
			end f STORE_UNAVAILABLE
			is open 0 5 STORE_UNAVAILABLE
			wait 500ms
			call ok
			is closed 2
			end g STORE_UNAVAILABLE
			is closed 2`,
		"success of a call under way when it opened": `
			begin a
			call STORE_UNAVAILABLE
			call STORE_UNAVAILABLE
			call STORE_UNAVAILABLE
			call STORE_UNAVAILABLE
			call STORE_UNAVAILABLE
			end a ok
			is open 0 5 STORE_UNAVAILABLE`,
		"probes": `
			begin a b c d e
			end a b c d e STORE_UNAVAILABLE
			wait 500ms
			begin probe
			is half_open 1 5 STORE_UNAVAILABLE
			refused STORE_UNAVAILABLE 1s
			end probe STORE_UNAVAILABLE
			is open 0 6 STORE_UNAVAILABLE
			refused STORE_UNAVAILABLE 1s
			wait 1s
			call DEADLINE_EXCEEDED
			refused STORE_UNAVAILABLE 2s
			wait 2s
			call STORE_UNAVAILABLE
			refused STORE_UNAVAILABLE 4s
			wait 4s
			call STORE_UNAVAILABLE
			refused STORE_UNAVAILABLE 8s
			wait 8s
			call STORE_UNAVAILABLE
			refused STORE_UNAVAILABLE 15s
			wait 15s
			call STORE_UNAVAILABLE
			refused STORE_UNAVAILABLE 15s
			wait 15s
			call OBJECT_NOT_FOUND
			is closed 2
			begin a b
			end a b STORE_UNAVAILABLE
			call STORE_UNAVAILABLE
			call STORE_UNAVAILABLE
			call STORE_UNAVAILABLE
			refused STORE_UNAVAILABLE 500ms`,
		"a probe that says nothing frees its place": `
			begin a b c d e
			end a b c d e STORE_UNAVAILABLE
			wait 500ms
			call left
			is half_open 1 5 STORE_UNAVAILABLE
			call unmade
			call PROVIDER_UNAVAILABLE
			call ok
			is closed 2`,
		"a probe that is asked to slow down": `
			begin a b c d e
			end a b c d e STORE_UNAVAILABLE
			wait 500ms
			call RATE_LIMITED 3s
			is throttled 1
			wait 3s
			is closed 1`,
		"a probe while calls from before hang": `
			begin a b c d e f g h i j k l m n o
			begin probed
			end a b c d e STORE_UNAVAILABLE
			wait 500ms
			call ok
			is closed 2`,
		"a store that says how long it is down": `
			call STORE_UNAVAILABLE 40s
			is closed 16 1 STORE_UNAVAILABLE
			begin a b c d
			end a b c d STORE_UNAVAILABLE 40s
			refused STORE_UNAVAILABLE 40s
			wait 40s
			call STORE_UNAVAILABLE 24h
			refused STORE_UNAVAILABLE 5m`,
		"asks to slow down": `
			call RATE_LIMITED 2s
			is throttled 8
			wait 2s
			is closed 8
			call ok
			is closed 9
			call LOGIN_FAILED
			is closed 10`,
		"asks to slow down for good": `
			call RATE_LIMITED
			is throttled 8
			wait 124ms
			is throttled 8
			wait 1ms
			call RATE_LIMITED
			is throttled 4
			wait 250ms
			call RATE_LIMITED
			is throttled 2
			wait 500ms
			call RATE_LIMITED
			is throttled 1
			wait 1s
			call RATE_LIMITED
			is throttled 1
			wait 2s
			call RATE_LIMITED
			is throttled 1
			wait 1999ms
			is throttled 1
			wait 1ms
			call ok
			is closed 2
			call RATE_LIMITED
			wait 125ms
			is closed 1`,
		"asks many to slow down": `
			begin a b c d e
			end a b RATE_LIMITED 1s
			is throttled 8
			wait 1s
			end c RATE_LIMITED 3s
			is throttled 8
			wait 3s
			end d ok
			is closed 8
			begin f
			end e RATE_LIMITED
			is closed 8
			end f RATE_LIMITED
			is throttled 4`,
		"asks to slow down for longer than a call has time": `
			call RATE_LIMITED 2m
			is throttled 8
			refused RATE_LIMITED 2m
			wait 1m
			refused RATE_LIMITED 1m`,
		"asks to slow down for a day": `
			call RATE_LIMITED 24h
			refused RATE_LIMITED 5m`,
		"asks to slow down between failures": `
			begin a b c d
			end a b c d STORE_UNAVAILABLE
			call RATE_LIMITED
			is throttled 8
			wait 500ms
			call STORE_UNAVAILABLE
			is closed 8 1 STORE_UNAVAILABLE`,
		"asks to slow down after it failed": `
			begin a b c d e f
			end a b c d e STORE_UNAVAILABLE
			end f RATE_LIMITED 2m
			is open 0 5 STORE_UNAVAILABLE
			refused STORE_UNAVAILABLE 2m`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				m := machine{world: newWorld(t, budget.Limits{}), leaves: map[string]*budget.Leave{}}
				for line := range strings.Lines(script) {
					if words := strings.Fields(line); len(words) > 0 {
						m.step(t, words)
					}
					if t.Failed() {
						t.Fatalf("at %q", strings.TrimSpace(line))
					}
				}
			})
		})
	}
}

// machine runs the lines of TestStates.
type machine struct {
	world
	leaves map[string]*budget.Leave
}

func (m machine) step(t *testing.T, words []string) {
	switch command, args := words[0], words[1:]; command {
	case "begin":
		for _, name := range args {
			m.leaves[name] = m.begin("store")
		}
	case "end":
		outcome := slices.IndexFunc(args, func(arg string) bool { return m.leaves[arg] == nil })
		for _, name := range args[:outcome] {
			end(t, m.leaves[name], args[outcome:])
			delete(m.leaves, name)
		}
	case "call":
		end(t, m.begin("store"), args)
	case "wait":
		<-time.After(duration(t, args[0]))
	case "refused":
		if got := m.refusal("store", args[0]).RetryAfter; got != duration(t, args[1]) {
			t.Errorf("the call may be made again after %v", got)
		}
	case "is":
		s := m.store("store")
		got := fmt.Sprintf("%v %d", s.State, s.MaxCalls)
		if s.Failures != 0 || s.Reason != "" {
			got += fmt.Sprintf(" %d %s", s.Failures, s.Reason)
		}
		if want := strings.Join(args, " "); got != want {
			t.Errorf("it is %q", got)
		}
		if later := s.State == budget.Open || s.State == budget.Throttled; s.RetryAt.IsZero() == later || later && !s.RetryAt.After(time.Now()) {
			t.Errorf("it is asked again at %v", s.RetryAt)
		}
	default:
		t.Errorf("there is no %q", command)
	}
}

func end(t *testing.T, leave *budget.Leave, outcome []string) {
	t.Helper()
	switch outcome[0] {
	case "ok":
		leave.Done(nil)
	case "left":
		leave.Done(fmt.Errorf("call the provider: %w", context.Canceled))
	case "unmade":
		leave.Cancel()
	default:
		e := &rpc.Error{Reason: outcome[0]}
		if len(outcome) > 1 {
			e.RetryAfter = duration(t, outcome[1])
		}
		leave.Done(fmt.Errorf("call the provider: %w", e))
	}
}

func duration(t *testing.T, text string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// Pauses are left to chance by half, so that nodes do not come back together.
func TestJitter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorldOf(t, budget.Config{Jitter: func() float64 { return 0.5 }})
		for range 5 {
			w.begin("store").Done(failure(rpc.ReasonStoreUnavailable))
		}
		if got := w.refusal("store", rpc.ReasonStoreUnavailable).RetryAfter; got != 750*time.Millisecond {
			t.Errorf("the pause is %v, want 750ms", got)
		}
	})
}

// Without a jitter of its own the budget has one, and pauses differ.
func TestJitter_Default(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, err := budget.New(budget.Config{Meter: meter()})
		if err != nil {
			t.Fatal(err)
		}
		w := world{Budgets: b, t: t}
		pauses := map[time.Duration]bool{}
		for i := range 20 {
			for range 5 {
				w.begin(numbered(i)).Done(context.DeadlineExceeded)
			}
			pause := w.refusal(numbered(i), rpc.ReasonStoreUnavailable).RetryAfter
			if pause < 500*time.Millisecond || pause > time.Second {
				t.Errorf("a pause of %v", pause)
			}
			pauses[pause] = true
		}
		if len(pauses) < 2 {
			t.Error("all pauses are the same")
		}
	})
}
