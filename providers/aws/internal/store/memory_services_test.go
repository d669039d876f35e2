package store

import (
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"strings"
)

type memorySecret struct {
	account, name string
	versions      []memoryVersion
	tags          map[string]string
	deleted       bool
	// conditional says that its policy wants the stage to be named.
	conditional bool
	// fails is the code that it fails with, and its message.
	fails, says string
}

type memoryVersion struct {
	id       string
	stages   []string
	contents string
	binary   []byte
}

type memoryParameter struct {
	account, name string
	values        []string
	labels        map[string]int
	tags          map[string]string
	denied        string
	secure        bool
}

func (s *memorySecret) arn() string {
	return "arn:aws:secretsmanager:" + home + ":" + s.account + ":secret:" + s.name + "-AbCdEf"
}

func (m *memoryAWS) secret(id string) *memorySecret {
	for _, s := range m.secrets {
		if (s.account == account && s.name == id) || s.arn() == id || s.arn() == id+"-AbCdEf" {
			return s
		}
	}
	return nil
}

// value is a secret's content, as an answer or an error.
func (m *memoryAWS) value(id, version, stage string) *reply {
	s := m.secret(id)
	switch {
	case s == nil:
		return failure("ResourceNotFoundException", "Secrets Manager can't find the specified secret.")
	case s.fails != "":
		return failure(s.fails, s.says)
	case s.conditional && stage == "":
		return denial("secretsmanager:GetSecretValue", id)
	case s.deleted:
		return failure("InvalidRequestException", "You can't perform this operation on the secret because it was marked for deletion.")
	}
	if version == "" && stage == "" {
		stage = "AWSCURRENT"
	}
	for _, v := range s.versions {
		if (version == "" || v.id == version) && (stage == "" || slices.Contains(v.stages, stage)) {
			answer := map[string]any{"ARN": s.arn(), "Name": s.name, "VersionId": v.id, "VersionStages": v.stages}
			if v.binary != nil {
				answer["SecretBinary"] = base64.StdEncoding.EncodeToString(v.binary)
			} else {
				answer["SecretString"] = v.contents
			}
			return &reply{status: 200, answer: answer}
		}
	}
	return failure("ResourceNotFoundException", "Secrets Manager can't find the specified secret value for staging label: "+stage)
}

func (m *memoryAWS) getSecretValue(b body) *reply {
	return m.value(b.SecretID, b.VersionID, b.VersionStage)
}

// batchGetSecretValue answers in an order of its own, in pages if there is a size.
func (m *memoryAWS) batchGetSecretValue(b body) *reply {
	if n := len(b.SecretIDList); n == 0 || n > 20 {
		return failure("InvalidParameterException", fmt.Sprintf("%d ids", n))
	}
	ids := slices.Sorted(slices.Values(b.SecretIDList))
	if len(slices.Compact(slices.Clone(ids))) != len(ids) {
		return failure("InvalidParameterException", "duplicate ids")
	}
	ids, next := m.page(ids, b.NextToken)
	values, errs := []any{}, []any{}
	for _, id := range slices.Backward(ids) {
		r := m.value(id, "", "")
		if s := m.secret(id); s != nil && s.account != account && !m.crossAccount {
			r = denial("secretsmanager:GetSecretValue", id)
		}
		if r.status == 200 {
			values = append(values, r.answer)
		} else {
			errs = append(errs, map[string]string{"SecretId": id, "ErrorCode": r.code, "Message": r.message})
		}
	}
	return &reply{status: 200, answer: map[string]any{"SecretValues": values, "Errors": errs, "NextToken": next}}
}

// page cuts a page off. Tokens are the index of what comes next.
func (m *memoryAWS) page(all []string, token string) (page []string, next any) {
	from := 0
	if token != "" {
		_, _ = fmt.Sscan(token, &from)
	}
	if m.pageSize == 0 || from+m.pageSize >= len(all) {
		return all[from:], nil
	}
	return all[from : from+m.pageSize], fmt.Sprint(from + m.pageSize)
}

func (s *memorySecret) metadata() map[string]any {
	stages := make(map[string][]string)
	for _, v := range s.versions {
		stages[v.id] = v.stages
	}
	tags := []any{}
	for k, v := range s.tags {
		tags = append(tags, map[string]string{"Key": k, "Value": v})
	}
	answer := map[string]any{
		"ARN": s.arn(), "Name": s.name, "Tags": tags,
		"VersionIdsToStages": stages, "SecretVersionsToStages": stages,
	}
	if s.deleted {
		answer["DeletedDate"] = 1.7e9
	}
	return answer
}

func (m *memoryAWS) describeSecret(b body) *reply {
	s := m.secret(b.SecretID)
	if s == nil {
		return failure("ResourceNotFoundException", "Secrets Manager can't find the specified secret.")
	}
	if s.fails != "" {
		return failure(s.fails, s.says)
	}
	return &reply{status: 200, answer: s.metadata()}
}

// listSecrets compares beginnings, as AWS does.
func (m *memoryAWS) listSecrets(b body) *reply {
	match := func(s *memorySecret) bool {
		for _, f := range b.Filters {
			prefix := f.Values.([]any)[0].(string)
			var of []string
			switch f.Key {
			case "name":
				of = []string{s.name}
			case "tag-key":
				of = slices.Collect(maps.Keys(s.tags))
			case "tag-value":
				of = slices.Collect(maps.Values(s.tags))
			}
			if !slices.ContainsFunc(of, func(text string) bool { return strings.HasPrefix(text, prefix) }) {
				return false
			}
		}
		return !s.deleted
	}
	var names []string
	for _, s := range m.secrets {
		if match(s) {
			names = append(names, s.name)
		}
	}
	names, next := m.page(names, b.NextToken)
	list := []any{}
	for _, name := range names {
		list = append(list, m.secret(name).metadata())
	}
	return &reply{status: 200, answer: map[string]any{"SecretList": list, "NextToken": next}}
}

func (p *memoryParameter) arn() string {
	return "arn:aws:ssm:" + home + ":" + p.account + ":parameter/" + strings.TrimPrefix(p.name, "/")
}

// parameter finds a version of a parameter by what a request says.
func (m *memoryAWS) parameter(id string) (p *memoryParameter, version int, selector string) {
	for _, p := range m.parameters {
		for _, name := range []string{p.name, p.arn()} {
			selector, ok := strings.CutPrefix(id, name)
			if !ok || (name == p.name && p.account != account) {
				continue
			}
			if selector == "" {
				return p, len(p.values), ""
			}
			for label, version := range p.labels {
				if selector == ":"+label {
					return p, version, selector
				}
			}
			for i := range p.values {
				if selector == fmt.Sprintf(":%d", i+1) {
					return p, i + 1, selector
				}
			}
		}
	}
	return nil, 0, ""
}

func (m *memoryAWS) getParameters(b body) *reply {
	if n := len(b.Names); n == 0 || n > 10 {
		return failure("ValidationException", fmt.Sprintf("%d names", n))
	}
	list, invalid := []any{}, []string{}
	for _, id := range slices.Sorted(slices.Values(b.Names)) { // AWS answers in alphabetical order
		p, version, selector := m.parameter(id)
		switch {
		case p == nil:
			invalid = append(invalid, id)
			continue
		case p.denied == "kms" && b.WithDecryption:
			return failure("AccessDeniedException", "The ciphertext refers to a customer master key that does not exist, "+
				"does not exist in this region, or you are not allowed to access.")
		case p.denied == "iam":
			return denial("ssm:GetParameters", p.arn())
		}
		value := p.values[version-1]
		if p.secure && !b.WithDecryption {
			value = "ciphertext"
		}
		list = append(list, map[string]any{"Name": p.name, "ARN": p.arn(), "Version": version, "Value": value, "Selector": selector})
	}
	return &reply{status: 200, answer: map[string]any{"Parameters": list, "InvalidParameters": invalid}}
}

// describeParameters filters what it read of a page, so a page may be empty.
func (m *memoryAWS) describeParameters(b body) *reply {
	var names []string
	for _, p := range m.parameters {
		names = append(names, p.name)
	}
	names, next := m.page(names, b.NextToken)
	list := []any{}
	for _, name := range names {
		p, version, _ := m.parameter(name)
		if p == nil {
			continue
		}
		matches := true
		for _, f := range b.ParameterFilters {
			switch key, tag := strings.CutPrefix(f.Key, "tag:"); {
			case tag:
				matches = matches && f.Option == "Equals" && p.tags[key] == f.Values[0]
			default:
				matches = matches && f.Option == "BeginsWith" && strings.HasPrefix(p.name, f.Values[0])
			}
		}
		if matches {
			list = append(list, map[string]any{"Name": p.name, "ARN": p.arn(), "Version": version})
		}
	}
	return &reply{status: 200, answer: map[string]any{"Parameters": list, "NextToken": next}}
}

func parameter(name string, values ...string) *memoryParameter {
	return &memoryParameter{account: account, name: name, values: values}
}
