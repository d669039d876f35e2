package credentials

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/postern-dev/postern/providers/sdk"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	errRefused = errors.New("the token is refused")
	errDown    = errors.New("the store is down")
)

// session is a credential of the tests' store.
type session struct {
	identity string
	number   int
	secret   sdk.SecretString
	expires  time.Time
}

func (s *session) Expires() time.Time { return s.expires }

// asked is one login.
type asked struct{ identity, token string }

// answer is what a store says to it, and when.
type answer struct {
	takes, life time.Duration
	err         error
	// deaf answers although nobody waits any more.
	deaf bool
}

// store is where identities log in.
type store struct {
	mu     sync.Mutex
	answer func(number int, one asked) answer
	logins []asked
	cut    int // those whose context ended
}

// always gives one answer to every login.
func always(a answer) func(int, asked) answer { return func(int, asked) answer { return a } }

// forAnHour is the usual answer.
func forAnHour() *store { return &store{answer: always(answer{life: time.Hour})} }

func (s *store) login(ctx context.Context, identity string, token sdk.SecretString) (*session, error) {
	one := asked{identity, token.Reveal()}
	s.mu.Lock()
	s.logins = append(s.logins, one)
	number := len(s.logins)
	a := s.answer(number, one)
	s.mu.Unlock()
	done := ctx.Done()
	if a.deaf {
		done = nil
	}
	if a.takes > 0 {
		select {
		case <-time.After(a.takes):
		case <-done:
			s.mu.Lock()
			s.cut++
			s.mu.Unlock()
			return nil, ctx.Err()
		}
	}
	if a.err != nil {
		return nil, a.err
	}
	return &session{identity: identity, number: number, secret: sdk.NewSecretString("canary-session"), expires: time.Now().Add(a.life)}, nil
}

// become changes what the store answers from now on.
func (s *store) become(a answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = always(a)
}

func (s *store) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.logins)
}

// cache returns a Cache of a store's sessions.
func cache(s *store, change func(*Config[string, *session])) *Cache[string, *session] {
	cfg := Config[string, *session]{
		Login:   s.login,
		Refused: func(err error) bool { return errors.Is(err, errRefused) },
		Passing: func(err error) bool { return errors.Is(err, errDown) },
	}
	if change != nil {
		change(&cfg)
	}
	return New(cfg)
}

// token is the one of a pod.
func token(pod string) sdk.SecretString { return sdk.NewSecretString("canary-" + pod) }

// pass lets time pass.
func pass(d time.Duration) { <-time.After(d) }

// get acquires, and fails the test if it cannot.
func get(t *testing.T, c *Cache[string, *session], identity, pod string) (got *session, cached bool) {
	t.Helper()
	got, cached, err := c.Acquire(t.Context(), identity, token(pod))
	if err != nil {
		t.Fatal(err)
	}
	if got.identity != identity {
		t.Fatalf("%s got a credential of %s", identity, got.identity)
	}
	return got, cached
}

// wants acquires, and checks of which login the credential is.
func wants(t *testing.T, c *Cache[string, *session], number int, cached bool) {
	t.Helper()
	if got, kept := get(t, c, "a", "pod"); got.number != number || kept != cached {
		t.Errorf("a credential of login %d, cached %v; want %d, %v", got.number, kept, number, cached)
	}
}

// asks acquires in the background.
func asks(ctx context.Context, c *Cache[string, *session], req request[string]) <-chan outcome[*session] {
	got := make(chan outcome[*session], 1)
	go func() { got <- c.acquire(ctx, req) }()
	return got
}
