package rules

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/postern-dev/postern/gateway/internal/policy/objects"
	"github.com/postern-dev/postern/internal/rpc"
	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
)

// MetadataRule is the key of a denial's metadata that names the rule.
const MetadataRule = "rule"

// unexplained is what a rule without a message tells. Its expression may hold
// names of others, and is not for whoever asks.
const unexplained = "ask whoever runs the cluster what it allows"

// What an evaluation may come to, beside errors of CEL.
var (
	errNoBool    = errors.New("the result is no bool")
	errTooCostly = errors.New("that costs too much")
)

// Denial is an [*rpc.Error]: what the driver, and with it the pod's event, is told.
func (v *Violation) Denial(req *gatewayv1.FetchRequest) error {
	return &rpc.Error{
		Reason: rpc.ReasonPolicyDenied,
		Message: fmt.Sprintf("policy rule %q refuses SecretProviderClass %s/%s for service account %s: %s",
			v.Name, req.GetPod().GetNamespace(), req.GetSecretProviderClass(), req.GetPod().GetServiceAccount().GetName(), v.Explanation),
		Metadata: map[string]string{
			MetadataRule:                    v.Name,
			rpc.MetadataProvider:            req.GetProvider(),
			rpc.MetadataSecretProviderClass: req.GetSecretProviderClass(),
		},
	}
}

// explain is the rule's message for a fetch that breaks it.
func (r *rule) explain(ctx context.Context, in *input) string {
	message := r.message
	if r.messageExpression != nil {
		if value, err := r.messageExpression.evaluate(ctx, in); err == nil {
			text, _ := value.(string) // it was compiled as one
			message = clean(text)
		}
	}
	if message == "" {
		return unexplained
	}
	return message
}

// unevaluated says why an expression has no result. It quotes nothing but what
// the rule itself says, since an error of CEL may hold any value.
func unevaluated(field string, e *expression, err error) string {
	const noKey = "no such key: "
	because := "an operation is not possible with the values that are there"
	var unreadable *objects.Error
	text := err.Error()
	at := strings.LastIndex(text, noKey)
	switch {
	case errors.As(err, &unreadable):
		because = unreadable.Error()
	case errors.Is(err, errTooCostly):
		because = errTooCostly.Error()
	case at >= 0:
		because = "something that it asks for is not there"
		if key := text[at+len(noKey):]; e.names(key) {
			because = key + " is not there"
		}
	case strings.Contains(text, "no such overload"):
		because = "a value is of another type than it needs"
	}
	return fmt.Sprintf("its expression %s cannot be evaluated: %s", field, because)
}

// names reports whether a key is one that the expression itself asks for.
func (e *expression) names(key string) bool {
	for rest := e.source; ; {
		_, after, found := strings.Cut(rest, "."+key)
		if !found {
			return strings.Contains(e.source, "'"+key+"'") || strings.Contains(e.source, `"`+key+`"`)
		}
		if next, _ := utf8.DecodeRuneInString(after); next != '_' && !unicode.IsLetter(next) && !unicode.IsDigit(next) {
			return key != ""
		}
		rest = after
	}
}

// clean makes a text fit for one line of a log, an event or an error.
func clean(s string) string {
	s = strings.Join(strings.FieldsFunc(strings.ToValidUTF8(s, "\uFFFD"), func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r)
	}), " ")
	if len(s) <= maxMessage {
		return s
	}
	cut := maxMessage
	for !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut]
}
