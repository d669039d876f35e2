package params

import (
	"cmp"
	"regexp"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws/arn"
)

// serviceOf returns the service of an objectType, or "".
func serviceOf(objectType string) Service {
	switch objectType {
	case "secretsmanager":
		return SecretsManager
	case "ssmparameter": // not ssm, which is that of ARNs
		return ParameterStore
	default:
		return ""
	}
}

const unknownType = "Invalid objectType: %s: must be secretsmanager or ssmparameter"

// service checks the object's name and returns where the object is, or "".
func (e *entry) service() Service {
	if e.ObjectName == "" {
		e.violate("objectName", "Object name must be specified")
		return ""
	}
	return e.checkName("", e.ObjectName, e.spec.Regions[0])
}

// checkName returns the service of a name or ARN, which is that of an object read in
// the region, "" if that is unknown.
func (e *entry) checkName(prefix, name, region string) Service {
	typed := serviceOf(e.ObjectType)
	if !isARN(name) {
		switch {
		case e.ObjectType == "":
			e.violate(prefix+"objectName", "Must use objectType when a full ARN is not specified: %s", name)
		case typed == "" && prefix == "": // else it has been said
			e.violate("objectType", unknownType, e.ObjectType)
		}
		return typed
	}
	a, err := arn.Parse(name)
	named := Service(a.Service)
	switch {
	case err != nil:
		e.violate(prefix+"objectName", "Invalid ARN format in object name: %s", name)
	case region != "" && a.Region != region:
		e.violate(prefix+"objectName", "ARN region must match region %s: %s", region, name)
	case e.ObjectType == "" && named != SecretsManager && named != ParameterStore:
		e.violate(prefix+"objectName", "Invalid service in ARN: %s", a.Service)
	case e.ObjectType != "" && typed == "":
		if prefix == "" {
			e.violate("objectType", unknownType, e.ObjectType)
		}
	case typed != "" && typed != named:
		e.violate(prefix+"objectName", "objectType does not match ARN: %s", name)
	case !hasResource(a):
		e.violate(prefix+"objectName", "ARN names neither a secret (secret:...) nor a parameter (parameter/...): %s", name)
	default:
		return named
	}
	return ""
}

func isARN(name string) bool { return strings.HasPrefix(name, "arn:") }

// hasResource reports whether an ARN is that of an object, and not of a rotation
// rule, a document or everything.
func hasResource(a arn.ARN) bool {
	prefix := "secret:"
	if Service(a.Service) == ParameterStore {
		prefix = "parameter/"
	}
	name, ok := strings.CutPrefix(a.Resource, prefix)
	return ok && name != ""
}

// failover returns where the object is in the failover region, if there is one.
// What the failover object does not say is as in the primary region.
func (e *entry) failover(service Service) []Source {
	if e.ObjectName == "" {
		return nil
	}
	f := e.FailoverObject
	if f.ObjectName != "" {
		e.checkFailover(service)
	}
	if len(e.spec.Regions) < 2 {
		return nil
	}
	if region := e.spec.Regions[1]; region != "" && service != "" && f.ObjectName == "" && isARN(e.ObjectName) {
		e.violate("failoverObject", "ARN region must match region %s: %s: set failoverObject.objectName to the object's name or ARN there",
			region, e.ObjectName)
	}
	there := Source{
		ID:      cmp.Or(f.ObjectName, e.ObjectName),
		Version: cmp.Or(f.ObjectVersion, e.ObjectVersion),
		Label:   cmp.Or(f.ObjectVersionLabel, e.ObjectVersionLabel),
	}
	if f.ObjectVersion == "" && f.ObjectVersionLabel == "" {
		return []Source{e.source("", service, there)} // what is wrong with them has been said
	}
	return []Source{e.source(failoverPrefix+"objectVersionLabel", service, there)}
}

// failoverPrefix is before the names of the failover object's fields.
const failoverPrefix = "failoverObject."

// checkFailover checks a failover object that has a name of its own.
func (e *entry) checkFailover(service Service) {
	f := e.FailoverObject
	if e.ObjectAlias == "" {
		e.violate("objectAlias", "object alias must be specified for objects with failover entries: %s", e.ObjectName)
	}
	region := ""
	if len(e.spec.Regions) < 2 {
		e.violate("failoverObject", "failover object allowed only when failover region is defined: %s", e.ObjectName)
	} else {
		region = e.spec.Regions[1]
	}
	there := e.checkName(failoverPrefix, f.ObjectName, region)
	if service != "" && there != "" && there != service {
		e.violate(failoverPrefix+"objectName", "objectType does not match ARN: %s", f.ObjectName)
	}
	if f.ObjectVersion != e.ObjectVersion {
		e.violate(failoverPrefix+"objectVersion", "object versions must match between primary and failover regions: %s", e.ObjectName)
	}
}

// number is a parameter's version.
var number = regexp.MustCompile(`^[0-9]+$`)

// source checks version and label. Of a parameter's there is one, and AWS itself
// tells which it is: ASCP's users may have written a label for the version. An empty
// field says that a violation has been noted elsewhere.
func (e *entry) source(field string, service Service, s Source) Source {
	if service != ParameterStore {
		return s
	}
	switch {
	case s.Version == "" || number.MatchString(s.Version) && s.Label == "":
	case s.Label == "":
		s.Version, s.Label = "", s.Version
	case field != "":
		e.violate(field, "ssm parameters can not specify both objectVersion and objectVersionLabel: %s", e.ObjectName)
	}
	return s
}
