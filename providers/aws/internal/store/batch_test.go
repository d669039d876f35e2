package store

import (
	"errors"
	"fmt"
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
	m.script = func(r request) *reply {
		if r.operation == "BatchGetSecretValue" && r.body.NextToken != "" {
			return failure("InvalidNextTokenException", "expired")
		}
		return nil
	}
	wantTexts(t, read(t, m.store(), as("web"), refs...), want...)
	if got, want := m.operations(), "BatchGetSecretValue:2 GetSecretValue:3"; got != want {
		t.Errorf("requests are %q, want %q", got, want)
	}
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
	m := &memoryAWS{secrets: []*memorySecret{current("x"), theirs("x"), current("x-AbCdEf"), current("path/y"), theirs("only")}}
	partial := func(s *memorySecret) Ref { return secretRef(strings.TrimSuffix(s.arn(), "-AbCdEf")) }
	answers := read(t, m.store(), as("web"),
		secretRef("x"), secretRef("x-AbCdEf"), secretRef("only"),
		secretRef(theirs("x").arn()), secretRef(theirs("only").arn()),
		secretRef(current("path/y").arn()), partial(current("path/y")), secretRef(current("x-AbCdEf").arn()),
	)
	wantTexts(t, answers,
		"x canary-contents x", "x-AbCdEf canary-contents x-AbCdEf", `not found GetSecretValue ResourceNotFoundException "only"`,
		"x theirs x", "only theirs only",
		"path/y canary-contents path/y", "path/y canary-contents path/y", "x-AbCdEf canary-contents x-AbCdEf",
	)
	// The full and the partial ARN of one secret are one answer, so the second is asked for alone.
	if got, want := m.operations(), "BatchGetSecretValue:2 GetSecretValue:1"; got != want {
		t.Errorf("requests are %q, want %q", got, want)
	}
}

// TestErrorOfTwo: an error that could be either's is nobody's.
func TestErrorOfTwo(t *testing.T) {
	t.Parallel()
	refs := []Ref{secretRef("x"), secretRef("y"), secretRef("x-AbCdEf")}
	for id, want := range map[string]Ref{
		"x":                               refs[0],
		"x-AbCdEf":                        refs[2],
		current("y").arn():                refs[1],
		current("x").arn():                refs[0],
		current("x-AbCdEf").arn():         refs[2],
		"arn:aws:secretsmanager:x:y":      {},
		"z":                               {},
		"arn:aws:secretsmanager:e:1:s:yy": {},
	} {
		got, ok := theOne(refs, id, id)
		if got != want || ok != (want != Ref{}) {
			t.Errorf("error of %s is taken for that of %q", id, got.ID)
		}
	}
	arn := strings.TrimSuffix(current("x").arn(), "-AbCdEf")
	if _, ok := theOne([]Ref{secretRef(arn)}, arn+"-AbCdEf", "other"); ok {
		t.Error("an answer of another name is taken for that of a partial ARN")
	}
}
