package gcp

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/postern-dev/postern/test/double"
	"github.com/postern-dev/postern/test/double/tunnel"
	"github.com/postern-dev/postern/test/gcp/api"
	"github.com/postern-dev/postern/test/gcp/control"
	"github.com/postern-dev/postern/test/gcp/iam"
)

// controlHandler serves the control API.
func (s *Server) controlHandler() http.Handler {
	a := double.NewAPI()
	a.Handle("POST /apply", s.postApply)
	a.Handle("POST /token", s.postToken)
	a.Handle("POST /revoke", s.postRevoke)
	a.Handle("POST /connections/close", s.postConnections(func(t *tunnel.Tunnel) { _ = t.Close() }))
	a.Handle("POST /connections/freeze", s.postConnections((*tunnel.Tunnel).Freeze))
	a.Do("POST /reset", s.reset)
	a.Get("/addresses", func() any { return s.Addresses })
	a.Get("/ca", func() any { return map[string]string{"pem": s.CA()} })
	a.Get("/calls", func() any { return map[string]any{"calls": s.calls()} })
	a.Get("/requests", func() any { return map[string]any{"requests": s.record.Requests()} })
	a.Get("/violations", func() any { return map[string]any{"violations": s.record.Violations()} })
	a.Do("DELETE /calls", s.record.ResetCalls)
	a.Do("DELETE /violations", s.record.ResetViolations)
	a.Do("DELETE /faults", s.faults.Clear)
	a.Remove("DELETE /secrets", func(q func(string) string) bool { return s.secrets.Delete(q("name")) })
	a.Remove("DELETE /parameters", func(q func(string) string) bool { return s.parameters.Delete(q("name")) })
	a.Remove("DELETE /serviceaccounts", func(q func(string) string) bool { return s.directory.DeleteServiceAccount(q("email")) })
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
		if err := s.secrets.SetPageSize(*d.PageSize); err != nil {
			return control.Applied{}, err
		}
	}
	if d.TokenLifetime != nil {
		s.directory.SetLifetime(time.Duration(*d.TokenLifetime))
	}
	if d.Metadata != nil {
		s.metadata.Put(*d.Metadata)
	}
	var applied control.Applied
	for _, put := range []func() error{
		func() error { return double.Each(d.Issuers, s.verifier.Put) },
		func() error { return double.Each(d.Projects, s.directory.PutProject) },
		func() error {
			return double.Collect(d.ServiceAccounts, s.directory.PutServiceAccount, &applied.ServiceAccounts)
		},
		func() error { return double.Each(d.Pools, s.exchange.PutPool) },
		func() error { return double.Each(d.Bindings, s.directory.PutBinding) },
		func() error { return double.Collect(d.Secrets, s.secrets.Put, &applied.Secrets) },
		func() error { return double.Collect(d.Parameters, s.parameters.Put, &applied.Parameters) },
		func() error { return double.Each(d.Faults, s.addFault) },
	} {
		if err := put(); err != nil {
			return control.Applied{}, err
		}
	}
	return applied, nil
}

func (s *Server) addFault(f control.Fault) error {
	kinds := []string{
		control.Throttle, control.ErrorAnswer, control.Unavailable, control.Hang, control.Close, control.Garbage, control.Latency,
		control.Unresolved, control.Corrupt, control.NoChecksum,
	}
	oauth := []string{control.STS, control.SecureToken, control.OAuth2, control.MetadataServer}
	_, known := api.ParseCode(f.Code)
	switch {
	case !slices.Contains(kinds, f.Kind):
		return fmt.Errorf("fault: unknown kind %q, want one of %v", f.Kind, kinds)
	case f.Kind == control.ErrorAnswer && f.Code == "":
		return errors.New("fault: kind error needs a code")
	case f.Kind == control.ErrorAnswer && !known && !slices.Contains(oauth, f.Service):
		return fmt.Errorf("fault: unknown code %q", f.Code)
	case f.Kind == control.Unresolved && f.Service != control.Proxy:
		return errors.New("fault: kind unresolved is for service proxy")
	case (f.Kind == control.Corrupt || f.Kind == control.NoChecksum) && (f.Service != control.SecretManager || f.Operation != control.Access):
		return fmt.Errorf("fault: kind %s is for operation access of secretmanager", f.Kind)
	case f.Service == control.Proxy && slices.Contains([]string{control.Throttle, control.ErrorAnswer, control.Unavailable, control.Garbage}, f.Kind):
		return fmt.Errorf("fault: kind %q is not for service proxy", f.Kind)
	}
	s.faults.Add(f)
	return nil
}

func (s *Server) postToken(r *http.Request) (any, error) {
	t := control.TokenRequest{Scopes: []string{iam.CloudPlatform}, Lifetime: control.Duration(time.Hour)}
	if err := double.Read(r, &t); err != nil {
		return nil, err
	}
	members := []string{t.Principal}
	if strings.Contains(t.Principal, "@") {
		members = []string{"serviceAccount:" + t.Principal}
	} else if !strings.HasPrefix(t.Principal, "principal://") {
		return nil, errors.New("a token needs a principal: an email, or principal://")
	}
	raw, issued := s.directory.Issue(iam.Token{Principal: t.Principal, Members: members, Scopes: t.Scopes, Lifetime: time.Duration(t.Lifetime)})
	return control.AccessToken{AccessToken: raw, Expires: issued.Expires}, nil
}

func (s *Server) postRevoke(r *http.Request) (any, error) {
	var t control.TokenRequest
	if err := double.Read(r, &t); err != nil {
		return nil, err
	}
	s.directory.Revoke(t.Principal)
	return struct{}{}, nil
}

func (s *Server) postConnections(do func(*tunnel.Tunnel)) func(*http.Request) (any, error) {
	return func(r *http.Request) (any, error) {
		var c control.Connections
		if err := double.Read(r, &c); err != nil {
			return nil, err
		}
		return control.Connected{Count: s.tunnels.Each(c.Host, do)}, nil
	}
}

func (s *Server) reset() {
	s.faults.Clear()
	s.directory.Reset()
	s.exchange.Reset()
	s.metadata.Put(control.Metadata{})
	s.secrets.Reset()
	s.parameters.Reset()
	s.record.ResetCalls()
	s.record.ResetViolations()
}
