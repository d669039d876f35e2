package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"

	"github.com/postern-dev/postern/providers/gcp/internal/params"
)

// labelled is a Google with secrets that have labels.
func labelled() *memoryGoogle {
	secret := func(location, name string, labels map[string]string) *memorySecret {
		s := secretIn(location, name, 1)
		s.labels = labels
		return s
	}
	return &memoryGoogle{secrets: []*memorySecret{
		secret("", "web-c", map[string]string{"env": "prod", "team": "a"}),
		secret("", "web-a", map[string]string{"env": "prod"}),
		secret("", "db", map[string]string{"env": "prod", "team": "a"}),
		secret("", "web-b", map[string]string{"env": "test"}),
		secret("", "no-web", nil),
		secret("", "web-d", map[string]string{"env": ""}),
		secret("us-east1", "web-us", map[string]string{"env": "prod"}),
	}}
}

func TestList(t *testing.T) {
	t.Parallel()
	prod := map[string]string{"env": "prod"}
	for name, tt := range map[string]struct {
		sel      params.Select
		want     []string
		requests int
	}{
		"by name":         {params.Select{NamePrefix: "web-", Limit: 50}, []string{"web-a", "web-b", "web-c", "web-d"}, 3},
		"by label":        {params.Select{Labels: prod, Limit: 50}, []string{"db", "web-a", "web-c"}, 2},
		"by labels":       {params.Select{Labels: map[string]string{"env": "prod", "team": "a"}, Limit: 50}, []string{"db", "web-c"}, 1},
		"by both":         {params.Select{Labels: prod, NamePrefix: "web-", Limit: 50}, []string{"web-a", "web-c"}, 2},
		"by empty label":  {params.Select{Labels: map[string]string{"env": ""}, Limit: 50}, []string{"web-d"}, 1},
		"none":            {params.Select{NamePrefix: "x", Limit: 50}, nil, 3},
		"none labelled":   {params.Select{Labels: map[string]string{"env": "x"}, Limit: 50}, nil, 1},
		"just so many":    {params.Select{Labels: prod, Limit: 3}, []string{"db", "web-a", "web-c"}, 2},
		"too many":        {params.Select{Labels: prod, Limit: 2}, []string{"db", "web-a", "web-c"}, 2},
		"too many by far": {params.Select{NamePrefix: "web-", Limit: 1}, []string{"web-a", "web-c"}, 1},
		"regional":        {params.Select{Location: "us-east1", Labels: prod, Limit: 50}, []string{"web-us"}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, labelled(), Config{})
			tt.sel.Project = "p"
			got, err := w.store.List(t.Context(), as("web"), &tt.sel)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
			host := globalSecrets
			if tt.sel.Location != "" {
				host = "secretmanager.us-east1.rep.googleapis.com"
			}
			requests := w.arrivals()
			want := arrival{host, "list", tt.sel.Parent(), "web", "parent=" + strings.ReplaceAll(tt.sel.Parent(), "/", "%2F")}
			for _, r := range requests {
				if r != want {
					t.Errorf("a request is %+v, want %+v", r, want)
				}
			}
			if len(requests) != tt.requests {
				t.Errorf("%d requests, want %d", len(requests), tt.requests)
			}
		})
	}
}

// TestListIsChecked: the service may find more than was asked for, and one twice.
func TestListIsChecked(t *testing.T) {
	t.Parallel()
	w := newWorld(t, labelled(), Config{})
	w.change = func(_ arrival, answer any) {
		page := answer.(*secretmanagerpb.ListSecretsResponse)
		page.Secrets = append(page.Secrets,
			&secretmanagerpb.Secret{Name: "projects/42/secrets/web-a", Labels: map[string]string{"env": "prod"}},
			&secretmanagerpb.Secret{Name: "projects/42/secrets/web-x", Labels: map[string]string{"env": "test"}})
	}
	got, err := w.store.List(t.Context(), as("web"), &params.Select{Project: "p", Labels: map[string]string{"env": "prod"}, Limit: 3})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"db", "web-a", "web-c"}, got); diff != "" {
		t.Error(diff)
	}
}

// TestListIsBounded: on a page there may be many more than may be.
func TestListIsBounded(t *testing.T) {
	t.Parallel()
	m := &memoryGoogle{pageSize: 1000}
	for i := range pageSize + 5 {
		m.secrets = append(m.secrets, secretOf(fmt.Sprintf("s%03d", i), 1))
	}
	w := newWorld(t, m, Config{})
	got, err := w.store.List(t.Context(), as("web"), &params.Select{Project: "p", NamePrefix: "s", Limit: 2})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"s000", "s001", "s002"}, got); diff != "" {
		t.Error(diff)
	}
	if got, err = w.store.List(t.Context(), as("web"), &params.Select{Project: "p", NamePrefix: "s", Limit: 500}); err != nil || len(got) != pageSize+5 {
		t.Errorf("%d found, %v", len(got), err)
	}
	if got, want := w.operations(), "list=3"; got != want {
		t.Errorf("requests are %s, want %s", got, want)
	}
}

// TestEndlessList: one that does not end is given up.
func TestEndlessList(t *testing.T) {
	t.Parallel()
	w := newWorld(t, labelled(), Config{})
	w.change = func(_ arrival, answer any) {
		answer.(*secretmanagerpb.ListSecretsResponse).NextPageToken = "0"
	}
	_, err := w.store.List(t.Context(), as("web"), &params.Select{Project: "p", NamePrefix: "x", Limit: 2})
	if e := asError(t, err); e.Kind != Invalid || e.Operation != listSecrets || e.Resource != "projects/p" || e.Endpoint != globalSecrets || !strings.Contains(e.Message, "100 pages") {
		t.Errorf("error is %v", e)
	}
	if n := len(w.arrivals()); n != maxPages {
		t.Errorf("%d requests", n)
	}
}

// TestListFails: also on a later page. What passes is tried again.
func TestListFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := labelled()
		w := newWorld(t, m, Config{})
		sel := &params.Select{Project: "p", NamePrefix: "web", Limit: 50}
		m.script = firstFail(1, says(codes.Unavailable, "later"))
		if names, err := w.store.List(t.Context(), as("web"), sel); err != nil || len(names) != 4 {
			t.Errorf("%v, %v", names, err)
		}
		var came atomic.Int64
		m.script = func(context.Context, arrival) error {
			if came.Add(1) == 2 {
				return says(codes.PermissionDenied, "no")
			}
			return nil
		}
		names, err := w.store.List(t.Context(), as("web"), sel)
		if e := asError(t, err); names != nil || e.Kind != Denied || e.Operation != listSecrets {
			t.Errorf("%v, %v", names, e)
		}
		sel.Project = "q"
		_, err = w.store.List(t.Context(), as("web"), sel)
		if e, ok := errors.AsType[*Error](err); !ok || e.Kind != NotFound || e.Resource != "projects/q" {
			t.Errorf("%v", err)
		}
	})
}
