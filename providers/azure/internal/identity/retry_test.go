package identity

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestHang: a login ends, and so does the wait for it; what has had its time is not
// asked again.
func TestHang(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := entra()
		s.takes = time.Hour
		began := time.Now()
		_, err := manager(s, nil).Acquire(t.Context(), of(WorkloadIdentity, "a"))
		e := failure(t, err)
		if e.Kind != Unavailable || e.Message != "login.microsoftonline.com: no answer in time" || time.Since(began) != tryTimeout || len(s.all()) != 1 {
			t.Errorf("error %v after %v and %d requests", err, time.Since(began), len(s.all()))
		}
	})
}

// TestRetryHelps: one that passes is not seen.
func TestRetryHelps(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &transport{answer: func(number int, _ asked) scripted {
			if number == 1 {
				return scripted{status: 503, header: []string{"Retry-After", "1"}}
			}
			return scripted{status: 200, body: issued(number, time.Hour)}
		}}
		began := time.Now()
		acquire(t, manager(s, nil), of(WorkloadIdentity, "a"))
		if s.logins() != 2 || time.Since(began) != time.Second {
			t.Errorf("%d requests in %v", s.logins(), time.Since(began))
		}
	})
}

// TestDeadline: nobody sleeps where there is no time to ask again.
func TestDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &transport{answer: always(503, "", "Retry-After", "2")}
		s.takes = 9 * time.Second
		began := time.Now()
		_, err := manager(s, nil).Acquire(t.Context(), of(WorkloadIdentity, "a"))
		// The metadata for 9 s, the token for 9 s, 2 s and 9 s: 1 s of 30 is left.
		if e := failure(t, err); e.Kind != Unavailable || e.Status != 503 || time.Since(began) != 29*time.Second {
			t.Errorf("error %v after %v", err, time.Since(began))
		}
	})
}
