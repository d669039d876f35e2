package sdk_test

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-dev/postern/providers/sdk"
)

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for value, want := range map[string]time.Duration{
			"": 0, "7": 7 * time.Second, "-7": 0, "soon": 0, "0": 0,
			time.Now().Add(time.Minute).UTC().Format(http.TimeFormat):  time.Minute,
			time.Now().Add(-time.Minute).UTC().Format(http.TimeFormat): 0,
		} {
			if got := sdk.RetryAfter(http.Header{"Retry-After": {value}}); got != want {
				t.Errorf("%q: %s, want %s", value, got, want)
			}
		}
	})
}
