package fetch

import (
	"fmt"
	"maps"
	"time"

	"github.com/postern-dev/postern/internal/rpc"
	providerv1 "github.com/postern-dev/postern/proto/gen/go/postern/provider/v1"
	secretv1 "github.com/postern-dev/postern/proto/gen/go/postern/secret/v1"
)

// The SPC parameters that are the gateway's own. Providers do not see them.
const (
	parameterMaxAge   = "maxAge"
	parameterMaxStale = "maxStale"
)

// longestReuse bounds what an SPC may ask for.
const longestReuse = 24 * time.Hour

// Reuse says how old a kept answer may be. Zero means that none is served.
type Reuse struct {
	// MaxAge is for an answer that is as good as new.
	MaxAge time.Duration
	// MaxStale is for the last one that there is, while the store is
	// unreachable.
	MaxStale time.Duration
}

// of is what holds for an SPC with these parameters. One that turns reuse off
// turns off stale answers too, unless it says otherwise.
func (r Reuse) of(parameters map[string]string) (Reuse, error) {
	maxAge, set, err := reuseParameter(parameters, parameterMaxAge)
	if err != nil {
		return Reuse{}, err
	}
	if set {
		r.MaxAge = maxAge
		if maxAge == 0 {
			r.MaxStale = 0
		}
	}
	maxStale, set, err := reuseParameter(parameters, parameterMaxStale)
	if err != nil {
		return Reuse{}, err
	}
	if set {
		r.MaxStale = maxStale
	}
	return r, nil
}

func reuseParameter(parameters map[string]string, name string) (d time.Duration, set bool, err error) {
	text := parameters[name]
	if text == "" {
		return 0, false, nil
	}
	d, err = time.ParseDuration(text)
	if err != nil || d < 0 || d > longestReuse {
		description := fmt.Sprintf("%.40q is not a duration from 0 to %s, such as 30s", text, longestReuse)
		return 0, false, &rpc.Error{
			Reason:          rpc.ReasonInvalidParameters,
			Message:         fmt.Sprintf("parameter %q: %s", name, description),
			FieldViolations: []rpc.FieldViolation{{Field: "parameters." + name, Description: description}},
		}
	}
	return d, true, nil
}

// withoutReuse are the parameters that are for the provider.
func withoutReuse(parameters map[string]string) map[string]string {
	_, maxAge := parameters[parameterMaxAge]
	_, maxStale := parameters[parameterMaxStale]
	if !maxAge && !maxStale {
		return parameters
	}
	parameters = maps.Clone(parameters)
	delete(parameters, parameterMaxAge)
	delete(parameters, parameterMaxStale)
	return parameters
}

// fresh is how old an answer may be to be served as if it were new.
func (r Reuse) fresh(response *providerv1.FetchResponse) time.Duration {
	return min(r.MaxAge, response.GetFreshFor().AsDuration())
}

// keep is how long an answer is of use to new mounts.
func (r Reuse) keep(response *providerv1.FetchResponse) time.Duration {
	return max(r.fresh(response), r.MaxStale)
}

// keepMounted is how long an answer is of any use while there are volumes that
// are refreshed at an interval, or sooner if their provider wants: the others
// take what the refresh of one brought.
func (r Reuse) keepMounted(response *providerv1.FetchResponse, interval time.Duration) time.Duration {
	if r.MaxAge == 0 {
		return r.keep(response)
	}
	if sooner := response.GetRefreshAfter().AsDuration(); sooner > 0 && (interval == 0 || sooner < interval) {
		interval = sooner
	}
	return max(r.keep(response), min(interval, longestReuse, response.GetFreshFor().AsDuration()))
}

// shareable reports whether an answer may be served to other pods of the
// service account. One with a lease or state never is, whatever its provider
// says: these are one volume's.
func shareable(response *providerv1.FetchResponse) bool {
	switch response.GetSharing() {
	case secretv1.Sharing_SHARING_SERVICE_ACCOUNT, secretv1.Sharing_SHARING_NAMESPACE:
		return len(response.GetLeases()) == 0 && len(response.GetState()) == 0
	default:
		return false
	}
}

// reusable reports whether an answer may be served again.
func reusable(response *providerv1.FetchResponse) bool {
	return shareable(response) && response.GetFreshFor().AsDuration() > 0
}
