// Package params decodes what a SecretProviderClass asks for.
//
// Names, rules and the first words of each problem are those of AWS' own provider
// (ASCP), so that its classes work unchanged and its users find the texts that they
// know. What can never be mounted is refused here, before anything is read: ASCP
// lets two objects write one file, of which one is lost.
package params

import (
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws/arn"

	"github.com/postern-dev/postern/providers/sdk"
)

// Names of parameters.
const (
	Objects              = "objects"
	Region               = "region"
	FailoverRegion       = "failoverRegion"
	RoleARN              = "roleArn"
	PathTranslation      = "pathTranslation"
	UsePodIdentity       = "usePodIdentity"
	PreferredAddressType = "preferredAddressType"
)

// Parameters are those of a class that the provider knows.
func Parameters() []sdk.Parameter {
	return []sdk.Parameter{
		{Name: Objects, Description: "YAML list of what to read.", Required: true},
		{Name: Region, Description: "Region to read in; default the provider's, or the node's.", LocatesStore: true},
		{Name: FailoverRegion, Description: "Region to read in while the first one fails.", LocatesStore: true},
		{Name: RoleARN, Description: "Role to have by IRSA, instead of the one that the service account is annotated with."},
		{Name: PathTranslation, Description: `Character that replaces "/" in the names of files, or False to keep it; default _.`},
		{Name: UsePodIdentity, Description: "Credentials of EKS Pod Identity instead of IRSA; default false."},
		{Name: PreferredAddressType, Description: "Address of the Pod Identity agent: ipv4, ipv6 or auto; default auto."},
	}
}

// AddressType says at which of its addresses the Pod Identity agent is asked.
type AddressType string

// The address types.
const (
	Auto AddressType = "auto" // IPv4, then IPv6
	IPv4 AddressType = "ipv4"
	IPv6 AddressType = "ipv6"
)

// Defaults is what a class need not say.
type Defaults struct {
	// Region is "" if none is known.
	Region string
}

// Spec is a class, decoded.
type Spec struct {
	// Regions are the primary one and, if there is one, the failover region.
	Regions []string
	// RoleARN is a role to have instead of the annotation's; usually "".
	RoleARN     string
	PodIdentity bool
	AddressType AddressType
	// Translation is the character that replaces "/", or "" to keep it.
	Translation string
	// Objects are in the class's order; there is at least one.
	Objects []Object
}

// Parse decodes parameters. The error is an [*sdk.Error] with all violations, those
// of one object in the order in which ASCP finds them.
func Parse(p sdk.Parameters, defaults Defaults) (*Spec, error) {
	d := sdk.NewDecoder(p)
	spec := &Spec{
		Regions:     regions(d, defaults),
		PodIdentity: podIdentity(d),
		AddressType: addressType(d),
		Translation: translation(d),
	}
	spec.RoleARN = roleARN(d, spec.PodIdentity)
	spec.Objects = decodeObjects(d, spec)
	if err := d.Err(); err != nil {
		return nil, err
	}
	return spec, nil
}

// regionName is what can be a label of a host's name. A region becomes one, and the
// pod's token is sent there.
var regionName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// regions returns the primary and the failover region. One that is wrong is "", so
// that no ARN is compared with it.
func regions(d *sdk.Decoder, defaults Defaults) []string {
	primary := d.String(Region, defaults.Region)
	if primary == "" {
		d.Violate(Region, "failed to retrieve region from node: set the parameter region, the Helm value "+
			"provider-aws.aws.region, or the node's label topology.kubernetes.io/region")
	}
	failover := d.String(FailoverRegion, "")
	if failover == "" {
		return []string{checkRegion(d, Region, primary)}
	}
	if failover == primary {
		d.Violate(FailoverRegion, "failover region cannot be the same as the primary region: %s", primary)
	}
	return []string{checkRegion(d, Region, primary), checkRegion(d, FailoverRegion, failover)}
}

func checkRegion(d *sdk.Decoder, parameter, region string) string {
	if region != "" && !regionName.MatchString(region) {
		d.Violate(parameter, "%q is not the name of a region, such as eu-central-1", region)
		return ""
	}
	return region
}

func podIdentity(d *sdk.Decoder) bool {
	text := d.String(UsePodIdentity, "false")
	use, err := strconv.ParseBool(text)
	if err != nil {
		d.Violate(UsePodIdentity, "failed to parse usePodIdentity value: must be true or false, not %q", text)
	}
	return use
}

// addressType takes what it does not know for auto, as ASCP does.
func addressType(d *sdk.Decoder) AddressType {
	switch t := AddressType(strings.ToLower(d.String(PreferredAddressType, ""))); t {
	case IPv4, IPv6:
		return t
	default:
		return Auto
	}
}

func translation(d *sdk.Decoder) string {
	text := d.String(PathTranslation, "_")
	switch {
	case strings.EqualFold(text, "false"):
		return ""
	case utf8.RuneCountInString(text) != 1:
		d.Violate(PathTranslation, "pathTranslation must be either 'False' or a single character string, not %q", text)
		return "_"
	}
	return text
}

var accountID = regexp.MustCompile(`^[0-9]{12}$`)

func roleARN(d *sdk.Decoder, podIdentity bool) string {
	text := d.String(RoleARN, "")
	if text == "" {
		return ""
	}
	if podIdentity {
		d.Violate(RoleARN, "has no effect with usePodIdentity, where the role is the association's: set one of them")
	}
	role, err := arn.Parse(text)
	if name, ok := strings.CutPrefix(role.Resource, "role/"); err != nil || !ok || name == "" ||
		role.Service != "iam" || role.Region != "" || !accountID.MatchString(role.AccountID) {
		d.Violate(RoleARN, "%q is not the ARN of an IAM role, such as arn:aws:iam::111122223333:role/app", text)
	}
	return text
}
