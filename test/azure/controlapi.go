package azure

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/postern-dev/postern/test/azure/control"
	"github.com/postern-dev/postern/test/azure/entra"
	"github.com/postern-dev/postern/test/double"
)

// controlHandler serves the control API.
func (s *Server) controlHandler() http.Handler {
	a := double.NewAPI()
	a.Handle("POST /apply", s.postApply)
	a.Handle("POST /token", s.postToken)
	a.Handle("POST /revoke", s.postRevoke)
	a.Do("POST /reset", s.reset)
	a.Get("/addresses", func() any { return s.Addresses })
	a.Get("/ca", func() any { return map[string]string{"pem": s.CA()} })
	a.Get("/calls", func() any { return map[string]any{"calls": s.calls()} })
	a.Get("/requests", func() any { return map[string]any{"requests": s.record.Requests()} })
	a.Get("/violations", func() any { return map[string]any{"violations": s.record.Violations()} })
	a.Do("DELETE /calls", s.record.ResetCalls)
	a.Do("DELETE /violations", s.record.ResetViolations)
	a.Do("DELETE /faults", s.faults.Clear)
	for _, service := range []string{control.Secrets, control.Keys, control.Certificates} {
		a.Remove("DELETE /"+service, func(q func(string) string) bool { return s.vaults.Delete(service, q("vault"), q("name")) })
	}
	a.Remove("DELETE /vaults", func(q func(string) string) bool { return s.vaults.DeleteVault(q("vault")) })
	a.Remove("DELETE /applications", func(q func(string) string) bool {
		return s.directory.DeleteApplication(q("tenant"), q("clientId"))
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
		if err := s.vaults.SetPageSize(*d.PageSize); err != nil {
			return control.Applied{}, err
		}
	}
	if d.TokenLifetime != nil {
		s.directory.SetLifetime(time.Duration(*d.TokenLifetime))
	}
	s.putTokenProxy(d.TokenProxy)
	var applied control.Applied
	for _, put := range []func() error{
		func() error { return double.Each(d.Issuers, s.verifier.Put) },
		func() error { return double.Each(d.Tenants, s.directory.PutTenant) },
		func() error { return double.Each(d.Applications, s.directory.PutApplication) },
		func() error { return double.Each(d.Identities, s.nodes.Put) },
		func() error { return double.Each(d.PodIdentities, s.nodes.PutPod) },
		func() error { return double.Each(d.Vaults, s.vaults.PutVault) },
		func() error { return double.Each(d.Faults, s.addFault) },
		func() error { return double.Collect(d.Secrets, s.vaults.PutSecret, &applied.Secrets) },
		func() error { return double.Collect(d.Keys, s.vaults.PutKey, &applied.Keys) },
		func() error { return double.Collect(d.Certificates, s.vaults.PutCertificate, &applied.Certificates) },
	} {
		if err := put(); err != nil {
			return control.Applied{}, err
		}
	}
	return applied, nil
}

func (s *Server) addFault(f control.Fault) error {
	kinds := []string{
		control.Throttle, control.ErrorAnswer, control.Unavailable, control.Hang, control.Close, control.Garbage, control.Latency, control.Unresolved,
	}
	switch {
	case !slices.Contains(kinds, f.Kind):
		return fmt.Errorf("fault: unknown kind %q, want one of %v", f.Kind, kinds)
	case f.Kind == control.ErrorAnswer && f.Code == "":
		return errors.New("fault: kind error needs a code")
	case f.Kind == control.Unresolved && f.Service != control.Proxy:
		return errors.New("fault: kind unresolved is for service proxy")
	case f.Service == control.Proxy && slices.Contains([]string{control.Throttle, control.ErrorAnswer, control.Unavailable, control.Garbage}, f.Kind):
		return fmt.Errorf("fault: kind %q is not for service proxy", f.Kind)
	}
	s.faults.Add(f)
	return nil
}

func (s *Server) postToken(r *http.Request) (any, error) {
	t := control.TokenRequest{Resource: "https://vault.azure.net", Lifetime: control.Duration(time.Hour)}
	if err := double.Read(r, &t); err != nil {
		return nil, err
	}
	if t.Tenant == "" || t.ClientID == "" {
		return nil, errors.New("a token needs a tenant and a clientId")
	}
	lifetime := time.Duration(t.Lifetime)
	issued, err := s.directory.Issue(entra.Subject{Tenant: t.Tenant, ClientID: t.ClientID, Resource: t.Resource, Lifetime: &lifetime})
	return control.AccessToken{AccessToken: issued.Token, Expires: issued.Expires}, err
}

func (s *Server) postRevoke(r *http.Request) (any, error) {
	var t control.TokenRequest
	if err := double.Read(r, &t); err != nil {
		return nil, err
	}
	s.directory.Revoke(t.ClientID)
	return struct{}{}, nil
}

func (s *Server) reset() {
	s.faults.Clear()
	s.directory.Reset()
	s.vaults.Reset()
	s.nodes.Reset()
	s.putTokenProxy(&control.TokenProxy{})
	s.record.ResetCalls()
	s.record.ResetViolations()
}
