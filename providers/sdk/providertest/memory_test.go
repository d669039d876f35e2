package providertest

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/postern-dev/postern/providers/sdk"
)

const (
	audience    = "memory.example.com"
	tokenPrefix = "token-0123456789-of-"
)

// store is a store in memory. It outlives the providers before it.
type store struct {
	mu      sync.Mutex
	secrets map[string]string
	down    bool
	hang    chan struct{} // non-nil: calls wait until it is closed
	reached chan struct{}
}

func newStore() *store {
	return &store{secrets: map[string]string{
		"shop/db": "correct horse battery staple", "shop/key": "-----BEGIN KEY-----\nabc\n-----END KEY-----\n",
		"bank/db": "another secret of another tenant",
	}}
}

func (s *store) get(ctx context.Context, name string) (string, error) {
	s.mu.Lock()
	hang, reached, down := s.hang, s.reached, s.down
	value, ok := s.secrets[name]
	s.mu.Unlock()
	if hang != nil {
		select {
		case reached <- struct{}{}:
		default:
		}
		select {
		case <-hang:
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	switch {
	case down:
		return "", sdk.StoreUnavailable("the store is down: wait or repair it")
	case !ok:
		return "", sdk.NotFound(name, "there is no such secret: create it")
	}
	return value, nil
}

func (s *store) set(name, value string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.secrets[name] = value
	return nil
}

func (s *store) setDown(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

func (s *store) hanging() (<-chan struct{}, func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hang, s.reached = make(chan struct{}), make(chan struct{}, 1)
	return s.reached, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		close(s.hang)
		s.hang = nil
	}
}

// provider is a provider of a store, which tests break on purpose.
type provider struct {
	store  *store
	logger *slog.Logger
	breaks breaks
	starts int
	calls  int
	mu     sync.Mutex
	last   *sdk.Response
}

// breaks change what a provider does in one place.
type breaks struct {
	definition func(*sdk.Definition)
	request    func(*provider, *sdk.Request)
	response   func(*provider, *sdk.Request, *sdk.Response) (*sdk.Response, error)
	failure    func(*provider, *sdk.Request, error) error
	release    func(volumeID string) error
	health     error
	deaf       bool // does not notice that the caller leaves
}

type object struct {
	ObjectName     string       `json:"objectName"`
	FilePermission sdk.FileMode `json:"filePermission"`
}

func (p *provider) Fetch(ctx context.Context, req *sdk.Request) (*sdk.Response, error) {
	p.mu.Lock()
	p.calls++
	p.mu.Unlock()
	if p.breaks.request != nil {
		p.breaks.request(p, req)
	}
	if p.breaks.deaf {
		ctx = context.WithoutCancel(ctx)
	}
	resp, err := p.fetch(ctx, req)
	if err != nil {
		if p.breaks.failure != nil {
			err = p.breaks.failure(p, req, err)
		}
		return nil, err
	}
	if p.breaks.response != nil {
		return p.breaks.response(p, req, resp)
	}
	return resp, nil
}

func (p *provider) fetch(ctx context.Context, req *sdk.Request) (*sdk.Response, error) {
	d := sdk.NewDecoder(req.Parameters)
	var objects []object
	d.YAML("objects", &objects)
	if err := d.Err(); err != nil {
		return nil, err
	}
	if len(objects) == 0 {
		d.Violate("objects", "names no secret")
	}
	for i, o := range objects {
		if o.ObjectName == "" {
			d.Violate(fmt.Sprintf("objects[%d].objectName", i), "is required")
		}
	}
	if err := d.Err(); err != nil {
		return nil, err
	}
	token, ok := req.Tokens.For(audience)
	if !ok {
		return nil, sdk.TokenMissing(audience)
	}
	if token.Token.Reveal() != tokenPrefix+req.Pod.Namespace {
		return nil, sdk.LoginFailed("the store does not know the pod's namespace: create a role for it")
	}
	resp := &sdk.Response{Sharing: sdk.SharingServiceAccount, FreshFor: time.Second}
	for _, o := range objects {
		value, err := p.store.get(ctx, req.Pod.Namespace+"/"+o.ObjectName)
		if err != nil {
			return nil, err
		}
		resp.Files = append(resp.Files, sdk.File{
			Path: o.ObjectName, Mode: o.FilePermission.Or(0), Contents: sdk.NewSecret([]byte(value)),
		})
		mac := hmac.New(sha256.New, []byte("key"))
		fmt.Fprintf(mac, "%v %s", o, value)
		resp.Objects = append(resp.Objects, sdk.ObjectVersion{ID: o.ObjectName, Version: hex.EncodeToString(mac.Sum(nil))})
	}
	return resp, nil
}

func (p *provider) Release(_ context.Context, volumeID string) error {
	if p.breaks.release != nil {
		return p.breaks.release(volumeID)
	}
	return nil
}

func (p *provider) Health(context.Context) error { return p.breaks.health }

func validRequest() *sdk.Request {
	return &sdk.Request{
		Pod:        sdk.Pod{Namespace: "shop"},
		Parameters: sdk.Parameters{"objects": "- objectName: db\n- objectName: key\n"},
		Tokens:     sdk.Tokens{{Audience: audience, Token: sdk.NewSecretString(tokenPrefix + "shop")}},
	}
}

func otherRequest() *sdk.Request {
	req := validRequest()
	req.Pod = sdk.Pod{Namespace: "bank", UID: "c0f0a3ce-0000-4000-8000-000000000002"}
	req.Parameters["objects"] = "- objectName: db\n"
	req.Tokens[0].Token = sdk.NewSecretString(tokenPrefix + "bank")
	return req
}

// harness is the harness of a provider with what breaks it.
func harness(b breaks) Harness {
	s := newStore()
	starts := 0
	return Harness{
		Definition: func() sdk.Definition {
			def := sdk.Definition{
				Name: "memory", Version: "1.2.3",
				Audiences:  []sdk.Audience{{Value: audience}},
				Parameters: []sdk.Parameter{{Name: "objects", Description: "YAML list of secrets.", Required: true}},
				New: func(_ context.Context, env sdk.Environment) (sdk.Provider, error) {
					starts++
					return &provider{store: s, logger: env.Logger, breaks: b, starts: starts}, nil
				},
			}
			if b.definition != nil {
				b.definition(&def)
			}
			return def
		},
		Valid: Case{Request: validRequest, Contents: map[string]string{
			"db": s.secrets["shop/db"], "key": s.secrets["shop/key"],
		}},
		Modes: &Case{
			Request: func() *sdk.Request {
				req := validRequest()
				req.Parameters["objects"] = "- objectName: db\n  filePermission: 0440\n- objectName: key\n  filePermission: \"0600\"\n"
				return req
			},
			Modes: modes("db", 0o440, "key", 0o600),
		},
		Pods: []Case{
			{Request: validRequest, Contents: map[string]string{"db": s.secrets["shop/db"], "key": s.secrets["shop/key"]}},
			{Request: otherRequest, Contents: map[string]string{"db": s.secrets["bank/db"]}},
		},
		Mutate: func() error { return s.set("shop/db", "incorrect donkey battery staple") },
		Hang:   s.hanging,
		Errors: []ErrorCase{
			{
				Name: "missing secret", Reason: sdk.ReasonObjectNotFound, Object: "shop/nothing", Message: "create it",
				Request: func(r *sdk.Request) { r.Parameters["objects"] = "- objectName: nothing" },
			},
			{
				Name: "no token", Reason: sdk.ReasonTokenMissing, Message: audience,
				Request: func(r *sdk.Request) { r.Tokens = nil },
			},
			{
				Name: "foreign token", Reason: sdk.ReasonLoginFailed, Message: "create a role",
				Request: func(r *sdk.Request) { r.Pod.Namespace = "bank" },
			},
			{
				Name: "no name", Reason: sdk.ReasonInvalidParameters, Field: "objects[1].objectName", Message: "is required",
				Request: func(r *sdk.Request) { r.Parameters["objects"] = "- objectName: db\n- {}\n" },
			},
			{
				Name: "store down", Reason: sdk.ReasonStoreUnavailable, Message: "repair it",
				Setup: func() (func(), error) { s.setDown(true); return func() { s.setDown(false) }, nil },
			},
		},
	}
}
