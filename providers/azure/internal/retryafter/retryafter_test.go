package retryafter

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

func TestOf(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		at := func(d time.Duration) string { return time.Now().Add(d).UTC().Format(http.TimeFormat) }
		for _, tt := range []struct {
			header http.Header
			want   time.Duration
		}{
			{nil, 0},
			{http.Header{"Retry-After": {"7"}}, 7 * time.Second},
			{http.Header{"Retry-After": {"-7"}}, 0},
			{http.Header{"Retry-After": {"0"}}, 0},
			{http.Header{"Retry-After": {"soon"}}, 0},
			{http.Header{"Retry-After": {at(time.Minute)}}, time.Minute},
			{http.Header{"Retry-After": {at(-time.Minute)}}, 0},
			{http.Header{"Retry-After-Ms": {"1500"}}, 1500 * time.Millisecond},
			{http.Header{"Retry-After-Ms": {"soon"}, "Retry-After": {"7"}}, 7 * time.Second},
			{http.Header{"Retry-After-Ms": {"1500"}, "X-Ms-Retry-After-Ms": {"9"}, "Retry-After": {"7"}}, 1500 * time.Millisecond},
			{http.Header{"X-Ms-Retry-After-Ms": {"9"}, "Retry-After": {"7"}}, 9 * time.Millisecond},
		} {
			if got := Of(tt.header); got != tt.want {
				t.Errorf("%v: %s, want %s", tt.header, got, tt.want)
			}
		}
	})
}
