package status

import (
	"io"
	"time"

	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
)

// Table prints a report as it is for people who read it at a given time.
func Table(w io.Writer, report *gatewayv1.StatusResponse, now time.Time) error {
	return table(w, report, now)
}
