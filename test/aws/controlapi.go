package aws

import (
	"net/http"
	"time"

	"github.com/postern-dev/postern/test/aws/control"
	"github.com/postern-dev/postern/test/aws/iam"
	"github.com/postern-dev/postern/test/double"
)

// controlHandler serves the control API.
func (s *Server) controlHandler() http.Handler {
	a := double.NewAPI()
	a.Handle("POST /apply", s.postApply)
	a.Handle("POST /credentials", s.postCredentials)
	a.Handle("POST /expire", s.postExpire)
	a.Do("POST /reset", s.reset)
	a.Get("/addresses", func() any { return s.Addresses })
	a.Get("/calls", func() any { return map[string]any{"calls": s.calls()} })
	a.Get("/requests", func() any { return map[string]any{"requests": s.record.Requests()} })
	a.Get("/violations", func() any { return map[string]any{"violations": s.record.Violations()} })
	a.Do("DELETE /calls", s.record.ResetCalls)
	a.Do("DELETE /violations", s.record.ResetViolations)
	a.Do("DELETE /faults", s.faults.Clear)
	a.Remove("DELETE /secrets", func(q func(string) string) bool { return s.secrets.Delete(q("account"), q("region"), q("name")) })
	a.Remove("DELETE /parameters", func(q func(string) string) bool { return s.params.Delete(q("account"), q("region"), q("name")) })
	a.Remove("DELETE /roles", func(q func(string) string) bool { return s.directory.DeleteRole(q("arn")) })
	a.Remove("DELETE /sessions", func(q func(string) string) bool { return s.directory.Forget(q("role")) > 0 })
	a.Remove("DELETE /associations", func(q func(string) string) bool {
		return s.directory.DeleteAssociation(q("namespace"), q("serviceAccount"))
	})
	return a
}

func (s *Server) postApply(r *http.Request) (any, error) {
	body, err := double.Body(r)
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
		func() error { return double.Each(d.Issuers, s.verifier.Put) },
		func() error { return double.Each(d.Roles, s.directory.PutRole) },
		func() error {
			return double.Each(d.Users, func(u control.User) error { return s.directory.PutUser(u, s.cfg.Account) })
		},
		func() error { return double.Each(d.Associations, s.directory.PutAssociation) },
		func() error { return double.Each(d.Faults, s.addFault) },
		func() error { return double.Collect(d.Secrets, s.secrets.Apply, &applied.Secrets) },
		func() error { return double.Collect(d.Parameters, s.params.Apply, &applied.Parameters) },
	} {
		if err := put(); err != nil {
			return control.Applied{}, err
		}
	}
	return applied, nil
}

func (s *Server) postCredentials(r *http.Request) (any, error) {
	l := control.Login{Session: "session", Lifetime: control.Duration(iam.DefaultMaxSession)}
	if err := double.Read(r, &l); err != nil {
		return nil, err
	}
	made, _, err := s.directory.NewSession(iam.Login{Role: l.Role, Session: l.Session, Lifetime: time.Duration(l.Lifetime)})
	return made, err
}

func (s *Server) postExpire(r *http.Request) (any, error) {
	var l control.Login
	if err := double.Read(r, &l); err != nil {
		return nil, err
	}
	if s.directory.Expire(l.Role) == 0 {
		return nil, double.ErrAbsent
	}
	return struct{}{}, nil
}

func (s *Server) reset() {
	s.faults.Clear()
	s.directory.Reset()
	s.secrets.Reset()
	s.params.Reset()
	s.record.ResetCalls()
	s.record.ResetViolations()
}
