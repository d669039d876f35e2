package credentials_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/postern-dev/postern/providers/sdk"
	"github.com/postern-dev/postern/providers/sdk/credentials"
)

// identity is all that decides on what a session may do.
type identity struct {
	role, namespace, serviceAccount string
}

// session is what the store gives for a pod's token.
type session struct {
	key     sdk.SecretString
	expires time.Time
}

func (s *session) Expires() time.Time { return s.expires }

var (
	errDenied      = errors.New("denied")
	errUnavailable = errors.New("unavailable")
)

// Two pods have the same role and service account: the store sees one login, and
// another once it does not accept the session any more.
func Example() {
	logins := 0
	cache := credentials.New(credentials.Config[identity, *session]{
		Login: func(_ context.Context, _ identity, _ sdk.SecretString) (*session, error) {
			logins++ // a provider asks its store here
			return &session{key: sdk.NewSecretString(fmt.Sprint("key-", logins)), expires: time.Now().Add(time.Hour)}, nil
		},
		Refused: func(err error) bool { return errors.Is(err, errDenied) },
		Passing: func(err error) bool { return errors.Is(err, errUnavailable) },
	})

	// fetch is what a provider does for a pod.
	fetch := func(pod, token string, accepts func(key string) bool) {
		who := identity{role: "reader", namespace: "shop", serviceAccount: "cart"}
		for {
			s, cached, err := cache.Acquire(context.Background(), who, sdk.NewSecretString(token))
			if err != nil {
				fmt.Println(pod, err)
				return
			}
			if accepts(s.key.Reveal()) {
				fmt.Println(pod, "reads with", s.key.Reveal())
				return
			}
			cache.Drop(who, s)
			if !cached {
				fmt.Println(pod, "is not accepted")
				return
			}
		}
	}
	fetch("cart-1", "token-1", func(string) bool { return true })
	fetch("cart-2", "token-2", func(string) bool { return true })
	fetch("cart-1", "token-1", func(key string) bool { return key != "key-1" })
	// Output:
	// cart-1 reads with key-1
	// cart-2 reads with key-1
	// cart-1 reads with key-2
}
