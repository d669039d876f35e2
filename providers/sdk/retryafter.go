package sdk

import (
	"net/http"
	"strconv"
	"time"
)

// RetryAfter returns what the header Retry-After of a store's answer says, which is
// a number of seconds or a time (RFC 9110, section 10.2.3). Zero: nothing, or
// nothing that is still to come.
func RetryAfter(header http.Header) time.Duration {
	value := header.Get("Retry-After")
	if seconds, err := strconv.Atoi(value); err == nil && seconds > 0 {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(time.Until(at), 0)
	}
	return 0
}
