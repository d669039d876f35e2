package credentials

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestAcquireCancelOne: a waiter, even the one who began, leaves alone.
func TestAcquireCancelOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &store{answer: always(answer{takes: time.Second, life: time.Hour})}
		c := cache(s, nil)
		ctx, leave := context.WithCancel(t.Context())
		left := asks(ctx, c, request[string]{identity: "a", token: token("a")})
		synctest.Wait()
		stays := asks(t.Context(), c, request[string]{identity: "a", token: token("b")})
		synctest.Wait()
		start := time.Now()
		leave()
		if got := <-left; !errors.Is(got.err, context.Canceled) || time.Since(start) != 0 {
			t.Errorf("who left: %v, after %s", got.err, time.Since(start))
		}
		if got := <-stays; got.err != nil || got.credential.number != 1 {
			t.Errorf("who stayed: %+v", got)
		}
		if s.count() != 1 || s.cut != 0 {
			t.Errorf("%d logins, %d cut, want 1 and 0", s.count(), s.cut)
		}
	})
}

// TestAcquireCancelLast: nobody waits, so the login ends and leaves nothing.
func TestAcquireCancelLast(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &store{answer: always(answer{takes: time.Second, life: time.Hour})}
		c := cache(s, nil)
		ctx, leave := context.WithCancel(t.Context())
		first := asks(ctx, c, request[string]{identity: "a", token: token("a")})
		second := asks(ctx, c, request[string]{identity: "a", token: token("b")})
		synctest.Wait()
		leave()
		for _, left := range []<-chan outcome[*session]{first, second} {
			if got := <-left; !errors.Is(got.err, context.Canceled) {
				t.Errorf("who left: %+v", got)
			}
		}
		synctest.Wait()
		if s.cut != 1 || len(c.kept) != 0 || len(c.flights) != 0 {
			t.Errorf("%d logins cut, %d credentials and %d flights kept; want 1, 0, 0", s.cut, len(c.kept), len(c.flights))
		}
		wants(t, c, 2, false)
	})
}

// TestNobodyThere: who has left before does not log in.
func TestNobodyThere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := forAnHour()
		c := cache(s, nil)
		ctx, leave := context.WithCancel(t.Context())
		leave()
		if _, _, err := c.Acquire(ctx, "a", token("pod")); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
		synctest.Wait()
		if s.count() != 0 {
			t.Errorf("%d logins", s.count())
		}
	})
}

// TestLateAnswerIsNotKept: the answer to a login that was left does not end the
// login after it.
func TestLateAnswerIsNotKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &store{answer: always(answer{takes: time.Second, life: time.Hour, deaf: true})}
		c := cache(s, nil)
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		if _, _, err := c.Acquire(ctx, "a", token("first")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		second := asks(t.Context(), c, request[string]{identity: "a", token: token("second")})
		pass(700 * time.Millisecond) // the first one's answer has come, the second's has not
		wants(t, c, 2, false)
		if got := <-second; got.cached || got.credential.number != 2 {
			t.Errorf("%+v, want that of the second login", got)
		}
	})
}

func TestAcquireKeepsNoFailure(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &store{answer: always(answer{err: errRefused})}
		c := cache(s, nil)
		for range 2 {
			if _, _, err := c.Acquire(t.Context(), "a", token("pod")); !errors.Is(err, errRefused) {
				t.Errorf("error %v, want the refusal", err)
			}
		}
		if s.count() != 2 || len(c.kept) != 0 || len(c.flights) != 0 {
			t.Errorf("%d logins, %d credentials, %d flights; want one each, and nothing kept", s.count(), len(c.kept), len(c.flights))
		}
		s.become(answer{life: time.Hour})
		wants(t, c, 3, false)
	})
}

// TestOthersRefusal: the pod that began a login may be gone, and its token be
// refused for that. Those who joined try again, and none hears of a refusal that
// is not of its own token.
func TestOthersRefusal(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		leader answer // to the token of the pod that begins
		answer answer // to those of others
		pods   []string
		logins int
	}{
		"of the leader":     {answer{err: errRefused}, answer{life: time.Hour}, []string{"a", "b", "c"}, 2},
		"of all":            {answer{err: errRefused}, answer{err: errRefused}, []string{"a", "b", "c"}, 4},
		"of all, volumes":   {answer{err: errRefused}, answer{err: errRefused}, []string{"a", "b", "b"}, 3},
		"of the same token": {answer{err: errRefused}, answer{life: time.Hour}, []string{"leader", "leader"}, 1},
		"no refusal":        {answer{err: errDown}, answer{life: time.Hour}, []string{"a", "b", "c"}, 1},
		"no failure":        {answer{life: time.Hour}, answer{err: errRefused}, []string{"a", "b", "c"}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &store{answer: func(_ int, one asked) answer {
					a := test.answer
					if one.token == "canary-leader" {
						a = test.leader
					}
					a.takes = time.Second
					return a
				}}
				c := cache(s, nil)
				led := asks(t.Context(), c, request[string]{identity: "a", token: token("leader")})
				synctest.Wait()
				var pods sync.WaitGroup
				for _, pod := range test.pods {
					want := test.answer.err
					if pod == "leader" || !errors.Is(test.leader.err, errRefused) {
						want = test.leader.err
					}
					pods.Go(func() {
						if _, _, err := c.Acquire(t.Context(), "a", token(pod)); !errors.Is(err, want) {
							t.Errorf("pod %s, who joined: %v, want %v", pod, err, want)
						}
					})
				}
				pods.Wait()
				if got := <-led; !errors.Is(got.err, test.leader.err) || got.others {
					t.Errorf("who led: %+v, want %v", got, test.leader.err)
				}
				if s.count() != test.logins {
					t.Errorf("%d logins, want %d", s.count(), test.logins)
				}
			})
		})
	}
}

// TestOthersRefusalAgain: of pods that are gone one may follow the other. After the
// second a pod has a login of its own.
func TestOthersRefusalAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &store{answer: func(_ int, one asked) answer {
			if strings.Contains(one.token, "gone") {
				return answer{takes: time.Second, err: errRefused}
			}
			return answer{takes: time.Second, life: time.Hour}
		}}
		var c *Cache[string, *session]
		gone := 0
		begin := func() {
			gone++
			asks(t.Context(), c, request[string]{identity: "a", token: token(fmt.Sprint("gone", gone)), own: true})
			synctest.Wait()
		}
		c = cache(s, func(cfg *Config[string, *session]) {
			cfg.Refused = func(err error) bool { // as the one who joined is about to try again
				begin()
				return errors.Is(err, errRefused)
			}
		})
		begin()
		wants(t, c, 4, false)
		if want := "[{a canary-gone1} {a canary-gone2} {a canary-gone3} {a canary-pod}]"; fmt.Sprint(s.logins) != want {
			t.Errorf("logins %v, want %s", s.logins, want)
		}
	})
}

// TestOvertaken: a login that has been overtaken by another one of the identity
// serves those who wait for it, and is kept if it lasts longer.
func TestOvertaken(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		first, second answer
		leave, drop   bool
		want          int
	}{
		"second lasts longer":          {answer{takes: 3 * time.Second, life: time.Hour}, answer{takes: time.Second, life: time.Hour + time.Minute}, false, false, 3},
		"first lasts longer":           {answer{takes: 3 * time.Second, life: 2 * time.Hour}, answer{takes: time.Second, life: time.Hour}, false, false, 2},
		"first lasts longer and lands": {answer{takes: 2 * time.Second, life: 2 * time.Hour}, answer{takes: 3 * time.Second, life: time.Hour}, false, false, 3},
		"second is refused":            {answer{takes: 3 * time.Second, life: time.Hour}, answer{takes: time.Second, err: errRefused}, false, false, 2},
		"first is refused":             {answer{takes: 3 * time.Second, err: errRefused}, answer{takes: time.Second, life: time.Hour}, false, false, 3},
		"nobody waits for the first":   {answer{takes: 3 * time.Second, life: 2 * time.Hour, deaf: true}, answer{takes: time.Second, life: time.Hour}, true, false, 3},
		"dropped in the meantime":      {answer{takes: 3 * time.Second, life: 2 * time.Hour}, answer{takes: time.Second, life: time.Hour}, false, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &store{answer: func(number int, _ asked) answer {
					return []answer{{life: time.Hour}, test.first, test.second}[number-1]
				}}
				c := cache(s, nil)
				before, _ := get(t, c, "a", "pod")
				c.Drop("a", before)
				ctx, leave := context.WithCancel(t.Context())
				defer leave()
				first := asks(ctx, c, request[string]{identity: "a", token: token("a")})
				synctest.Wait()
				second := asks(t.Context(), c, request[string]{identity: "a", token: token("b"), own: true})
				synctest.Wait()
				if test.leave {
					leave()
				}
				pass(2500 * time.Millisecond)
				if test.drop {
					c.Drop("a", (<-second).credential)
				}
				pass(time.Second)
				synctest.Wait()
				if got := <-first; !test.leave && (!errors.Is(got.err, test.first.err) || got.err == nil && got.credential.number != 2) {
					t.Errorf("who waited for the first login: %+v", got)
				}
				if kept := c.kept["a"]; (kept == nil) != (test.want == 0) || kept != nil && kept.credential.number != test.want {
					t.Errorf("%+v is kept, want that of login %d", kept, test.want)
				}
				if len(c.flights) != 0 {
					t.Errorf("%d flights are left", len(c.flights))
				}
			})
		})
	}
}

// TestOwnIsShared: two volumes of one pod have one token, which is not tried twice
// at once.
func TestOwnIsShared(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &store{answer: always(answer{takes: time.Second, life: time.Hour})}
		c := cache(s, nil)
		var all []<-chan outcome[*session]
		for _, pod := range []string{"a", "b", "b"} {
			all = append(all, asks(t.Context(), c, request[string]{identity: "a", token: token(pod), own: true}))
			synctest.Wait()
		}
		for i, want := range []int{1, 2, 2} {
			if got := <-all[i]; got.err != nil || got.credential.number != want {
				t.Errorf("%+v, want the credential of login %d", got, want)
			}
		}
	})
}

// TestDropOvertakes: a login that began before a Drop may be older than what has
// ended the credential. Who comes after has a new one.
func TestDropOvertakes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := forAnHour()
		c := cache(s, nil)
		first, _ := get(t, c, "a", "pod")
		pass(56 * time.Minute)
		s.become(answer{takes: 4 * time.Second, life: 2 * time.Hour})
		renewal := asks(t.Context(), c, request[string]{identity: "a", token: token("a")})
		pass(time.Second)
		c.Drop("a", first)
		s.become(answer{takes: time.Second, life: time.Hour})
		wants(t, c, 3, false)
		if got := <-renewal; got.err != nil || got.credential.number != 2 {
			t.Errorf("who waited: %+v", got)
		}
		wants(t, c, 3, true)
	})
}
