package store

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"go.uber.org/goleak"

	"github.com/postern-dev/postern/providers/aws/internal/params"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	home    = "eu-west-1"
	account = "111122223333"
	// tokenOf and contentsOf are what no error may hold.
	tokenOf    = "canary-session-token"
	contentsOf = "canary-contents"
)

// memoryAWS answers as Secrets Manager and Parameter Store do, in memory: the
// transport of the SDK's own clients.
type memoryAWS struct {
	mu         sync.Mutex
	secrets    []*memorySecret
	parameters []*memoryParameter
	requests   []request
	// script answers instead, if it returns an answer.
	script func(request) *reply
	// hold is called outside the lock, before the answer.
	hold func(context.Context, request)
	// crossAccount has batches reach other accounts' secrets, which AWS' do not.
	crossAccount bool
	// pageSize is how many entries a page has.
	pageSize int
}

// request is one that AWS got.
type request struct {
	host, region, accessKey, operation string
	header                             http.Header
	body                               body
}

type body struct {
	SecretID         string `json:"SecretId"`
	VersionID        string `json:"VersionId"`
	VersionStage     string
	SecretIDList     []string `json:"SecretIdList"`
	NextToken        string
	MaxResults       int
	Filters          []struct{ Key, Values any }
	ParameterFilters []struct {
		Key, Option string
		Values      []string
	}
	Names          []string
	WithDecryption bool
}

// reply is an answer: of a status other than 200 an error.
type reply struct {
	status        int
	code, message string
	header        http.Header
	raw           string
	answer        any
	err           error
}

func failure(code, message string) *reply { return &reply{status: 400, code: code, message: message} }

func denial(action, on string) *reply {
	return failure("AccessDeniedException", "User: arn:aws:sts::"+account+":assumed-role/app/s is not authorized to perform: "+
		action+" on resource: "+on+" because no identity-based policy allows the "+action+" action")
}

var scope = regexp.MustCompile(`Credential=([^/]+)/\d+/([^/]+)/(\w+)/aws4_request`)

func (m *memoryAWS) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	_, operation, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	got := request{host: r.URL.Host, operation: operation, header: r.Header}
	if s := scope.FindStringSubmatch(r.Header.Get("Authorization")); s != nil {
		got.accessKey, got.region = s[1], s[2]
	}
	if err := json.Unmarshal(raw, &got.body); err != nil {
		return nil, err
	}
	m.mu.Lock()
	m.requests = append(m.requests, got)
	m.mu.Unlock()
	if m.hold != nil {
		m.hold(r.Context(), got)
	}
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.serve(got).response(r)
}

func (r *reply) response(req *http.Request) (*http.Response, error) {
	if r.err != nil {
		return nil, r.err
	}
	raw := []byte(r.raw)
	if r.raw == "" {
		answer := r.answer
		if r.status != http.StatusOK {
			answer = map[string]string{"__type": "com.amazonaws#" + r.code, "message": r.message}
		}
		var err error
		if raw, err = json.Marshal(answer); err != nil {
			return nil, err
		}
	}
	header := http.Header{"Content-Type": {"application/x-amz-json-1.1"}}
	maps.Copy(header, r.header)
	return &http.Response{
		StatusCode: r.status, Status: http.StatusText(r.status), Header: header, Request: req,
		Body: io.NopCloser(bytes.NewReader(raw)), ContentLength: int64(len(raw)),
	}, nil
}

func (m *memoryAWS) serve(r request) *reply {
	if m.script != nil {
		if scripted := m.script(r); scripted != nil {
			return scripted
		}
	}
	switch r.operation {
	case "GetSecretValue":
		return m.getSecretValue(r.body)
	case "BatchGetSecretValue":
		return m.batchGetSecretValue(r.body)
	case "DescribeSecret":
		return m.describeSecret(r.body)
	case "ListSecrets":
		return m.listSecrets(r.body)
	case "GetParameters":
		return m.getParameters(r.body)
	case "DescribeParameters":
		return m.describeParameters(r.body)
	default:
		return failure("UnknownOperationException", "")
	}
}

// operations counts the requests since the last call, such as "GetSecretValue:2".
func (m *memoryAWS) operations() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	count := make(map[string]int)
	for _, r := range m.requests {
		count[r.operation]++
	}
	m.requests = nil
	var texts []string
	for _, operation := range slices.Sorted(maps.Keys(count)) {
		texts = append(texts, fmt.Sprintf("%s:%d", operation, count[operation]))
	}
	return strings.Join(texts, " ")
}

// store returns a Store of this AWS. Its own credentials are nobody's.
func (m *memoryAWS) store() *Store {
	return New(Config{AWS: aws.Config{
		HTTPClient:  &http.Client{Transport: m},
		Credentials: credentials.NewStaticCredentialsProvider("AKIAPROVIDER", "powerful", ""),
		Region:      "us-east-1",
	}})
}

// as is the home region for an identity.
func as(identity string) Region { return inRegion(home, identity) }

func inRegion(name, identity string) Region {
	return Region{Name: name, Identity: identity, Credentials: credentials.NewStaticCredentialsProvider("ASIA"+identity, "key", tokenOf)}
}

// current is a secret with one version, in the stage AWSCURRENT.
func current(name string) *memorySecret {
	return &memorySecret{account: account, name: name, versions: []memoryVersion{
		{id: versionOf(name), stages: []string{"AWSCURRENT"}, contents: contentsOf + " " + name},
	}}
}

func versionOf(name string) string {
	return strings.Repeat("0", 32-min(32, len(name))) + name
}

func secretRef(id string) Ref {
	return Ref{Service: params.SecretsManager, Source: params.Source{ID: id}}
}

func parameterRef(id string) Ref {
	return Ref{Service: params.ParameterStore, Source: params.Source{ID: id}}
}

func (r Ref) version(v string) Ref { r.Version = v; return r }

func (r Ref) label(l string) Ref { r.Label = l; return r }
