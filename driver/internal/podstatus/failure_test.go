package podstatus

import (
	"errors"
	"fmt"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestClassify(t *testing.T) {
	t.Parallel()
	answer := func(code int32) error {
		return fmt.Errorf("patch it: %w", &apierrors.StatusError{ErrStatus: metav1.Status{Code: code}})
	}
	tests := []struct {
		name string
		err  error
		want error // nil: it passes by itself
	}{
		{name: "no answer", err: errors.New("dial tcp: connection refused")},
		{name: "timeout", err: answer(408)},
		{name: "conflict", err: answer(409)},
		{name: "slow down", err: answer(429)},
		{name: "server error", err: answer(500)},
		{name: "unavailable", err: answer(503)},
		{name: "unauthorized", err: answer(401)},
		{name: "forbidden", err: answer(403), want: errRefused},
		{name: "not found", err: answer(404), want: errRefused},
		{name: "bad request", err: answer(400), want: errDrop},
		{name: "too large", err: answer(413), want: errDrop},
		{name: "invalid", err: answer(422), want: errDrop},
		{name: "dropped before", err: fmt.Errorf("%w: %w", errDrop, answer(404)), want: errDrop},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got := classify(test.err)
			if errors.Is(got, errDrop) != (test.want == errDrop) || errors.Is(got, errRefused) != (test.want == errRefused) || !errors.Is(got, test.err) { //nolint:errorlint // a want, not an error
				t.Errorf("got %v, want it as %v", got, test.want)
			}
		})
	}
	if err := classify(nil); err != nil {
		t.Errorf("got %v for nil", err)
	}
}
