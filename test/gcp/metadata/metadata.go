// Package metadata answers as the metadata server of a node does.
package metadata

import (
	"cmp"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/postern-dev/postern/test/gcp/api"
	"github.com/postern-dev/postern/test/gcp/control"
	"github.com/postern-dev/postern/test/gcp/iam"
)

const (
	root     = "/computeMetadata/v1/"
	accounts = "instance/service-accounts/"
	flavor   = "Metadata-Flavor"
	google   = "Google"
)

// Server knows what there is to tell of the node.
type Server struct {
	directory *iam.Directory

	mu   sync.Mutex
	node control.Metadata
}

// New returns one that knows nothing.
func New(directory *iam.Directory) *Server { return &Server{directory: directory} }

// Put says what there is to tell.
func (s *Server) Put(m control.Metadata) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.node = m
}

// Identify notes in a call what it asks for.
func (*Server) Identify(c *api.Call) {
	c.Operation, _ = strings.CutPrefix(c.HTTP.URL.Path, root)
}

// Serve answers a call.
func (s *Server) Serve(c *api.Call) api.Answer {
	if c.HTTP.URL.Path == "/" { // clients look whether there is a metadata server
		return answer(http.StatusOK, "computeMetadata/\n")
	}
	switch {
	case c.HTTP.Method != http.MethodGet:
		c.Violate("the metadata server is asked with " + c.HTTP.Method)
		return answer(http.StatusMethodNotAllowed, "Method not allowed")
	case c.HTTP.Header.Get(flavor) != google:
		c.Violate("there is no header " + flavor + ": " + google)
		return answer(http.StatusForbidden, "Missing required header \"Metadata-Flavor\": \"Google\"")
	case c.HTTP.Header.Get("X-Forwarded-For") != "" || c.HTTP.Header.Get("Authorization") != "":
		c.Violate("a header that the metadata server refuses")
		return answer(http.StatusForbidden, "Forbidden")
	}
	s.mu.Lock()
	node := s.node
	s.mu.Unlock()
	if rest, ok := strings.CutPrefix(c.Operation, accounts); ok {
		return s.account(c, node, rest)
	}
	value := map[string]string{
		"project/project-id": node.Project, "project/numeric-project-id": s.number(node),
		"instance/attributes/cluster-name": node.ClusterName, "instance/attributes/cluster-location": node.ClusterLocation,
		"instance/zone":            s.zone(node),
		"universe/universe-domain": cmp.Or(node.UniverseDomain, "googleapis.com"), "universe/universe_domain": cmp.Or(node.UniverseDomain, "googleapis.com"),
	}[c.Operation]
	if value == "" {
		return answer(http.StatusNotFound, "Not found")
	}
	return answer(http.StatusOK, value)
}

func (s *Server) number(node control.Metadata) string {
	if node.Project == "" {
		return ""
	}
	return s.directory.Number(node.Project)
}

func (s *Server) zone(node control.Metadata) string {
	if node.Zone == "" {
		return ""
	}
	return "projects/" + s.number(node) + "/zones/" + node.Zone
}

// account tells of the default service account, or gives its access token.
func (s *Server) account(c *api.Call, node control.Metadata, rest string) api.Answer {
	name, what, _ := strings.Cut(rest, "/")
	t, _, enabled := s.directory.Account(node.ServiceAccount)
	if !enabled || (name != "default" && name != node.ServiceAccount) {
		return answer(http.StatusNotFound, "Not found")
	}
	switch what {
	case "email":
		return answer(http.StatusOK, t.Principal)
	case "scopes":
		return answer(http.StatusOK, iam.CloudPlatform+"\n")
	case "token":
		c.Principal = t.Principal
		t.Scopes = []string{iam.CloudPlatform}
		raw, issued := s.directory.Issue(t)
		a := api.JSON(http.StatusOK, map[string]any{"access_token": raw, "expires_in": int(issued.Lifetime / time.Second), "token_type": "Bearer"})
		a.Header = http.Header{flavor: {google}}
		return a
	default:
		return answer(http.StatusNotFound, "Not found")
	}
}

// answer is one in plain text.
func answer(status int, text string) api.Answer {
	a := api.Answer{Status: status, ContentType: "application/text", Header: http.Header{flavor: {google}}, Body: []byte(text)}
	if status != http.StatusOK {
		a.Code, a.ContentType = http.StatusText(status), "text/html; charset=UTF-8"
	}
	return a
}

// Injected is the answer that a fault brings about.
func Injected(f control.Fault) api.Answer {
	switch f.Kind {
	case control.Throttle:
		return answer(http.StatusTooManyRequests, cmp.Or(f.Message, "Too many requests"))
	case control.Unavailable:
		return answer(http.StatusServiceUnavailable, cmp.Or(f.Message, "Service unavailable"))
	default:
		a := answer(cmp.Or(f.Status, http.StatusInternalServerError), f.Message)
		a.Code = f.Code
		return a
	}
}
