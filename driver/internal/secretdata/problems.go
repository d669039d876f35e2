package secretdata

import (
	"fmt"
	"strings"

	"github.com/postern-dev/postern/internal/rpc"
)

// maxShown is how many problems a message tells; the field violations have all.
const maxShown = 8

// problems collects what is wrong with one secretObject. No text of it holds
// anything of a file's contents.
type problems struct {
	secret string
	found  []rpc.FieldViolation
}

// add notes what is wrong with a field of the secretObject and what to do.
func (p *problems) add(field, format string, args ...any) {
	p.found = append(p.found, rpc.FieldViolation{
		Field:       p.prefix() + field,
		Description: fmt.Sprintf(format, args...),
	})
}

// prefix is the path of the secretObject in its class.
func (p *problems) prefix() string { return fmt.Sprintf("spec.secretObjects[%.100q].", p.secret) }

// addKey notes what is wrong with the file of which a key is to be made.
func (p *problems) addKey(key string, s source, format string, args ...any) {
	p.add(s.field, "makes key %.100q of file %.100q, which %s", key, s.file.Path, fmt.Sprintf(format, args...))
}

// err does not name the Secret in its text: whoever keeps it does.
func (p *problems) err() error {
	if len(p.found) == 0 {
		return nil
	}
	var message strings.Builder
	message.WriteString("cannot be made: ")
	for i, v := range p.found {
		if i == maxShown {
			fmt.Fprintf(&message, "; and %d more", len(p.found)-i)
			break
		}
		if i > 0 {
			message.WriteString("; ")
		}
		fmt.Fprintf(&message, "%s %s", strings.TrimPrefix(v.Field, p.prefix()), v.Description)
	}
	return &rpc.Error{
		Reason:          rpc.ReasonInvalidParameters,
		Message:         message.String(),
		FieldViolations: p.found,
	}
}
