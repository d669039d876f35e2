package params

import (
	"fmt"
	"strings"

	"github.com/postern-dev/postern/providers/sdk"
)

// seen is what the objects before have taken.
type seen struct {
	// names are the last objects of each objectName.
	names   map[string]*document
	aliases map[string]bool
	paths   *sdk.Paths
}

func newSeen() *seen {
	return &seen{names: make(map[string]*document), aliases: make(map[string]bool), paths: sdk.NewPaths()}
}

// claim takes the names and files of an object.
func (e *entry) claim(o Object) {
	if !e.duplicate() {
		from := "objectAlias"
		if e.ObjectAlias == "" {
			from = "objectName"
		}
		e.claimFile(from, o.File, false)
	}
	for i, r := range o.Rules {
		doc := e.JMESPath[i]
		if e.seen.aliases[doc.ObjectAlias] {
			e.violate(rule(i, "objectAlias"), "Name already in use for objectAlias: found duplicate object alias %s in JMES path entry %s",
				doc.ObjectAlias, doc.Path)
			continue
		}
		// Keys of two documents may become files side by side.
		if doc.ObjectAlias != "" && !r.All {
			e.seen.aliases[doc.ObjectAlias] = true
		}
		e.claimFile(rule(i, "objectAlias"), r.File, r.All)
	}
}

// duplicate reports whether the object is one again, by ASCP's rules: it compares
// with the last object of the same name, and then with all aliases.
func (e *entry) duplicate() bool {
	last, again := e.seen.names[e.ObjectName]
	if e.ObjectName != "" {
		e.seen.names[e.ObjectName] = e.document
	}
	if again && last.ObjectAlias == e.ObjectAlias && last.ObjectVersionLabel == e.ObjectVersionLabel {
		alias, label := "no object alias", "no version label"
		if e.ObjectAlias != "" {
			alias = "duplicate object alias " + e.ObjectAlias
		}
		if e.ObjectVersionLabel != "" {
			label = "duplicate version label " + e.ObjectVersionLabel
		}
		e.violate("objectName", "found descriptor with duplicate object name %s, %s, and %s", e.ObjectName, alias, label)
		return true
	}
	if e.seen.aliases[e.ObjectAlias] {
		e.violate("objectAlias", "found duplicate object alias %s", e.ObjectAlias)
		return true
	}
	if e.ObjectAlias != "" {
		e.seen.aliases[e.ObjectAlias] = true
	}
	return false
}

// claimFile takes the path that a field gives, or says why it cannot be had. Of a
// pattern, what stands for the "*" is not known yet.
func (e *entry) claimFile(field, file string, pattern bool) {
	if file == "" {
		return // what is wrong has been said
	}
	if problem := e.seen.add(file, e.field+"."+field, pattern); problem != "" {
		e.violate(field, "%s: set another objectAlias", problem)
	}
}

func (s *seen) add(file, field string, pattern bool) (problem string) {
	whole, claim := file, s.paths.Claim
	if pattern {
		whole, claim = strings.Replace(file, "*", "x", 1), s.paths.ClaimPattern
	}
	if _, problem := sdk.CheckPaths([]string{whole}); problem != "" {
		return fmt.Sprintf("%q cannot be a file: %s", file, problem)
	}
	return claim(file, field)
}
