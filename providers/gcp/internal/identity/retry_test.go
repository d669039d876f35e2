package identity

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestHang: a login ends, and so does the wait for it; what has had its time is not
// asked again.
func TestHang(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := googles()
		s.takes = time.Hour
		began := time.Now()
		_, err := manager(s, nil).Acquire(t.Context(), of(WorkloadIdentity, "a"))
		e := failure(t, err)
		if e.Kind != Unavailable || e.Message != "securetoken.googleapis.com: no answer in time" || time.Since(began) != tryTimeout || s.count() != 1 {
			t.Errorf("error %v after %v and %d requests", err, time.Since(began), s.count())
		}
	})
}

// TestRetryHelps: one that passes is not seen, and each request is whole.
func TestRetryHelps(t *testing.T) {
	t.Parallel()
	for name, use := range map[string]Use{"pod": impersonating(), "key": of(ServiceAccountKey, "a")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &transport{answer: func(number int, one asked) scripted {
					if number%2 == 1 {
						return scripted{status: 503, header: []string{"Retry-After", "1"}}
					}
					return issued(number, one)
				}}
				began := time.Now()
				acquire(t, manager(s, nil), use)
				all := s.all()
				if took := time.Since(began); took != time.Duration(len(all)/2)*time.Second {
					t.Errorf("%d requests in %v", len(all), took)
				}
				for i := 0; i+1 < len(all); i += 2 {
					if all[i].url != all[i+1].url || len(all[i].fields) == 0 || len(all[i].fields) != len(all[i+1].fields) {
						t.Errorf("request %+v was made again as %+v", all[i], all[i+1])
					}
				}
			})
		})
	}
}

// TestDeadline: nobody sleeps where there is no time to ask again.
func TestDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &transport{takes: 9500 * time.Millisecond, answer: always(scripted{status: 503, header: []string{"Retry-After", "2"}})}
		began := time.Now()
		_, err := manager(s, nil).Acquire(t.Context(), of(WorkloadIdentity, "a"))
		// 9.5 s, 2 s, 9.5 s and 2 s: of 30, 7 are left, in which it is cut off.
		if e := failure(t, err); e.Kind != Unavailable || s.count() != 3 || time.Since(began) != 30*time.Second {
			t.Errorf("error %v after %v and %d requests", err, time.Since(began), s.count())
		}
	})
	synctest.Test(t, func(t *testing.T) {
		s := &transport{answer: always(scripted{status: 503})}
		s.takes = 9 * time.Second
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		e := manager(s, nil).newExchange(ctx, keyOf(of(WorkloadIdentity, "a")), podToken("a"))
		_, err := e.federate(ctx, podToken("a"))
		if failure(t, err).Status != 503 || s.count() != 1 {
			t.Errorf("error %v after %d requests", err, s.count())
		}
	})
}

// TestCancelled: who leaves is not waited for, and the login ends.
func TestCancelled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &transport{answer: always(scripted{status: 503, header: []string{"Retry-After", "2"}})}
		ctx, cancel := context.WithCancel(t.Context())
		stop := context.AfterFunc(ctx, func() {})
		defer stop()
		time.AfterFunc(time.Second, cancel)
		began := time.Now()
		_, err := manager(s, nil).Acquire(ctx, of(WorkloadIdentity, "a"))
		if !errors.Is(err, context.Canceled) || time.Since(began) != time.Second {
			t.Errorf("error %v after %v", err, time.Since(began))
		}
		synctest.Wait()
		if s.count() != 1 {
			t.Errorf("%d requests", s.count())
		}
	})
}
