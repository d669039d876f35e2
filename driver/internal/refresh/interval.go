package refresh

import (
	"fmt"
	"maps"
	"time"

	"github.com/postern-dev/postern/internal/rpc"
)

// ParameterInterval is the SPC parameter that says how often the class's
// volumes are refreshed: a duration, or "0" or "off" for never. It is the
// driver's own: providers do not see it.
const ParameterInterval = "rotationPollInterval"

// Bounds of an interval.
const (
	MinInterval = time.Second
	maxInterval = 365 * 24 * time.Hour
)

const intervalOff = "off"

// Interval is how often the volumes of a class with these parameters are
// refreshed, fallback where they do not say; 0 is never. Its error is an
// [*rpc.Error] with INVALID_PARAMETERS.
func Interval(parameters map[string]string, fallback time.Duration) (time.Duration, error) {
	text := parameters[ParameterInterval]
	switch text {
	case "":
		return fallback, nil
	case intervalOff:
		return 0, nil
	}
	interval, err := time.ParseDuration(text)
	if err == nil {
		err = CheckInterval(interval)
	}
	if err == nil {
		return interval, nil
	}
	description := fmt.Sprintf("%.40q is not a duration from %s to %s, such as 5m, nor 0 or %s", text, MinInterval, maxInterval, intervalOff)
	return 0, &rpc.Error{
		Reason:          rpc.ReasonInvalidParameters,
		Message:         fmt.Sprintf("parameter %q: %s", ParameterInterval, description),
		FieldViolations: []rpc.FieldViolation{{Field: "parameters." + ParameterInterval, Description: description}},
	}
}

// CheckInterval tells what is wrong with an interval. 0 is none.
func CheckInterval(interval time.Duration) error {
	if interval != 0 && (interval < MinInterval || interval > maxInterval) {
		return fmt.Errorf("interval %v is not from %s to %s", interval, MinInterval, maxInterval)
	}
	return nil
}

// WithoutInterval are the parameters that are for the provider.
func WithoutInterval(parameters map[string]string) map[string]string {
	parameters = maps.Clone(parameters)
	delete(parameters, ParameterInterval)
	return parameters
}
