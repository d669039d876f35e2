// Package retryafter reads when to try again from an HTTP answer of Azure's.
package retryafter

import (
	"net/http"
	"strconv"
	"time"

	"github.com/postern-dev/postern/providers/sdk"
)

// Of returns what an answer's headers say: one of Azure's own, which are in
// milliseconds, or else Retry-After. The SDK reads them in the same order. Zero:
// nothing, or nothing that is still to come.
func Of(header http.Header) time.Duration {
	for _, name := range []string{"Retry-After-Ms", "X-Ms-Retry-After-Ms"} {
		if ms, err := strconv.Atoi(header.Get(name)); err == nil && ms > 0 {
			return time.Duration(ms) * time.Millisecond
		}
	}
	return sdk.RetryAfter(header)
}
