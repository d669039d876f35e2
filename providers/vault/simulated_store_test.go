package vault

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"
)

// simulated is a store in memory whose logins and leases end as OpenBao's do: a
// lease ends with the login that it was issued with, whoever renews it.
//
// Its answers come without a network, so that hours pass in a moment.
type simulated struct {
	loginTTL, loginMax time.Duration
	leaseTTL, leaseMax time.Duration
	// accessors and revocations say what the policy allows.
	accessors, revocations bool

	mu     sync.Mutex
	down   bool
	value  string
	logins map[string]*span // by token; the accessor is the token with "accessor-" before it
	leases map[string]*span
	calls  map[string]int
	// renewed is when leases were renewed.
	renewed []time.Time
	// answered is called with the path of each answer, before it is known.
	answered func(path string)
}

// span is the life of a login or a lease.
type span struct {
	login        string // a lease's
	begin        time.Time
	end          time.Time
	ttl, maximum time.Duration
}

func (s *span) prolong() time.Duration {
	s.end = time.Now().Add(min(s.ttl, time.Until(s.begin.Add(s.maximum))))
	return time.Until(s.end)
}

func simulate() *simulated {
	return &simulated{
		loginTTL: 20 * time.Minute, loginMax: 768 * time.Hour, leaseTTL: time.Hour, leaseMax: 768 * time.Hour,
		value: "v", logins: make(map[string]*span), leases: make(map[string]*span), calls: make(map[string]int),
	}
}

// RoundTrip implements [http.RoundTripper].
func (s *simulated) RoundTrip(r *http.Request) (*http.Response, error) {
	path := strings.TrimPrefix(r.URL.Path, "/v1/")
	w := s.answer(r, path)
	if s.answered != nil {
		s.answered(path)
	}
	resp := w.Result()
	resp.Request = r
	return resp, nil
}

func (s *simulated) answer(r *http.Request, path string) *httptest.ResponseRecorder {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := httptest.NewRecorder()
	if s.down {
		w.WriteHeader(http.StatusServiceUnavailable)
	} else {
		s.calls[path]++
		s.serve(w, r, path)
	}
	return w
}

func (s *simulated) serve(w http.ResponseWriter, r *http.Request, path string) {
	token := r.Header.Get("X-Vault-Token")
	var body struct {
		LeaseID  string `json:"lease_id"`
		Accessor string `json:"accessor"`
	}
	if r.Body != nil {
		_ = json.NewDecoder(r.Body).Decode(&body)
	}
	lease := s.lease(body.LeaseID)
	switch {
	case path == "auth/kubernetes/login":
		s.login(w)
	case !s.alive(token):
		w.WriteHeader(http.StatusForbidden)
	case path == "auth/token/renew-self":
		s.say(w, map[string]any{"auth": s.auth(token, token)})
	case path == "auth/token/revoke-self":
		s.logins[token].end = time.Now()
	case path == "auth/token/renew-accessor":
		if named := strings.TrimPrefix(body.Accessor, "accessor-"); s.accessors && s.alive(named) {
			s.say(w, map[string]any{"auth": s.auth(named, "")})
			return
		}
		w.WriteHeader(http.StatusForbidden)
	case strings.HasPrefix(path, "sys/leases/") && lease == nil:
		w.WriteHeader(http.StatusBadRequest)
	case path == "sys/leases/lookup":
		s.say(w, map[string]any{"data": map[string]any{"ttl": int(time.Until(lease.end).Seconds()), "renewable": true}})
	case path == "sys/leases/renew":
		s.renewed = append(s.renewed, time.Now())
		s.say(w, map[string]any{"lease_id": body.LeaseID, "lease_duration": int(lease.prolong().Seconds()), "renewable": true})
	case path == "sys/leases/revoke" && s.revocations:
		delete(s.leases, body.LeaseID)
	case path == "database/creds/app":
		s.issue(w, token)
	case path == "pki/issue/web":
		serial := s.calls[path]
		s.say(w, map[string]any{"data": map[string]any{
			"certificate": fmt.Sprintf("certificate-%d", serial), "expiration": time.Now().Add(s.leaseTTL).Unix(),
		}})
	case path == "kv/app":
		s.say(w, map[string]any{"data": map[string]any{"k": s.value}})
	default:
		w.WriteHeader(http.StatusForbidden)
	}
}

func (s *simulated) login(w http.ResponseWriter) {
	token := fmt.Sprintf("login-%d", len(s.logins))
	s.logins[token] = &span{begin: time.Now(), ttl: s.loginTTL, maximum: s.loginMax}
	s.say(w, map[string]any{"auth": s.auth(token, token)})
}

// auth renews a token and says so to somebody who gets to see it, or not.
func (s *simulated) auth(token, shown string) map[string]any {
	ttl := s.logins[token].prolong()
	return map[string]any{
		"client_token": shown, "accessor": "accessor-" + token, "lease_duration": int(ttl.Seconds()), "renewable": true,
	}
}

func (s *simulated) issue(w http.ResponseWriter, token string) {
	id := fmt.Sprintf("database/creds/app/%d", s.calls["database/creds/app"])
	lease := &span{login: token, begin: time.Now(), ttl: s.leaseTTL, maximum: s.leaseMax}
	s.leases[id] = lease
	s.say(w, map[string]any{
		"lease_id": id, "lease_duration": int(lease.prolong().Seconds()), "renewable": true,
		"data": map[string]any{"username": "user-" + id, "password": "password-of-" + id},
	})
}

func (s *simulated) say(w http.ResponseWriter, body map[string]any) {
	_ = json.NewEncoder(w).Encode(body)
}

func (s *simulated) alive(token string) bool {
	login, ok := s.logins[token]
	return ok && time.Now().Before(login.end)
}

// lease returns a lease that lives.
func (s *simulated) lease(id string) *span {
	lease, ok := s.leases[id]
	if !ok || !time.Now().Before(lease.end) || !s.alive(lease.login) {
		return nil
	}
	return lease
}

func (s *simulated) count(path string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[path]
}

// lives reports whether a password that was issued is still good.
func (s *simulated) lives(password string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lease(strings.TrimPrefix(password, "password-of-")) != nil
}

func (s *simulated) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}
