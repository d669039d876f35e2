package vault

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
)

// recorder is a proxy before the server that counts what passes.
type recorder struct {
	*httptest.Server
	mu     sync.Mutex
	calls  map[string]int
	tokens []string // in the order of first use
	// fail answers instead of the server, if it returns true.
	fail func(w http.ResponseWriter, r *http.Request) bool
}

func record(t *testing.T, b *bao) *recorder {
	t.Helper()
	target, err := url.Parse(b.address)
	if err != nil {
		t.Fatal(err)
	}
	rec := &recorder{calls: make(map[string]int)}
	proxy := &httputil.ReverseProxy{
		Rewrite:  func(r *httputil.ProxyRequest) { r.SetURL(target) },
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
	rec.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec.mu.Lock()
		rec.calls[r.Method+" "+strings.TrimPrefix(r.URL.Path, "/v1/")]++
		token := r.Header.Get("X-Vault-Token")
		if token != "" && !contains(rec.tokens, token) {
			rec.tokens = append(rec.tokens, token)
		}
		fail := rec.fail
		rec.mu.Unlock()
		if fail != nil && fail(w, r) {
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(rec.Close)
	return rec
}

func contains(list []string, text string) bool {
	for _, l := range list {
		if l == text {
			return true
		}
	}
	return false
}

func (r *recorder) count(call string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.calls[call]
}

func (r *recorder) seen() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.tokens...)
}

func (r *recorder) failing(fail func(w http.ResponseWriter, r *http.Request) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fail = fail
}
