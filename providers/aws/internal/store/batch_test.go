package store

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestBatchRefused: who may not batch reads one by one, and does not try again
// for a while; others do.
func TestBatchRefused(t *testing.T) {
	t.Parallel()
	for name, refusal := range map[string]*reply{
		"denied":              denial("secretsmanager:BatchGetSecretValue", "*"),
		"unknown":             {status: 400, code: "UnknownOperationException"},
		"unknown 404":         {status: 404, code: "UnknownOperationException"},
		"invalid action":      {status: 400, code: "InvalidAction", message: "no such action"},
		"not implemented":     {status: 501, code: "InternalFailure"},
		"a proxy's 404":       {status: 404, raw: "<html>"},
		"a proxy's 405":       {status: 405, raw: "<html>"},
		"unsupported by VPCE": {status: 400, code: "UnsupportedOperationException", message: "no"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				m := &memoryAWS{secrets: []*memorySecret{current("a"), current("b")}}
				m.script = func(r request) *reply {
					if r.operation == "BatchGetSecretValue" && r.accessKey == "ASIAweb" {
						return refusal
					}
					return nil
				}
				s := m.store()
				refs := []Ref{secretRef("a"), secretRef("b")}
				for _, step := range []struct {
					region Region
					wait   time.Duration
					want   string
				}{
					{as("web"), 0, "BatchGetSecretValue:1 GetSecretValue:2"},
					{as("web"), 9 * time.Minute, "GetSecretValue:2"},
					{as("db"), 0, "BatchGetSecretValue:1"},
					{inRegion("us-east-2", "web"), 0, "BatchGetSecretValue:1 GetSecretValue:2"},
					{as("web"), time.Minute, "BatchGetSecretValue:1 GetSecretValue:2"},
				} {
					pass(step.wait)
					wantTexts(t, read(t, s, step.region, refs...), "a canary-contents a", "b canary-contents b")
					if got := m.operations(); got != step.want {
						t.Errorf("%s in %s after %s: requests are %q, want %q", step.region.Identity, step.region.Name, step.wait, got, step.want)
					}
				}
			})
		})
	}
}

// TestBatchFailsForOne: what may be one secret's fault is not taken for a refusal
// to batch, and is told of the one.
func TestBatchFailsForOne(t *testing.T) {
	t.Parallel()
	for name, failed := range map[string]*reply{
		"bad name":    failure("InvalidParameterException", "The name contains invalid characters"),
		"not found":   failure("ResourceNotFoundException", "Secrets Manager can't find the specified secret."),
		"404":         {status: 404, code: "ResourceNotFoundException", message: "can't find"},
		"KMS denies":  failure("AccessDeniedException", "Access to KMS is not allowed"),
		"KMS fails":   failure("DecryptionFailure", "can't decrypt"),
		"one denied":  denial("secretsmanager:GetSecretValue", "b"),
		"unheard of":  failure("NovelException", "?"),
		"bad request": failure("ValidationException", "1 validation error detected"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := current("b")
			b.fails, b.says = failed.code, failed.message
			m := &memoryAWS{secrets: []*memorySecret{current("a"), b}}
			m.script = func(r request) *reply {
				if r.operation == "BatchGetSecretValue" {
					return failed
				}
				return nil
			}
			s := m.store()
			for range 2 {
				answers := read(t, s, as("web"), secretRef("a"), secretRef("b"))
				e, ok := errors.AsType[*Error](answers[1].Err)
				if text(answers[0]) != "a canary-contents a" || !ok || e.Object != "b" || e.Code != failed.code || e.Message != failed.message {
					t.Errorf("answers are %q", texts(answers))
				}
				if got, want := m.operations(), "BatchGetSecretValue:1 GetSecretValue:2"; got != want {
					t.Errorf("requests are %q, want %q", got, want)
				}
			}
		})
	}
}

// TestBatchFailsForAll: what all secrets would fail with is not asked again.
func TestBatchFailsForAll(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		failed *reply
		kind   Kind
		calls  string
	}{
		"expired":     {failure("ExpiredTokenException", "The security token included in the request is expired"), BadCredentials, "BatchGetSecretValue:1"},
		"throttled":   {failure("ThrottlingException", "Rate exceeded"), Throttled, "BatchGetSecretValue:3"},
		"unavailable": {&reply{status: 503, code: "ServiceUnavailable", message: "later"}, Unavailable, "BatchGetSecretValue:3"},
		"unreachable": {&reply{err: errors.New("connection reset by peer")}, Unavailable, "BatchGetSecretValue:3"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				m := &memoryAWS{script: func(request) *reply { return tt.failed }}
				for i, a := range read(t, m.store(), as("web"), secretRef("a"), secretRef("b")) {
					e, ok := errors.AsType[*Error](a.Err)
					if !ok || e.Kind != tt.kind || e.Object != []string{"a", "b"}[i] || e.Operation != "BatchGetSecretValue" {
						t.Errorf("error %d is %v", i, a.Err)
					}
				}
				if got := m.operations(); got != tt.calls {
					t.Errorf("requests are %q, want %q", got, tt.calls)
				}
			})
		})
	}
}

// TestBatchItems: a batch tells of each of its secrets, and what may pass is asked
// again for this one alone.
func TestBatchItems(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		code, message string
		want          string
		again         bool
	}{
		"denied":      {"AccessDeniedException", "not authorized", `denied GetSecretValue AccessDeniedException "b"`, false},
		"not found":   {"ResourceNotFoundException", "can't find", `not found GetSecretValue ResourceNotFoundException "b"`, false},
		"deleted":     {"InvalidRequestException", "it was marked for deletion", `not found GetSecretValue InvalidRequestException "b"`, false},
		"undecrypted": {"DecryptionFailure", "can't decrypt", `denied GetSecretValue DecryptionFailure "b"`, false},
		"invalid":     {"InvalidParameterException", "bad", `invalid GetSecretValue InvalidParameterException "b"`, false},
		"broken":      {"InternalServiceError", "oops", "b canary-contents b", true},
		"throttled":   {"ThrottlingException", "Rate exceeded", "b canary-contents b", true},
		"unheard of":  {"NovelException", "?", "b canary-contents b", true},
		"no code":     {"", "?", "b canary-contents b", true},
	} {
		for _, id := range []string{"b", current("b").arn()} {
			t.Run(name+" "+id, func(t *testing.T) {
				t.Parallel()
				m := &memoryAWS{secrets: []*memorySecret{current("a"), current("b"), current("c")}}
				m.script = func(r request) *reply {
					if r.operation != "BatchGetSecretValue" {
						return nil
					}
					return &reply{status: 200, answer: map[string]any{
						"SecretValues": []any{m.value("c", "", "").answer, m.value("a", "", "").answer},
						"Errors":       []any{map[string]string{"SecretId": id, "ErrorCode": tt.code, "Message": tt.message}},
					}}
				}
				answers := read(t, m.store(), as("web"), secretRef("a"), secretRef("b"), secretRef("c"))
				wantTexts(t, answers, "a canary-contents a", tt.want, "c canary-contents c")
				want := "BatchGetSecretValue:1"
				if tt.again {
					want += " GetSecretValue:1"
				}
				if got := m.operations(); got != want {
					t.Errorf("requests are %q, want %q", got, want)
				}
			})
		}
	}
}

func TestBatchPages(t *testing.T) {
	t.Parallel()
	m := &memoryAWS{pageSize: 2}
	var refs []Ref
	var want []string
	for i := range 5 {
		name := fmt.Sprintf("s%d", i)
		m.secrets = append(m.secrets, current(name))
		refs, want = append(refs, secretRef(name)), append(want, name+" canary-contents "+name)
	}
	m.secrets[3].fails = "AccessDeniedException"
	want[3] = `denied GetSecretValue AccessDeniedException "s3"`
	wantTexts(t, read(t, m.store(), as("web"), refs...), want...)
	if got, want := m.operations(), "BatchGetSecretValue:3"; got != want {
		t.Errorf("requests are %q, want %q", got, want)
	}
	// Pages that never end, and a secret that is on none of them.
	m.script = func(r request) *reply {
		if r.operation != "BatchGetSecretValue" {
			return nil
		}
		return &reply{status: 200, answer: map[string]any{"SecretValues": []any{m.value("s0", "", "").answer}, "NextToken": "more"}}
	}
	wantTexts(t, read(t, m.store(), as("web"), refs...), want...)
	if got, want := m.operations(), "BatchGetSecretValue:5 GetSecretValue:4"; got != want {
		t.Errorf("requests are %q, want %q", got, want)
	}
	// A later page that fails does not lose the earlier ones.
	code := "InvalidNextTokenException"
	m.script = func(r request) *reply {
		if r.operation == "BatchGetSecretValue" && r.body.NextToken != "" {
			return failure(code, "no more")
		}
		return nil
	}
	wantTexts(t, read(t, m.store(), as("web"), refs...), want...)
	if got, want := m.operations(), "BatchGetSecretValue:2 GetSecretValue:3"; got != want {
		t.Errorf("requests are %q, want %q", got, want)
	}
	code = "ExpiredTokenException"
	for i := 2; i < 5; i++ {
		want[i] = fmt.Sprintf(`bad credentials BatchGetSecretValue %s "s%d"`, code, i)
	}
	wantTexts(t, read(t, m.store(), as("web"), refs...), want...)
}

// TestBatchIsDeniedMore: what a batch cannot read, and GetSecretValue can, is read
// by that, and is not put into a batch for a while.
func TestBatchIsDeniedMore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		theirs, conditional := current("theirs"), current("conditional")
		theirs.account, conditional.conditional = "999999999999", true
		m := &memoryAWS{secrets: []*memorySecret{current("a"), current("b"), theirs, conditional}}
		s := m.store()
		arns := []Ref{secretRef(theirs.arn()), secretRef(current("a").arn()), secretRef(current("b").arn())}
		names := []Ref{secretRef("conditional").label("AWSCURRENT"), secretRef("a"), secretRef("b")}
		for _, step := range []struct {
			refs     []Ref
			first    string
			identity string
			wait     time.Duration
			want     string
		}{
			{arns, "theirs canary-contents theirs", "web", 0, "BatchGetSecretValue:1 GetSecretValue:1"},
			{arns, "theirs canary-contents theirs", "web", 0, "BatchGetSecretValue:1 GetSecretValue:1"},
			{names, "conditional canary-contents conditional", "web", 0, "BatchGetSecretValue:1 GetSecretValue:1"},
			{append(names, names[0]), "conditional canary-contents conditional", "web", 9 * time.Minute, "BatchGetSecretValue:1 GetSecretValue:1"},
		} {
			pass(step.wait)
			if got := text(read(t, s, as(step.identity), step.refs...)[0]); got != step.first {
				t.Errorf("%q is %s", step.refs[0].ID, got)
			}
			if got := m.operations(); got != step.want {
				t.Errorf("requests with %q are %q, want %q", step.refs[0].ID, got, step.want)
			}
		}
		batched := func(identity, id string) bool {
			read(t, s, as(identity), append(arns, names...)...)
			defer m.operations()
			return slices.ContainsFunc(m.requests, func(r request) bool { return slices.Contains(r.body.SecretIDList, id) })
		}
		if batched("web", theirs.arn()) || batched("web", "conditional") || !batched("web", "a") {
			t.Error("what a batch is denied is in one again")
		}
		if !batched("db", theirs.arn()) || !batched("db2", "conditional") {
			t.Error("what a batch is denied for one identity is in none for another")
		}
		pass(refusalFor)
		if !batched("web", "conditional") {
			t.Error("a denial is never forgotten")
		}
		// Who does not name the stage is denied, as it is.
		wantTexts(t, read(t, m.store(), as("web"), secretRef("conditional"), secretRef("a")),
			`denied GetSecretValue AccessDeniedException "conditional"`, "a canary-contents a")
		// A secret that is in no account is not there, however it is asked for.
		m.operations()
		wantTexts(t, read(t, m.store(), as("web"), secretRef("gone").label("AWSCURRENT"), secretRef("a")),
			`not found GetSecretValue ResourceNotFoundException "gone"`, "a canary-contents a")
		if got, want := m.operations(), "BatchGetSecretValue:1"; got != want {
			t.Errorf("requests are %q, want %q", got, want)
		}
		gone := secretRef(current("gone").arn())
		wantTexts(t, read(t, m.store(), as("web"), gone, arns[1]),
			fmt.Sprintf("not found GetSecretValue ResourceNotFoundException %q", gone.ID), "a canary-contents a")
	})
}

// TestSecretsAreNotMistaken: objects of other accounts, and names that look like
// each other's ARNs.
func TestSecretsAreNotMistaken(t *testing.T) {
	t.Parallel()
	theirs := func(name string) *memorySecret {
		s := current(name)
		s.account, s.versions[0].contents = "999999999999", "theirs "+name
		return s
	}
	partial := func(s *memorySecret) Ref { return secretRef(strings.TrimSuffix(s.arn(), "-AbCdEf")) }
	refs := []Ref{
		secretRef("x"), secretRef("x-AbCdEf"), secretRef("only"),
		secretRef(theirs("x").arn()), secretRef(theirs("only").arn()),
		secretRef(current("path/y").arn()), partial(current("path/y")), secretRef(current("x-AbCdEf").arn()), partial(current("z")),
	}
	// The full and the partial ARN of one secret are one answer, so one is asked
	// for alone.
	for crossAccount, requests := range map[bool]string{true: "BatchGetSecretValue:2 GetSecretValue:1", false: "BatchGetSecretValue:2 GetSecretValue:3"} {
		m := &memoryAWS{crossAccount: crossAccount, secrets: []*memorySecret{
			theirs("x"), current("x"), current("x-AbCdEf"), current("path/y"), theirs("only"), current("z"),
		}}
		wantTexts(t, read(t, m.store(), as("web"), refs...),
			"x canary-contents x", "x-AbCdEf canary-contents x-AbCdEf", `not found GetSecretValue ResourceNotFoundException "only"`,
			"x theirs x", "only theirs only",
			"path/y canary-contents path/y", "path/y canary-contents path/y", "x-AbCdEf canary-contents x-AbCdEf", "z canary-contents z",
		)
		if got := m.operations(); got != requests {
			t.Errorf("requests are %q, want %q", got, requests)
		}
	}
}

// TestAskedFor: errors carry names or ARNs.
func TestAskedFor(t *testing.T) {
	t.Parallel()
	partial := strings.TrimSuffix(current("x").arn(), "-AbCdEf")
	names := []Ref{secretRef("x"), secretRef("y"), secretRef("x-AbCdEf")}
	arns := []Ref{secretRef(partial), secretRef(current("y").arn()), secretRef(current("x-AbCdEf").arn())}
	for _, tt := range []struct {
		refs []Ref
		id   string
		want Ref
	}{
		{names, "x", names[0]},
		{names, "x-AbCdEf", names[2]},
		{names, current("y").arn(), names[1]},
		{names, current("x").arn(), names[0]},
		{names, current("x-AbCdEf").arn(), names[2]},
		{names, "arn:aws:secretsmanager:x:y", Ref{}},
		{names, "z", Ref{}},
		{names, "", Ref{}},
		{arns, partial, arns[0]},
		{arns, current("x").arn(), arns[0]},
		{arns, current("y").arn(), arns[1]},
		{arns, current("x-AbCdEf").arn(), arns[2]},
		{arns, current("z").arn(), Ref{}},
		{arns, "x", Ref{}},
	} {
		got, ok := askedFor(tt.refs, tt.id, tt.id)
		if got != tt.want || ok != (tt.want != Ref{}) {
			t.Errorf("error of %q is taken for that of %q", tt.id, got.ID)
		}
	}
	if got, ok := askedFor(names, "arn:aws:secretsmanager:e:1:secret:y", "y"); !ok || got != names[1] {
		t.Errorf("an answer with another kind of ARN is taken for that of %q", got.ID)
	}
}
