package store

import (
	"slices"
	"strings"

	"github.com/postern-dev/postern/providers/aws/internal/params"
)

const (
	// maxBatch is how many secrets one BatchGetSecretValue takes.
	maxBatch = 20
	// maxParameters is how many parameters one GetParameters takes.
	maxParameters = 10
	// stageCurrent is the stage of the version that is in use.
	stageCurrent = "AWSCURRENT"
)

// isARN reports whether the id is an ARN, and not a name.
func (r Ref) isARN() bool { return strings.HasPrefix(r.ID, "arn:") }

// isCurrent reports whether the version of a secret that is in use is asked for,
// by saying so or by saying nothing.
func (r Ref) isCurrent() bool {
	return r.Version == "" && (r.Label == "" || r.Label == stageCurrent)
}

// pinned returns the version that a Ref names itself, which needs no request. That
// of a parameter is a number, which counts anew if the parameter is made anew.
func (r Ref) pinned() (string, bool) {
	return r.Version, r.Service == params.SecretsManager && r.Version != "" && r.Label == ""
}

// distinctOf returns the refs, each once, in order.
func distinctOf(refs []Ref) []Ref {
	distinct := make([]Ref, 0, len(refs))
	seen := make(map[Ref]bool, len(refs))
	for _, ref := range refs {
		if !seen[ref] {
			seen[ref] = true
			distinct = append(distinct, ref)
		}
	}
	return distinct
}

// planReads says which distinct refs are read by one request. A batch of secrets
// can name neither version nor stage. Names and ARNs are never in one request: two
// objects of different accounts can have one name, but in a request of names all
// are the caller's own, and in one of ARNs each is told by its ARN.
func planReads(refs []Ref, mayBatch func(Ref) bool) [][]Ref {
	var single [][]Ref
	var secrets, parameters [2][]Ref // of names, of ARNs
	batched := make(map[string]bool)
	for _, ref := range refs {
		kind := 0
		if ref.isARN() {
			kind = 1
		}
		switch {
		case ref.Service == params.ParameterStore:
			parameters[kind] = append(parameters[kind], ref)
		case ref.isCurrent() && !batched[ref.ID] && mayBatch(ref):
			batched[ref.ID] = true
			secrets[kind] = append(secrets[kind], ref)
		default:
			single = append(single, []Ref{ref})
		}
	}
	var plan [][]Ref
	for kind := range secrets {
		plan = slices.AppendSeq(plan, slices.Chunk(secrets[kind], maxBatch))
		plan = slices.AppendSeq(plan, slices.Chunk(parameters[kind], maxParameters))
	}
	return append(plan, single...)
}

// alone plans a request for each ref that has no answer.
func alone(refs []Ref, found map[Ref]Answer) [][]Ref {
	var plan [][]Ref
	for _, ref := range refs {
		if _, ok := found[ref]; !ok {
			plan = append(plan, []Ref{ref})
		}
	}
	return plan
}

// planVersions says which distinct refs one request tells the versions of, and
// puts into known those that need none. All stages of a secret are told at once.
func planVersions(refs []Ref, known map[Ref]string) [][]Ref {
	var parameters []Ref
	var plan [][]Ref
	place := make(map[string]int)
	for _, ref := range refs {
		if version, ok := ref.pinned(); ok {
			known[ref] = version
			continue
		}
		if ref.Service == params.ParameterStore {
			parameters = append(parameters, ref)
			continue
		}
		i, ok := place[ref.ID]
		if !ok {
			i = len(plan)
			place[ref.ID] = i
			plan = append(plan, nil)
		}
		plan[i] = append(plan[i], ref)
	}
	return append(plan, planReads(parameters, nil)...)
}
