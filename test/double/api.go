package double

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// maxControl is more than any request of a control API may have.
const maxControl = 16 << 20

// ErrAbsent says that there is nothing to delete.
var ErrAbsent = errors.New("there is no such thing")

// API serves a control API: JSON, and {"error": "..."} for what is refused.
type API struct{ mux *http.ServeMux }

// NewAPI returns one that has nothing yet.
func NewAPI() *API { return &API{mux: http.NewServeMux()} }

// ServeHTTP answers a request.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.mux.ServeHTTP(w, r) }

// Handle adds requests that have an answer.
func (a *API) Handle(pattern string, do func(*http.Request) (any, error)) {
	a.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		answer, err := do(r)
		send(w, answer, err)
	})
}

// Get adds something that can be read.
func (a *API) Get(path string, value func() any) {
	a.Handle("GET "+path, func(*http.Request) (any, error) { return value(), nil })
}

// Do adds requests that only do something.
func (a *API) Do(pattern string, do func()) {
	a.Handle(pattern, func(*http.Request) (any, error) { do(); return struct{}{}, nil })
}

// Remove adds requests that delete what their query names, if it is there.
func (a *API) Remove(pattern string, do func(query func(string) string) bool) {
	a.Handle(pattern, func(r *http.Request) (any, error) {
		if !do(r.URL.Query().Get) {
			return nil, ErrAbsent
		}
		return struct{}{}, nil
	})
}

func send(w http.ResponseWriter, answer any, err error) {
	status := http.StatusOK
	switch {
	case errors.Is(err, ErrAbsent):
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

// Body reads the body of a request of a control API.
func Body(r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxControl))
	if err != nil {
		return nil, fmt.Errorf("read the request: %w", err)
	}
	return body, nil
}

// Read decodes the body of a request of a control API strictly: a member that v
// does not have is an error.
func Read(r *http.Request, v any) error {
	body, err := Body(r)
	if err != nil {
		return err
	}
	if err := Decode(body, v); err != nil {
		return fmt.Errorf("read the request: %w", err)
	}
	return nil
}

// Decode decodes JSON strictly.
func Decode(contents []byte, v any) error {
	decoder := json.NewDecoder(bytes.NewReader(contents))
	decoder.DisallowUnknownFields()
	return decoder.Decode(v)
}

// Each puts all, up to the first error.
func Each[T any](all []T, do func(T) error) error {
	for _, one := range all {
		if err := do(one); err != nil {
			return err
		}
	}
	return nil
}

// Collect puts all and notes what was made of them.
func Collect[T, M any](all []T, do func(T) (M, error), made *[]M) error {
	return Each(all, func(one T) error {
		m, err := do(one)
		if err == nil {
			*made = append(*made, m)
		}
		return err
	})
}
