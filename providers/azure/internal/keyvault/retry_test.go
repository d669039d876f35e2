package keyvault

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-dev/postern/providers/azure/internal/params"
)

// prints are what fmt and encoding/json make of values.
func prints(values ...any) (all []string) {
	for _, v := range values {
		encoded, err := json.Marshal(v)
		all = append(all, string(encoded), fmt.Sprint(err))
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			all = append(all, fmt.Sprintf(verb, v))
		}
	}
	return all
}

func after(value string) http.Header { return http.Header{"Retry-After": {value}} }

func TestRetries(t *testing.T) {
	t.Parallel()
	throttled := failure(429, "Throttled", "")
	for name, tt := range map[string]struct {
		times    int
		answer   *reply
		deadline time.Duration // zero: none
		requests int           // with a token
		failed   Kind          // zero: it does not fail
		after    time.Duration // when to try again, if that is certain
		least    time.Duration // what it takes
		most     time.Duration
	}{
		"throttled once":            {times: 1, answer: throttled, requests: 2, least: 600 * time.Millisecond, most: 1100 * time.Millisecond},
		"throttled twice":           {times: 2, answer: throttled, requests: 3, least: 2 * time.Second, most: 5 * time.Second},
		"throttled for ever":        {times: 9, answer: throttled, requests: 3, failed: Throttled, after: longestDelay, least: 2 * time.Second, most: 5 * time.Second},
		"broken twice":              {times: 2, answer: failure(500, "InternalServerError", ""), requests: 3, least: 2 * time.Second, most: 5 * time.Second},
		"busy for ever":             {times: 9, answer: failure(503, "ServerBusy", ""), requests: 3, failed: Unavailable, least: 2 * time.Second, most: 5 * time.Second},
		"lost once":                 {times: 1, answer: &reply{err: errors.New("connection reset by peer")}, requests: 2, least: 600 * time.Millisecond, most: 1100 * time.Millisecond},
		"denied":                    {times: 9, answer: failure(403, "Forbidden", "ForbiddenByRbac"), requests: 1, failed: Denied},
		"not found":                 {times: 9, answer: failure(404, "SecretNotFound", ""), requests: 1, failed: NotFound},
		"told when":                 {times: 1, answer: &reply{status: 429, header: after("4")}, requests: 2, least: 4 * time.Second, most: 4 * time.Second},
		"told when, in ms":          {times: 1, answer: &reply{status: 429, header: http.Header{"Retry-After-Ms": {"4100"}}}, requests: 2, least: 4100 * time.Millisecond, most: 4100 * time.Millisecond},
		"told when, by date":        {times: 1, answer: &reply{status: 503, header: after("Sat, 01 Jan 2000 00:00:03 GMT")}, requests: 2, least: 3 * time.Second, most: 3 * time.Second},
		"told the longest":          {times: 1, answer: &reply{status: 429, header: after("5")}, requests: 2, least: 5 * time.Second, most: 5 * time.Second},
		"told too long":             {times: 9, answer: &reply{status: 429, header: after("6")}, requests: 1, failed: Throttled, after: 6 * time.Second},
		"told a long time":          {times: 9, answer: &reply{status: 429, header: after("60")}, requests: 1, failed: Throttled, after: time.Minute},
		"busy for a long time":      {times: 9, answer: &reply{status: 503, header: after("60")}, requests: 1, failed: Unavailable, after: time.Minute},
		"told longer than there is": {times: 9, answer: &reply{status: 429, header: after("4")}, deadline: 4 * time.Second, requests: 1, failed: Throttled, after: 4 * time.Second},
		"told, and no time to call": {times: 9, answer: &reply{status: 429, header: after("4")}, deadline: 4400 * time.Millisecond, requests: 1, failed: Throttled, after: 4 * time.Second},
		"told, and there is time":   {times: 1, answer: &reply{status: 429, header: after("4")}, deadline: 5 * time.Second, requests: 2, least: 4 * time.Second, most: 4 * time.Second},
		"time for one more":         {times: 9, answer: throttled, deadline: 3 * time.Second, requests: 2, failed: Throttled, least: 600 * time.Millisecond, most: 1100 * time.Millisecond},
		"no time":                   {times: 9, answer: throttled, deadline: time.Second, requests: 1, failed: Throttled},
		"broken and no time":        {times: 9, answer: failure(503, "ServerBusy", ""), deadline: time.Second, requests: 1, failed: Unavailable},
		"lost and no time":          {times: 9, answer: &reply{err: errors.New("connection reset by peer")}, deadline: time.Second, requests: 1, failed: Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				left := tt.times
				m := &memoryVault{objects: []*object{current(params.Secret, "a")}}
				m.script = func(r request) *reply {
					if left--; r.token != "" && left >= 0 {
						return tt.answer
					}
					if r.token == "" {
						left++
					}
					return nil
				}
				ctx := t.Context()
				if tt.deadline != 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, tt.deadline)
					defer cancel()
				}
				start := time.Now()
				answers, err := m.store().Read(ctx, as("web"), []Ref{secret("a")})
				if err != nil {
					t.Fatal(err)
				}
				if took := time.Since(start); took < tt.least || took > tt.most {
					t.Errorf("took %s, want %s to %s", took, tt.least, tt.most)
				}
				if tt.failed == 0 && answers[0].Err != nil {
					t.Error(answers[0].Err)
				}
				if tt.failed != 0 {
					if e := asError(t, answers[0].Err); e.Kind != tt.failed || tt.after != 0 && e.RetryAfter != tt.after {
						t.Errorf("%s, try again after %s: %v", e.Kind, e.RetryAfter, e)
					}
				}
				if got, want := m.operations(), fmt.Sprintf("secrets/challenge=1 secrets/get=%d", tt.requests); got != want {
					t.Errorf("%s, want %s", got, want)
				}
			})
		})
	}
}

// TestThrottledChallenge has the vault throttle the request that has no token yet.
func TestThrottledChallenge(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		left := 2
		m := &memoryVault{objects: []*object{current(params.Secret, "a")}}
		m.script = func(request) *reply {
			if left--; left >= 0 {
				return failure(429, "Throttled", "")
			}
			return nil
		}
		one(t, m.store(), as("web"), secret("a"))
		if got, want := m.operations(), "secrets/challenge=3 secrets/get=1"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	})
}

func TestRetriesAreLogged(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		answer *reply
		want   []string
	}{
		"made":     {failure(503, "ServerBusy", ""), []string{"operation=secrets/get", "attempt=2", "status=503", "duration="}},
		"not made": {&reply{status: 503, header: after("60")}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				m := &memoryVault{objects: []*object{current(params.Secret, "a")}}
				m.script = func(r request) *reply {
					if r.token == "" {
						return nil
					}
					m.script = nil
					return tt.answer
				}
				var log bytes.Buffer
				s := m.store(func(c *Config) {
					c.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
				})
				if _, err := s.Read(t.Context(), as("web"), []Ref{secret("a")}); err != nil {
					t.Fatal(err)
				}
				if tt.want == nil && log.Len() > 0 || strings.Contains(log.String(), "canary") {
					t.Errorf("logged: %s", log.String())
				}
				for _, want := range tt.want {
					if !strings.Contains(log.String(), want) {
						t.Errorf("no %s in %s", want, log.String())
					}
				}
			})
		})
	}
}

// TestTheLatestAttemptCounts has an answer first, and then none.
func TestTheLatestAttemptCounts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		answered := false
		m := &memoryVault{script: func(request) *reply {
			if !answered {
				answered = true
				return failure(503, "ServerBusy", "")
			}
			return &reply{err: errors.New("connection reset by peer")}
		}}
		if e := refused(t, m.store(), as("web"), secret("a")); e.Status != 0 || e.Code != "" || !strings.Contains(e.Message, "reset by peer") {
			t.Errorf("status %d: %v", e.Status, e)
		}
	})
}

// TestHang has a vault that does not answer: not at once, and not at all.
func TestHang(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		times    int
		deadline time.Duration
		took     time.Duration
		requests int
		text     string // of the failure
	}{
		"once":            {times: 1, deadline: time.Minute, took: tryTimeout + 2*time.Second, requests: 2},
		"for ever":        {times: 9, deadline: time.Minute, took: 3*tryTimeout + 5*time.Second, requests: 3, text: "no answer within 10s"},
		"until there was": {times: 9, deadline: 5 * time.Second, took: 5 * time.Second, requests: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				left := tt.times
				m := &memoryVault{objects: []*object{current(params.Secret, "a")}, hold: func(ctx context.Context, r request) {
					if left--; r.token != "" && left >= 0 {
						<-ctx.Done()
					}
					if r.token == "" {
						left++
					}
				}}
				ctx, cancel := context.WithTimeout(t.Context(), tt.deadline)
				defer cancel()
				start := time.Now()
				answers, err := m.store().Read(ctx, as("web"), []Ref{secret("a")})
				if took := time.Since(start); took > tt.took {
					t.Errorf("took %s, want at most %s", took, tt.took)
				}
				if got, want := m.operations(), fmt.Sprintf("secrets/challenge=1 secrets/get=%d", tt.requests); got != want {
					t.Errorf("%s, want %s", got, want)
				}
				switch {
				case tt.deadline < tryTimeout:
					if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), vaultURL) || answers != nil {
						t.Errorf("%v and %v", err, answers)
					}
				case err != nil:
					t.Error(err)
				case tt.text == "" && answers[0].Err != nil:
					t.Error(answers[0].Err)
				case tt.text != "":
					if e := asError(t, answers[0].Err); e.Kind != Unavailable || !strings.Contains(e.Message, tt.text) {
						t.Errorf("%s: %v", e.Kind, e)
					}
				}
			})
		})
	}
}
