package credentials

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-dev/postern/providers/sdk"
)

// TestLoginTimeout: a login has its time, whoever waits. One that does not end even
// then holds up nobody who comes after.
func TestLoginTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &store{answer: always(answer{takes: time.Hour, life: time.Hour})}
		c := cache(s, func(cfg *Config[string, *session]) { cfg.LoginTimeout = time.Minute })
		start := time.Now()
		if _, _, err := c.Acquire(t.Context(), "a", token("pod")); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Minute {
			t.Errorf("error %v after %s", err, time.Since(start))
		}
		s.become(answer{takes: 2 * time.Minute, life: time.Hour, deaf: true})
		deaf := asks(t.Context(), c, request[string]{identity: "a", token: token("a")})
		pass(59 * time.Second)
		s.become(answer{takes: 10 * time.Second, life: time.Hour})
		joined := asks(t.Context(), c, request[string]{identity: "a", token: token("b")})
		pass(time.Second)
		synctest.Wait()
		wants(t, c, 3, false)
		for _, waits := range []<-chan outcome[*session]{deaf, joined} {
			if got := <-waits; got.err != nil || got.credential.number != 2 {
				t.Errorf("who waited: %+v", got)
			}
		}
	})
}

// faulty is a credential that cannot even say when it ends.
type faulty struct{ *time.Time }

func (f faulty) Expires() time.Time { return *f.Time }

// TestDefectiveLogin: however a login ends, those who wait hear of it, and others
// log in as ever.
func TestDefectiveLogin(t *testing.T) {
	t.Parallel()
	for name, defect := range map[string]func() (faulty, error){
		"panics":             func() (faulty, error) { panic("canary-thrown") },
		"panics with nil":    func() (faulty, error) { panic(nil) },
		"ends its goroutine": func() (faulty, error) { runtime.Goexit(); return faulty{}, nil },
		"gives nothing":      func() (faulty, error) { return faulty{}, nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				broken := true
				c := New(Config[string, faulty]{
					Login: func(context.Context, string, sdk.SecretString) (faulty, error) {
						pass(time.Second)
						if broken {
							return defect()
						}
						end := time.Now().Add(time.Hour)
						return faulty{&end}, nil
					},
					Logger: slog.New(slog.NewTextHandler(&log, nil)),
				})
				var pods sync.WaitGroup
				for i := range 5 {
					pods.Go(func() {
						_, _, err := c.Acquire(t.Context(), "a", token(fmt.Sprint(i)))
						if e, ok := errors.AsType[*sdk.Error](err); !ok || e.Reason != sdk.ReasonInternal {
							t.Errorf("error %v, want INTERNAL", err)
						}
					})
				}
				pods.Wait()
				stack := strings.Contains(log.String(), "login panicked") && strings.Contains(log.String(), "TestDefectiveLogin")
				if strings.Contains(log.String(), "canary") || stack != (name != "ends its goroutine") && name != "gives nothing" {
					t.Errorf("log:\n%s", log.String())
				}
				broken = false
				if _, cached, err := c.Acquire(t.Context(), "a", token("a")); cached || err != nil {
					t.Errorf("afterwards: cached %v, error %v", cached, err)
				}
			})
		})
	}
}

// TestValues: a login has the values of who began it, for the trace.
func TestValues(t *testing.T) {
	t.Parallel()
	type name struct{}
	c := New(Config[string, *session]{Login: func(ctx context.Context, identity string, _ sdk.SecretString) (*session, error) {
		who, _ := ctx.Value(name{}).(string)
		return &session{identity: identity + who}, nil
	}})
	got, _, err := c.Acquire(context.WithValue(t.Context(), name{}, "-value"), "a", token("pod"))
	if err != nil || got.identity != "a-value" {
		t.Errorf("%+v, error %v", got, err)
	}
}
