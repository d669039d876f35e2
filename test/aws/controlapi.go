package aws

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/postern-dev/postern/test/aws/control"
	"github.com/postern-dev/postern/test/aws/iam"
)

// maxControl is more than any document may have.
const maxControl = 16 << 20

// errAbsent says that there is nothing to delete.
var errAbsent = errors.New("there is no such thing")

// controlHandler serves the control API.
func (s *Server) controlHandler() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, do func(*http.Request) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			answer, err := do(r)
			sendControl(w, answer, err)
		})
	}
	remove := func(pattern string, do func(query func(string) string) bool) {
		handle(pattern, func(r *http.Request) (any, error) {
			if !do(r.URL.Query().Get) {
				return nil, errAbsent
			}
			return struct{}{}, nil
		})
	}
	done := func(do func()) func(*http.Request) (any, error) {
		return func(*http.Request) (any, error) { do(); return struct{}{}, nil }
	}
	handle("POST /apply", s.postApply)
	handle("POST /credentials", s.postCredentials)
	handle("POST /expire", s.postExpire)
	handle("POST /reset", done(s.reset))
	handle("GET /addresses", func(*http.Request) (any, error) { return s.Addresses, nil })
	handle("GET /calls", func(*http.Request) (any, error) { return map[string]any{"calls": s.record.allCalls()}, nil })
	handle("GET /requests", func(*http.Request) (any, error) { return map[string]any{"requests": s.record.allRequests()}, nil })
	handle("GET /violations", func(*http.Request) (any, error) { return map[string]any{"violations": s.record.allViolations()}, nil })
	handle("DELETE /calls", done(s.record.resetCalls))
	handle("DELETE /violations", done(s.record.resetViolations))
	handle("DELETE /faults", done(s.faults.clear))
	remove("DELETE /secrets", func(q func(string) string) bool { return s.secrets.Delete(q("account"), q("region"), q("name")) })
	remove("DELETE /parameters", func(q func(string) string) bool { return s.params.Delete(q("account"), q("region"), q("name")) })
	remove("DELETE /roles", func(q func(string) string) bool { return s.directory.DeleteRole(q("arn")) })
	remove("DELETE /sessions", func(q func(string) string) bool { return s.directory.Forget(q("role")) > 0 })
	remove("DELETE /associations", func(q func(string) string) bool {
		return s.directory.DeleteAssociation(q("namespace"), q("serviceAccount"))
	})
	return mux
}

func sendControl(w http.ResponseWriter, answer any, err error) {
	status := http.StatusOK
	switch {
	case errors.Is(err, errAbsent):
		status = http.StatusNotFound
	case err != nil:
		status = http.StatusBadRequest
	}
	if err != nil {
		answer = map[string]string{"error": err.Error()}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(answer) // a client that is gone needs no answer
}

func readControl(r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxControl))
	if err != nil {
		return nil, fmt.Errorf("read the request: %w", err)
	}
	return body, nil
}

func readLogin(r *http.Request, l *control.Login) error {
	body, err := readControl(r)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, l); err != nil {
		return fmt.Errorf("read the request: %w", err)
	}
	return nil
}

func (s *Server) postApply(r *http.Request) (any, error) {
	body, err := readControl(r)
	if err != nil {
		return nil, err
	}
	d, err := control.ReadDocument(body)
	if err != nil {
		return nil, err
	}
	return s.Apply(d)
}

// Apply puts what a document holds, in the order of its fields. It stops at the
// first error.
func (s *Server) Apply(d control.Document) (control.Applied, error) {
	if d.PageSize != nil {
		s.secrets.SetPageSize(*d.PageSize)
		s.params.SetPageSize(*d.PageSize)
	}
	var applied control.Applied
	for _, put := range []func() error{
		func() error { return each(d.Issuers, s.verifier.Put) },
		func() error { return each(d.Roles, s.directory.PutRole) },
		func() error {
			return each(d.Users, func(u control.User) error { return s.directory.PutUser(u, s.cfg.Account) })
		},
		func() error { return each(d.Associations, s.directory.PutAssociation) },
		func() error { return each(d.Faults, s.faults.add) },
		func() error { return collect(d.Secrets, s.secrets.Apply, &applied.Secrets) },
		func() error { return collect(d.Parameters, s.params.Apply, &applied.Parameters) },
	} {
		if err := put(); err != nil {
			return control.Applied{}, err
		}
	}
	return applied, nil
}

func each[T any](all []T, do func(T) error) error {
	for _, one := range all {
		if err := do(one); err != nil {
			return err
		}
	}
	return nil
}

// collect puts all and notes what was made of them.
func collect[T, M any](all []T, do func(T) (M, error), made *[]M) error {
	return each(all, func(one T) error {
		m, err := do(one)
		*made = append(*made, m)
		return err
	})
}

func (s *Server) postCredentials(r *http.Request) (any, error) {
	l := control.Login{Session: "session", Lifetime: control.Duration(iam.DefaultMaxSession)}
	if err := readLogin(r, &l); err != nil {
		return nil, err
	}
	made, _, err := s.directory.NewSession(iam.Login{Role: l.Role, Session: l.Session, Lifetime: time.Duration(l.Lifetime)})
	return made, err
}

func (s *Server) postExpire(r *http.Request) (any, error) {
	var l control.Login
	if err := readLogin(r, &l); err != nil {
		return nil, err
	}
	if s.directory.Expire(l.Role) == 0 {
		return nil, errAbsent
	}
	return struct{}{}, nil
}

func (s *Server) reset() {
	s.faults.clear()
	s.directory.Reset()
	s.secrets.Reset()
	s.params.Reset()
	s.record.resetCalls()
	s.record.resetViolations()
}
