package iam

import (
	"maps"
	"strings"
)

// Access is what a caller wants to do.
type Access struct {
	Caller Caller
	Action string
	// Resource is its ARN; "*" for an action that knows none.
	Resource string
	// Shown is how a message names the resource; "" for not at all.
	Shown string
	// Owner is the account of the resource; the caller's if empty.
	Owner string
	// Policy is the resource's own; nil for none.
	Policy *Policy
	// Context has values of condition keys, such as secretsmanager:VersionStage.
	Context map[string]string
}

// DeniedError says who may not do what, and why, as AWS says it.
type DeniedError struct {
	Access Access
	Why    string
}

func (e *DeniedError) Error() string {
	text := "User: " + e.Access.Caller.ARN + " is not authorized to perform: " + e.Access.Action
	if e.Access.Shown != "" {
		text += " on resource: " + e.Access.Shown
	}
	return text + " " + e.Why
}

// Authorize returns a *DeniedError unless the caller may do it. In its own account
// the caller's or the resource's policy has to allow it; in another's, both.
func (d *Directory) Authorize(a Access) error {
	query := Query{Action: a.Action, Resource: a.Resource, Context: contextOf(a)}
	own := d.policyOf(a.Caller.Principal).Decide(query, anybody)
	resources := a.Policy.Decide(query, func(p *Principals) bool { return p.includes(a.Caller) })
	denied := func(why string) error { return &DeniedError{Access: a, Why: why} }
	foreign := a.Owner != "" && a.Owner != a.Caller.Account
	switch {
	case own == Denied:
		return denied("with an explicit deny in an identity-based policy")
	case resources == Denied:
		return denied("with an explicit deny in a resource-based policy")
	case own == Allowed && (!foreign || resources == Allowed):
		return nil
	case resources == Allowed && !foreign:
		return nil
	case own == Allowed:
		return denied("because no resource-based policy allows the " + a.Action + " action")
	default:
		return denied("because no identity-based policy allows the " + a.Action + " action")
	}
}

func anybody(*Principals) bool { return true }

func (d *Directory) policyOf(principal string) *Policy {
	d.mu.Lock()
	defer d.mu.Unlock()
	if policy, ok := d.users[principal]; ok {
		return policy
	}
	return d.roles[principal].policy
}

// includes tells whether a caller is among the AWS principals.
func (p *Principals) includes(c Caller) bool {
	for _, arn := range p.AWS {
		switch arn {
		case "*", c.Principal, c.ARN, c.Account:
			return true
		}
		if root, ok := strings.CutSuffix(arn, ":root"); ok && strings.HasSuffix(root, ":"+c.Account) {
			return true
		}
	}
	return false
}

func contextOf(a Access) map[string]string {
	context := map[string]string{"aws:principalarn": a.Caller.Principal, "aws:principalaccount": a.Caller.Account}
	for key, value := range a.Caller.Tags {
		context["aws:principaltag/"+strings.ToLower(key)] = value
	}
	for key, value := range a.Context {
		context[strings.ToLower(key)] = value
	}
	return maps.Clone(context)
}
