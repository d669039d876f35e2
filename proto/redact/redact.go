// Package redact prints protobuf messages without their secrets.
//
// A field marked debug_redact holds a token or a secret's content. Messages
// with such a field, anywhere below them, are generated with Format, LogValue
// and MarshalJSON methods that come here, so that no print of a whole message
// can leak: fmt, slog and encoding/json all show Mark in the field's place.
package redact

import (
	"fmt"
	"log/slog"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// Mark stands where a secret was.
const Mark = "[redacted]"

// Message returns a copy of m in which each field marked debug_redact that is
// set holds Mark instead: in each element of a list, in each value of a map.
// A marked field that cannot hold a string is cleared.
func Message[M proto.Message](m M) M {
	c := proto.CloneOf(m)
	scrub(c.ProtoReflect())
	return c
}

// Format prints m for fmt, whatever the verb.
func Format(m proto.Message, s fmt.State) {
	if !m.ProtoReflect().IsValid() {
		_, _ = fmt.Fprint(s, "<nil>")
		return
	}
	_, _ = fmt.Fprint(s, prototext.MarshalOptions{}.Format(Message(m)))
}

// LogValue is what slog logs of m.
func LogValue(m proto.Message) slog.Value {
	return slog.StringValue(fmt.Sprint(m))
}

// MarshalJSON is m in protobuf's JSON mapping.
func MarshalJSON(m proto.Message) ([]byte, error) {
	if !m.ProtoReflect().IsValid() {
		return []byte("null"), nil
	}
	return protojson.Marshal(Message(m))
}

func scrub(m protoreflect.Message) {
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case isSecret(field):
			mask(m, field, value)
		case field.IsMap():
			if field.MapValue().Message() != nil {
				value.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
					scrub(v.Message())
					return true
				})
			}
		case field.Message() == nil:
		case field.IsList():
			for i := range value.List().Len() {
				scrub(value.List().Get(i).Message())
			}
		default:
			scrub(value.Message())
		}
		return true
	})
}

func isSecret(field protoreflect.FieldDescriptor) bool {
	options, ok := field.Options().(*descriptorpb.FieldOptions)
	return ok && options.GetDebugRedact()
}

func mask(m protoreflect.Message, field protoreflect.FieldDescriptor, value protoreflect.Value) {
	switch {
	case field.IsMap():
		marked, ok := markOf(field.MapValue().Kind())
		if !ok {
			m.Clear(field)
			return
		}
		value.Map().Range(func(k protoreflect.MapKey, _ protoreflect.Value) bool {
			value.Map().Set(k, marked)
			return true
		})
	case field.IsList():
		marked, ok := markOf(field.Kind())
		if !ok {
			m.Clear(field)
			return
		}
		for i := range value.List().Len() {
			value.List().Set(i, marked)
		}
	default:
		marked, ok := markOf(field.Kind())
		if !ok {
			m.Clear(field)
			return
		}
		m.Set(field, marked)
	}
}

func markOf(kind protoreflect.Kind) (protoreflect.Value, bool) {
	switch kind {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(Mark), true
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte(Mark)), true
	default:
		return protoreflect.Value{}, false
	}
}
