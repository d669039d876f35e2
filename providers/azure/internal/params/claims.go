package params

import "strconv"

// claim takes the paths of an object: its file, or those of its history. There is
// one more of a history than is asked for, as the provider's operator may have it
// so.
func (e *entry) claim(o *Object) {
	if o.History <= 1 {
		e.taken(e.paths.Claim(o.File(), e.owner()))
		return
	}
	for i := range o.History + 1 {
		if problem := e.paths.Claim(o.File()+"/"+strconv.Itoa(i), e.owner()); problem != "" {
			e.taken(problem)
			return
		}
	}
}

// claimPattern takes what is known of a pattern of paths.
func (e *entry) claimPattern(pattern string) { e.taken(e.paths.ClaimPattern(pattern, e.owner())) }

func (e *entry) owner() string { return e.field + "." + e.pathField() }

func (e *entry) taken(problem string) {
	if problem != "" {
		e.violate(e.pathField(), "%s: set another objectAlias", problem)
	}
}
