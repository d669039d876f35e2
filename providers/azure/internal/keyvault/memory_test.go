package keyvault

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"go.uber.org/goleak"

	"github.com/postern-dev/postern/providers/azure/internal/params"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	vaultURL = "https://kv.vault.azure.net/"
	// tokenOf and contentsOf are what no error may hold.
	tokenOf    = "canary-token-of-"
	contentsOf = "canary-contents-of-"
)

// version is one of an object in memory.
type version struct {
	id       string
	created  time.Time
	disabled bool
}

// object is one in memory: of a type, with versions in any order.
type object struct {
	kind     params.ObjectType
	name     string
	tags     map[string]*string
	versions []version
}

func (o *object) newest() version {
	return slices.MaxFunc(o.versions, func(a, b version) int { return a.created.Compare(b.created) })
}

// memoryVault answers as vaults do, in memory: the transport of the SDK's own
// clients. Successful answers, pages and challenges come from the fakes of
// Microsoft's generator.
type memoryVault struct {
	mu       sync.Mutex
	objects  []*object
	requests []request
	// script answers instead, if it returns an answer. It is called with mu held.
	script func(request) *reply
	// hold is called outside the lock, before the answer.
	hold func(context.Context, request)
	// pageSize is how many entries a page has; 0: all.
	pageSize int
	fakes    map[string]policy.Transporter
	// lists is held for a request for a page: a fake keeps one place in each list,
	// whoever asks. At a time there may be several lists of one page alone.
	lists sync.Mutex
}

// request is one that a vault got.
type request struct {
	host, collection, operation, name, version, token string
}

// String is challenge for a request without a token, or else the permission.
func (r request) String() string {
	if r.token == "" {
		return r.collection + "/challenge"
	}
	return r.collection + "/" + r.operation
}

// reply is an answer of the script.
type reply struct {
	status int
	header http.Header
	body   string
	err    error
}

// failure is an error as vaults give it.
func failure(status int, code, inner string) *reply {
	body := fmt.Sprintf(`{"error":{"code":%q,"message":"text of %s\r\nsecond line"}}`, code, code)
	if inner != "" {
		body = fmt.Sprintf(`{"error":{"code":%q,"message":"text of %s","innererror":{"code":%q}}}`, code, code, inner)
	}
	return &reply{status: status, body: body}
}

func (m *memoryVault) Do(r *http.Request) (*http.Response, error) {
	got := requestOf(r)
	m.mu.Lock()
	m.requests = append(m.requests, got)
	var scripted *reply
	if m.script != nil {
		scripted = m.script(got)
	}
	if scripted == nil && got.token != "" {
		scripted = m.refusal(got)
	}
	server := m.server(got.collection)
	m.mu.Unlock()
	if m.hold != nil {
		m.hold(r.Context(), got)
	}
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	if scripted == nil {
		if got.operation != "get" {
			m.lists.Lock()
			defer m.lists.Unlock()
		}
		// The fakes of two of the types panic when a request's context ends.
		return server.Do(r.WithContext(context.WithoutCancel(r.Context())))
	}
	if scripted.err != nil {
		return nil, scripted.err
	}
	header := scripted.header
	if header == nil {
		header = http.Header{}
	}
	return &http.Response{
		StatusCode: scripted.status, Status: http.StatusText(scripted.status), Header: header.Clone(), Request: r,
		Body: io.NopCloser(strings.NewReader(scripted.body)),
	}, nil
}

func requestOf(r *http.Request) request {
	segments := append(strings.Split(strings.Trim(r.URL.Path, "/"), "/"), "", "")
	got := request{
		host: r.URL.Host, collection: segments[0], name: segments[1],
		token: strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "),
	}
	method, _ := r.Context().Value(runtime.CtxAPINameKey{}).(string)
	switch {
	case strings.HasSuffix(method, "VersionsPager"):
		got.operation = "versions"
	case strings.HasSuffix(method, "Pager"):
		got.operation, got.name = "list", ""
	default:
		got.operation, got.version = "get", segments[2]
	}
	return got
}

// refusal is the answer for what is not there, or is disabled.
func (m *memoryVault) refusal(r request) *reply {
	if r.operation != "get" {
		return nil
	}
	kinds := map[string]string{"secrets": "Secret", "keys": "Key", "certificates": "Certificate"}
	o, v := m.find(r)
	switch {
	case o == nil:
		return failure(http.StatusNotFound, kinds[r.collection]+"NotFound", "")
	case v.disabled:
		return failure(http.StatusForbidden, "Forbidden", kinds[r.collection]+"Disabled")
	}
	return nil
}

func (m *memoryVault) find(r request) (*object, version) {
	for _, o := range m.objects {
		if collection(o.kind) != r.collection || !strings.EqualFold(o.name, r.name) {
			continue
		}
		if r.version == "" {
			return o, o.newest()
		}
		for _, v := range o.versions {
			if v.id == r.version {
				return o, v
			}
		}
	}
	return nil, version{}
}

// server returns Microsoft's fake of a collection, which answers with what is there.
func (m *memoryVault) server(collection string) policy.Transporter {
	if m.fakes == nil {
		m.fakes = map[string]policy.Transporter{"secrets": m.secrets(), "keys": m.keys(), "certificates": m.certificates()}
	}
	return m.fakes[collection]
}

// operations counts the requests since the last call.
func (m *memoryVault) operations() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	counts := make(map[string]int)
	for _, r := range m.requests {
		counts[r.String()]++
	}
	m.requests = nil
	var all []string
	for _, operation := range slices.Sorted(maps.Keys(counts)) {
		all = append(all, fmt.Sprint(operation, "=", counts[operation]))
	}
	return strings.Join(all, " ")
}

func (m *memoryVault) store(options ...func(*Config)) *Store {
	cfg := Config{ClientOptions: azcore.ClientOptions{Transport: m}}
	for _, option := range options {
		option(&cfg)
	}
	return New(cfg)
}

// login gives the token of one identity for one tenant and scope, as those of the
// package that logs in do.
type login struct {
	identity string
	tenant   string // "": any
}

// otherTenantError is a credential's own.
type otherTenantError struct{ asked string }

func (e *otherTenantError) Error() string { return "the vault belongs to tenant " + e.asked }

func (l login) GetToken(_ context.Context, opts policy.TokenRequestOptions) (azcore.AccessToken, error) {
	if l.tenant != "" && opts.TenantID != l.tenant {
		return azcore.AccessToken{}, &otherTenantError{opts.TenantID}
	}
	if len(opts.Scopes) != 1 || opts.Scopes[0] != "https://vault.azure.net/.default" {
		return azcore.AccessToken{}, errors.New("another scope")
	}
	return azcore.AccessToken{Token: tokenOf + l.identity, ExpiresOn: time.Now().Add(time.Hour)}, nil
}

// as is the vault, as one identity.
func as(identity string) Vault {
	return Vault{URL: vaultURL, Identity: identity, Credential: login{identity: identity}}
}

// day is a time on a day of a year long ago.
func day(n int) time.Time { return time.Date(2020, 1, n, 0, 0, 0, 0, time.UTC) }

// current is an object with one version.
func current(kind params.ObjectType, name string) *object {
	return &object{kind: kind, name: name, versions: []version{{id: "v1", created: day(1)}}}
}

func secret(name string) Ref { return Ref{Type: params.Secret, Name: name} }

// one reads one ref, which must be there.
func one(t *testing.T, s *Store, vault Vault, ref Ref) Object {
	t.Helper()
	answers, err := s.Read(t.Context(), vault, []Ref{ref})
	if err != nil {
		t.Fatal(err)
	}
	if answers[0].Err != nil || len(answers[0].Objects) != 1 {
		t.Fatalf("%v: %v and %d objects", ref, answers[0].Err, len(answers[0].Objects))
	}
	return answers[0].Objects[0]
}

// refused reads one ref, which must fail with an Error.
func refused(t *testing.T, s *Store, vault Vault, ref Ref) *Error {
	t.Helper()
	answers, err := s.Read(t.Context(), vault, []Ref{ref})
	if err != nil {
		t.Fatal(err)
	}
	return asError(t, answers[0].Err)
}

// asError checks that an error is an Error with nothing in it that is secret.
func asError(t *testing.T, err error) *Error {
	t.Helper()
	e, ok := errors.AsType[*Error](err)
	if !ok {
		t.Fatalf("not an Error: %v", err)
	}
	for _, text := range []string{e.Error(), fmt.Sprintf("%v %+v %#v", e, e, e), fmt.Sprint(e.Err)} {
		if strings.Contains(text, "canary") {
			t.Errorf("an error holds a secret: %s", text)
		}
	}
	if e.Message == "" || strings.ContainsAny(e.Message, "\r\n") || !utf8.ValidString(e.Message) {
		t.Errorf("a message that is empty, has lines or is no text: %q", e.Message)
	}
	return e
}
