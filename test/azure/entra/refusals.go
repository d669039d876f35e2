package entra

import (
	"fmt"
	"net/http"
	"time"

	"github.com/postern-dev/postern/test/azure/api"
	"github.com/postern-dev/postern/test/azure/control"
)

// refusal is an error in Entra's numbering.
type refusal struct {
	number int
	oauth  string
	status int
	text   string
}

func (r *refusal) Error() string { return fmt.Sprintf("AADSTS%d: %s", r.number, r.text) }

func refuse(number int, oauth string, status int, format string, args ...any) error {
	return &refusal{number: number, oauth: oauth, status: status, text: fmt.Sprintf(format, args...)}
}

// badRequest is an error of the request's form.
func badRequest(number int, oauth, format string, args ...any) error {
	return refuse(number, oauth, http.StatusBadRequest, format, args...)
}

// badClient is an error of the client's credentials.
func badClient(number int, format string, args ...any) error {
	return refuse(number, "invalid_client", http.StatusUnauthorized, format, args...)
}

// missing is the error of a form without a member.
func missing(name string) error {
	return badRequest(900144, "invalid_request", "The request body must contain the following parameter: '%s'.", name)
}

// answer is how Entra tells an error.
func (r *refusal) answer(host string, now time.Time) api.Answer {
	if r.number == 0 { // not Entra's own
		a := api.JSON(r.status, map[string]any{"error": r.oauth, "error_description": r.text})
		a.Code = r.oauth
		return a
	}
	code := fmt.Sprintf("AADSTS%d", r.number)
	trace, correlation, stamp := newID(), newID(), now.UTC().Format("2006-01-02 15:04:05Z")
	a := api.JSON(r.status, map[string]any{
		"error": r.oauth,
		"error_description": fmt.Sprintf("%s: %s Trace ID: %s Correlation ID: %s Timestamp: %s",
			code, r.text, trace, correlation, stamp),
		"error_codes": []int{r.number}, "timestamp": stamp, "trace_id": trace, "correlation_id": correlation,
		"error_uri": fmt.Sprintf("https://%s/error?code=%d", host, r.number),
	})
	a.Code = code
	return a
}

// Injected is how Entra tells an error that a fault brings about.
func (d *Directory) Injected(host string, f api.Refusal) api.Answer {
	r := &refusal{oauth: "temporarily_unavailable", status: f.Status, text: f.Message}
	if r.status < http.StatusInternalServerError && r.status != http.StatusTooManyRequests {
		r.oauth = "invalid_request"
	}
	if _, err := fmt.Sscanf(f.Code, "AADSTS%d", &r.number); err != nil {
		r.oauth, r.number = f.Code, 0
	}
	a := r.answer(host, d.cfg.Now())
	a.Code = f.Code
	return a
}

// Defaults completes a fault with what Entra would say.
func Defaults(f control.Fault) control.Fault {
	switch f.Kind {
	case control.Throttle:
		return api.Complete(f, http.StatusTooManyRequests, "AADSTS90055", "There are too many incoming requests. Please try again later.")
	case control.Unavailable:
		return api.Complete(f, http.StatusServiceUnavailable, "AADSTS90033", "A transient error has occurred. Please try again.")
	default:
		return api.Complete(f, http.StatusBadRequest, "AADSTS50000", "There was an error issuing a token.")
	}
}
