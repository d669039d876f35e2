package params

import "strings"

// How many objects a selection may have, unless it says, and at most.
const (
	defaultLimit = 50
	maxLimit     = 100
)

// selection decodes an object that asks for many.
func (e *entry) selection() Object {
	service := serviceOf(e.ObjectType)
	switch {
	case e.ObjectType == "":
		e.violate("objectType", "Must use objectType with namePrefix and tags: secretsmanager or ssmparameter")
	case service == "":
		e.violate("objectType", unknownType, e.ObjectType)
	}
	if isARN(e.NamePrefix) {
		e.violate("namePrefix", "must be the beginning of names, not of ARNs: %s", e.NamePrefix)
	}
	if _, ok := e.Tags[""]; ok {
		e.violate("tags", "a tag has no name")
	}
	e.refuseSingle()
	return Object{
		Service: service, Mode: e.mode("filePermission", e.FilePermission), Optional: e.Optional,
		Select: &Select{NamePrefix: e.NamePrefix, Tags: e.Tags, Limit: e.limit(), FilePattern: e.pattern()},
	}
}

// refuseSingle refuses what is for one object alone.
func (e *entry) refuseSingle() {
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"objectName", e.ObjectName != ""},
		{"objectVersion", e.ObjectVersion != ""},
		{"objectVersionLabel", e.ObjectVersionLabel != ""},
		{"jmesPath", len(e.JMESPath) > 0},
		{"failoverObject", e.FailoverObject != failoverObject{}},
	} {
		if f.set {
			e.violate(f.name, "cannot be used with namePrefix or tags, which ask for many objects")
		}
	}
}

func (e *entry) limit() int {
	switch {
	case e.Limit == nil:
		return defaultLimit
	case *e.Limit < 1 || *e.Limit > maxLimit:
		e.violate("limit", "must be from 1 to %d, not %d", maxLimit, *e.Limit)
	}
	return *e.Limit
}

// pattern is where the files of the selected objects are.
func (e *entry) pattern() string {
	if e.ObjectAlias == "" {
		return ""
	}
	pattern := Translate(e.ObjectAlias, e.spec.Translation)
	switch {
	case strings.Count(pattern, "*") != 1:
		e.violate("objectAlias", `%q must have one "*", which stands for the rest of each name after namePrefix`, e.ObjectAlias)
	case e.checkPath("objectAlias", e.ObjectAlias, pattern):
		e.claimFile("objectAlias", pattern, true)
	}
	return pattern
}
