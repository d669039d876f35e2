package aws

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strconv"

	"github.com/postern-dev/postern/test/aws/api"
	"github.com/postern-dev/postern/test/aws/control"
	"github.com/postern-dev/postern/test/aws/models"
)

// writer encodes an answer, or an error, in a protocol.
type writer func(e *exchange, answer api.Answer, failure *api.Error) (contentType string, body []byte, err error)

// injectedError is one that a fault brings about. It need not be in any model.
type injectedError struct {
	answer     *api.Error
	retryAfter int
}

func (e *injectedError) Error() string { return "injected: " + e.answer.Error() }

func (e *injectedError) Unwrap() error { return e.answer }

// errAnswered says that a fault has answered already, or not at all.
var errAnswered = errors.New("a fault has answered")

// finish records the exchange and sends the answer, after a look at whether AWS'
// model would have it.
func (s *Server) finish(w http.ResponseWriter, e *exchange, answer api.Answer, err error) {
	status, failure := http.StatusOK, (*api.Error)(nil)
	var injected *injectedError
	if err != nil {
		failure = api.FromError(err)
		status = failure.Status
		if errors.As(err, &injected) && injected.retryAfter > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(injected.retryAfter))
		}
	}
	contentType, body, err := e.write(e, answer, failure)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if injected == nil && e.model != nil {
		s.checkAnswer(e, answer, failure)
	}
	s.note(e, status, failure)
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("X-Amzn-Requestid", requestID())
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that is gone needs no answer
}

func (s *Server) checkAnswer(e *exchange, answer api.Answer, failure *api.Error) {
	if failure != nil {
		members := map[string]any{}
		if name := messageMember(e, failure.Code); name != "" {
			members[name] = failure.Message
		}
		s.record.violation(e, "answer", e.model.CheckError(e.operation, failure.Code, members)...)
		return
	}
	document, err := plain(answer)
	if err != nil {
		s.record.violation(e, "answer", models.Violation{Problem: err.Error()})
		return
	}
	s.record.violation(e, "answer", e.model.CheckOutput(e.operation, document)...)
}

// note records a request that is answered, or is not going to be.
func (s *Server) note(e *exchange, status int, failure *api.Error) {
	q := control.Request{
		Service: e.service, Operation: e.operation, Region: e.region, Role: e.role, Session: e.session,
		AccessKeyID: e.accessKey, Items: e.items, Status: status,
	}
	if failure != nil {
		q.Code = failure.Code
	}
	s.record.Request(q)
	s.cfg.Logger.Debug("request", slog.String("service", q.Service), slog.String("operation", q.Operation),
		slog.String("region", q.Region), slog.String("role", q.Role), slog.String("code", q.Code))
}

// plain is an answer as it is on the wire.
func plain(answer api.Answer) (any, error) {
	encoded, err := json.Marshal(answer)
	if err != nil {
		return nil, fmt.Errorf("encode the answer: %w", err)
	}
	decoder := json.NewDecoder(bytes.NewReader(encoded))
	decoder.UseNumber()
	var document any
	if err := decoder.Decode(&document); err != nil {
		return nil, fmt.Errorf("decode the answer: %w", err)
	}
	return document, nil
}

// messageMember is how an error's model spells its message; "" for not at all.
func messageMember(e *exchange, code string) string {
	var shape *models.Shape
	if e.model != nil {
		shape = e.model.Shapes[code]
	}
	switch {
	case shape == nil && code == "AccessDeniedException":
		return "Message"
	case shape == nil:
		return "message"
	}
	for _, name := range []string{"Message", "message"} {
		if _, ok := shape.Members[name]; ok {
			return name
		}
	}
	return ""
}

// writeJSON is the JSON protocol.
func writeJSON(e *exchange, answer api.Answer, failure *api.Error) (contentType string, body []byte, err error) {
	if failure != nil {
		answer = api.Answer{"__type": failure.Code}
		if name := messageMember(e, failure.Code); name != "" {
			answer[name] = failure.Message
		}
	}
	body, err = json.Marshal(answer)
	return jsonType, body, err
}

// xmlType is the content type of answers of the query protocol.
const xmlType = "text/xml"

// writeXML is the query protocol.
func writeXML(e *exchange, answer api.Answer, failure *api.Error) (contentType string, body []byte, err error) {
	var out bytes.Buffer
	namespace := e.model.Metadata.XMLNamespace
	if failure != nil {
		kind := "Sender"
		if failure.Status >= http.StatusInternalServerError {
			kind = "Receiver"
		}
		_, _ = fmt.Fprintf(&out, "<ErrorResponse xmlns=%q>", namespace)
		err = writeElement(&out, "Error", map[string]any{"Type": kind, "Code": failure.Code, "Message": failure.Message})
		_, _ = fmt.Fprintf(&out, "<RequestId>%s</RequestId></ErrorResponse>", requestID())
		return xmlType, out.Bytes(), err
	}
	document, err := plain(answer)
	if err != nil {
		return "", nil, err
	}
	_, _ = fmt.Fprintf(&out, "<%sResponse xmlns=%q>", e.operation, namespace)
	err = writeElement(&out, e.model.Operations[e.operation].Output.ResultWrapper, document)
	_, _ = fmt.Fprintf(&out, "<ResponseMetadata><RequestId>%s</RequestId></ResponseMetadata></%sResponse>", requestID(), e.operation)
	return xmlType, out.Bytes(), err
}

func writeElement(out *bytes.Buffer, name string, value any) error {
	_, _ = fmt.Fprintf(out, "<%s>", name)
	members, ok := value.(map[string]any)
	for _, member := range slices.Sorted(maps.Keys(members)) {
		if err := writeElement(out, member, members[member]); err != nil {
			return err
		}
	}
	if !ok {
		if err := xml.EscapeText(out, fmt.Append(nil, value)); err != nil {
			return err
		}
	}
	_, _ = fmt.Fprintf(out, "</%s>", name)
	return nil
}

func requestID() string { return rand.Text() }
