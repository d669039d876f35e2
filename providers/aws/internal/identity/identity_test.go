package identity

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-dev/postern/providers/sdk"
)

// TestUseIsIncomplete: without a token or a role nobody is asked for credentials.
func TestUseIsIncomplete(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		use    Use
		change func(*Use)
		want   string
	}{
		"role":                     {irsa("a"), func(u *Use) { u.RoleARN = "" }, "no role"},
		"region":                   {irsa("a"), func(u *Use) { u.Region = "" }, "no region"},
		"token":                    {irsa("a"), func(u *Use) { u.Token = sdk.SecretString{} }, "no token"},
		"namespace":                {irsa("a"), func(u *Use) { u.Subject.Namespace = "" }, "no service account"},
		"service account":          {irsa("a"), func(u *Use) { u.Subject.ServiceAccount = "" }, "no service account"},
		"token of Pod Identity":    {podIdentity("a"), func(u *Use) { u.Token = sdk.SecretString{} }, "no token"},
		"region that is no region": {irsa("a"), func(u *Use) { u.Region = "x.example.com/" }, "region"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := service()
			test.change(&test.use)
			_, err := manager(s, nil).Acquire(t.Context(), test.use)
			e, ok := errors.AsType[*Error](err)
			if !ok || e.Kind != Invalid || e.AllowsFailover() || !strings.Contains(e.Error(), test.want) {
				t.Errorf("error %v, want Invalid with %q", err, test.want)
			}
			if s.count() != 0 {
				t.Errorf("%v was asked", s.all())
			}
		})
	}
}

// TestTokenHasExpired: it gets nothing, not even what others have logged in for.
func TestTokenHasExpired(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := service()
		m := manager(s, nil)
		session(t, m, irsa("other"))
		use := irsa("a")
		use.Expiry = time.Now().Add(time.Minute)
		session(t, m, use)
		pass(time.Minute)
		_, err := m.Acquire(t.Context(), use)
		if e := failure(t, err); e.Kind != TokenExpired || e.AllowsFailover() || !strings.Contains(e.Message, "2000-01-01T00:01:00Z") {
			t.Errorf("error %v, want TokenExpired", err)
		}
		if s.count() != 1 {
			t.Errorf("%d logins, want 1", s.count())
		}
	})
}

func TestIdentity(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &transport{answer: always(http.StatusOK, associated(time.Hour))}
		if got := session(t, manager(s, nil), podIdentity("a")).Identity(); got != "service account shop/cart by EKS Pod Identity" {
			t.Errorf("identity %q", got)
		}
	})
}
