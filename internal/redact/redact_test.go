package redact_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/postern-dev/postern/internal/redact"
)

const secret = "hunter2"

// holder is how domain types carry secrets: as a field, behind pointers, in
// slices and maps.
type holder struct {
	Text    redact.String
	Content redact.Bytes
	Pointer *redact.String
	List    []redact.Bytes
	Map     map[string]redact.String

	text    redact.String
	content redact.Bytes
	list    []redact.Bytes
}

func newHolder() holder {
	text := redact.NewString(secret)
	return holder{
		Text:    text,
		Content: redact.NewBytes([]byte(secret)),
		Pointer: &text,
		List:    []redact.Bytes{redact.NewBytes([]byte(secret))},
		Map:     map[string]redact.String{"k": text},

		text:    text,
		content: redact.NewBytes([]byte(secret)),
		list:    []redact.Bytes{redact.NewBytes([]byte(secret))},
	}
}

func TestPrinting(t *testing.T) {
	t.Parallel()
	text, content := redact.NewString(secret), redact.NewBytes([]byte(secret))
	values := map[string]any{
		"String":   text,
		"*String":  &text,
		"Bytes":    content,
		"*Bytes":   &content,
		"[]String": []redact.String{text},
	}
	for name, value := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%10.3s", "%t"} {
			t.Run(name+verb, func(t *testing.T) {
				t.Parallel()
				got := fmt.Sprintf(verb, value)
				if leaks(got) {
					t.Errorf("Sprintf(%q) = %q reveals the secret", verb, got)
				}
				if !strings.Contains(got, redact.Placeholder) {
					t.Errorf("Sprintf(%q) = %q, want %q in it", verb, got, redact.Placeholder)
				}
			})
		}
	}
}

// TestPrinting_Fields covers unexported fields too, on which fmt calls no method.
func TestPrinting_Fields(t *testing.T) {
	t.Parallel()
	h := newHolder()
	for _, value := range []any{h, &h, []holder{h}, map[string]holder{"k": h}, struct{ in holder }{h}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%p", "%c", "%e", "%b", "%U", "%z"} {
			if got := fmt.Sprintf(verb, value); leaks(got) {
				t.Errorf("Sprintf(%q, %T) = %q reveals the secret", verb, value, got)
			}
		}
	}
}

func TestJSON(t *testing.T) {
	t.Parallel()
	got, err := json.Marshal(newHolder())
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"Text":"[redacted]","Content":"[redacted]","Pointer":"[redacted]",` +
		`"List":["[redacted]"],"Map":{"k":"[redacted]"}}`
	if string(got) != want {
		t.Errorf("json = %s, want %s", got, want)
	}
	got, err = json.Marshal(map[redact.String]int{redact.NewString(secret): 1})
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"[redacted]":1}`; string(got) != want {
		t.Errorf("json of a key = %s, want %s", got, want)
	}
}

func TestSlog(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"text", "json"} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			var handler slog.Handler = slog.NewTextHandler(&out, nil)
			if format == "json" {
				handler = slog.NewJSONHandler(&out, nil)
			}
			h := newHolder()
			slog.New(handler).Info("message", "text", h.Text, "content", h.Content, "pointer", h.Pointer, "holder", h)
			if got := out.String(); leaks(got) || strings.Count(got, redact.Placeholder) < 4 {
				t.Errorf("log line = %s", got)
			}
		})
	}
}

func TestString(t *testing.T) {
	t.Parallel()
	a, b := redact.NewString(secret), redact.NewString(secret)
	if a != b {
		t.Error("equal secrets differ")
	}
	if redact.NewString("") != (redact.String{}) || (redact.String{}).Reveal() != "" {
		t.Error("the empty secret is not the zero value")
	}
	if !a.Equal(b) || a.Equal(redact.NewString("other")) || a == redact.NewString("other") {
		t.Error("different secrets are equal")
	}
	if a.Reveal() != secret {
		t.Errorf("Reveal() = %q", a.Reveal())
	}
	if a.IsZero() || !(redact.String{}).IsZero() || !redact.NewString("").IsZero() {
		t.Error("IsZero is wrong")
	}
}

func TestBytes(t *testing.T) {
	t.Parallel()
	raw := []byte(secret)
	b := redact.NewBytes(raw)
	if &b.Reveal()[0] != &raw[0] {
		t.Error("NewBytes copies")
	}
	if b.Len() != len(secret) || b.IsZero() || !(redact.Bytes{}).IsZero() {
		t.Error("Len or IsZero is wrong")
	}
	if !b.Equal(redact.NewBytes([]byte(secret))) || b.Equal(redact.NewBytes([]byte("hunter3"))) || b.Equal(redact.Bytes{}) {
		t.Error("Equal is wrong")
	}
	duplicate := b
	duplicate.Wipe()
	if !bytes.Equal(raw, make([]byte, len(secret))) {
		t.Errorf("after Wipe the memory holds %q", raw)
	}
	redact.Bytes{}.Wipe() // nothing to do
}

// leaks looks for the secret as text, in hexadecimal, and as decimal bytes.
func leaks(s string) bool {
	return strings.Contains(s, secret) ||
		strings.Contains(strings.ToLower(s), fmt.Sprintf("%x", secret)) ||
		strings.Contains(s, "104 117") || strings.Contains(s, "0x68, 0x75") ||
		strings.Contains(s, "h u n t") || strings.Contains(s, "U+0068 U+0075")
}
