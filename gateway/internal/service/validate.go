package service

import (
	"fmt"
	"strings"

	"github.com/postern-dev/postern/gateway/internal/provider"
	"github.com/postern-dev/postern/internal/rpc"
	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
)

// maxMode is the highest file mode: permission bits, no others.
const maxMode = 0o777

func validateFetch(req *gatewayv1.FetchRequest) error {
	pod := req.GetPod()
	switch {
	case req.GetVolumeId() == "":
		return missing("volume_id")
	case req.GetProvider() == "":
		return missing("provider")
	case !provider.ValidName(req.GetProvider()):
		return badName(req.GetProvider())
	case pod.GetNamespace() == "":
		return missing("pod.namespace")
	case pod.GetName() == "":
		return missing("pod.name")
	case pod.GetUid() == "":
		return missing("pod.uid")
	case pod.GetServiceAccount().GetName() == "":
		return missing("pod.service_account.name")
	case req.GetSecretProviderClass() == "":
		return missing("secret_provider_class")
	case req.GetDefaultFileMode() > maxMode:
		return violation("default_file_mode", fmt.Sprintf("%#o is more than 0777", req.GetDefaultFileMode()))
	case req.GetFetchedAfter() != nil && !req.GetFetchedAfter().IsValid():
		return violation("fetched_after", "is no time")
	case req.GetRefreshInterval() != nil && (!req.GetRefreshInterval().IsValid() || req.GetRefreshInterval().AsDuration() < 0):
		return violation("refresh_interval", "is not a duration of zero or more")
	default:
		return nil
	}
}

func validateRelease(req *gatewayv1.ReleaseRequest) error {
	if req.GetVolumeId() == "" {
		return missing("volume_id")
	}
	return nil
}

func validateDescribe(req *gatewayv1.DescribeRequest) error {
	switch {
	case req.GetProvider() == "":
		return missing("provider")
	case !provider.ValidName(req.GetProvider()):
		return badName(req.GetProvider())
	default:
		return nil
	}
}

func badName(name string) error {
	const longest = 60
	if len(name) > longest {
		name = strings.ToValidUTF8(name[:longest], "") + "…"
	}
	return violation("provider", fmt.Sprintf("%q is not a provider's name: use 1 to 30 letters, digits, '_' and '-' in spec.provider", name))
}

func missing(field string) error { return violation(field, "is required") }

func violation(field, description string) error {
	return &rpc.Error{
		Reason:          rpc.ReasonInvalidParameters,
		Message:         field + ": " + description,
		FieldViolations: []rpc.FieldViolation{{Field: field, Description: description}},
	}
}
