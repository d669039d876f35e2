package kube_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/postern-dev/postern/driver/internal/kube/kubetest"
)

func TestClient_WatchSecretProviderClass(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var open *io.PipeWriter
		api := &watchAPI{answer: func(_ int, r *http.Request) (response *http.Response, _ error) {
			response, open = stream(r)
			return response, nil
		}}
		seen := api.watch(t, slog.New(slog.DiscardHandler))
		synctest.Wait()
		for _, step := range []struct {
			event string
			want  []string
		}{
			{event("ADDED", "10", ""), []string{""}},
			{event("MODIFIED", "11", "1"), []string{"1"}},
			{event("MODIFIED", "12", "1"), []string{"1"}},
			{event("MODIFIED", "12", "1"), nil}, // the very same
			{event("BOOKMARK", "13", "no"), nil},
			{event("DELETED", "14", "1"), nil},
			{event("ADDED", "15", "2"), []string{"2"}},
		} {
			if _, err := io.WriteString(open, step.event); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if diff := cmp.Diff(step.want, received(seen)); diff != "" {
				t.Errorf("seen at %s(-want +got):\n%s", step.event, diff)
			}
		}
		request := api.requests[0]
		query := request.URL.Query()
		query.Del("timeoutSeconds")
		if got, want := query.Encode(), "fieldSelector=metadata.name%3Ddb&resourceVersion=0&watch=true"; got != want {
			t.Errorf("query is %q, want %q", got, want)
		}
		if want := "/apis/secrets-store.csi.x-k8s.io/v1/namespaces/shop/secretproviderclasses"; request.URL.Path != want {
			t.Errorf("path is %q, want %q", request.URL.Path, want)
		}
		if accept := request.Header.Get("Accept"); !strings.Contains(accept, "as=PartialObjectMetadata") {
			t.Errorf("accepts %q: the class's parameters, too", accept)
		}
	})
}

// Whatever ends a watch, the next one tells what the class is by then.
func TestClient_WatchSecretProviderClass_GoesOn(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		first func(r *http.Request) (*http.Response, error)
		// atLeast and atMost bound the time to the next watch.
		atLeast, atMost time.Duration
	}{
		"ended by the server": {
			first: func(r *http.Request) (*http.Response, error) {
				response, open := stream(r, event("ADDED", "1", "a"))
				return response, open.Close()
			},
			atMost: time.Second,
		},
		"connection broken in an event": {
			first: func(r *http.Request) (*http.Response, error) {
				response, open := stream(r, event("ADDED", "1", "a"), `{"type":"MODIFIED","object":{"met`)
				return response, open.Close()
			},
			atMost: time.Second,
		},
		"too old": {
			first: func(r *http.Request) (*http.Response, error) {
				return steady(r, event("ADDED", "1", "a"),
					`{"type":"ERROR","object":{"kind":"Status","status":"Failure","message":"too old","reason":"Expired","code":410}}`)
			},
			atMost: time.Second,
		},
		"server starts": {
			first: func(r *http.Request) (*http.Response, error) {
				return refused(r, tooEarly(40))
			},
			atLeast: 40 * time.Second, atMost: 40 * time.Second,
		},
		"server is too busy": {
			first: func(r *http.Request) (*http.Response, error) {
				return &http.Response{
					StatusCode: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"30"}}, Request: r,
					Body: io.NopCloser(strings.NewReader("Too many requests, please try again later.")),
				}, nil
			},
			atLeast: 30 * time.Second, atMost: 30 * time.Second,
		},
		"server fails": {
			first: func(r *http.Request) (*http.Response, error) {
				return refused(r, kubetest.Status(500, metav1.StatusReasonInternalError, "etcd is not there"))
			},
			atMost: time.Second,
		},
		"no connection": {
			first:  func(*http.Request) (*http.Response, error) { return nil, errors.New("connection refused") },
			atMost: time.Second,
		},
		"no answer": {
			first: func(r *http.Request) (*http.Response, error) {
				<-r.Context().Done()
				return nil, context.Cause(r.Context())
			},
			atLeast: 15 * time.Second, atMost: 16 * time.Second,
		},
		"hung server": {
			first:   func(r *http.Request) (*http.Response, error) { return steady(r, event("ADDED", "1", "a")) },
			atLeast: 5 * time.Minute, atMost: 11 * time.Minute,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				api := &watchAPI{answer: func(n int, r *http.Request) (*http.Response, error) {
					if n == 0 {
						return test.first(r)
					}
					return steady(r, event("ADDED", "7", "b"))
				}}
				var log bytes.Buffer
				seen := api.watch(t, slog.New(slog.NewTextHandler(&log, nil)))
				started := time.Now()
				for value := range seen {
					if value == "b" {
						break
					}
				}
				if took := time.Since(started); took < test.atLeast || took > test.atMost {
					t.Errorf("watched again after %v, want %v to %v", took, test.atLeast, test.atMost)
				}
				if log.Len() > 0 {
					t.Errorf("logged what is soon over: %s", &log)
				}
			})
		})
	}
}

// The limit of other requests is not one of watches.
func TestClient_WatchSecretProviderClass_Lasts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		api := &watchAPI{answer: func(_ int, r *http.Request) (*http.Response, error) {
			response, open := stream(r, event("ADDED", "1", "a"))
			time.AfterFunc(4*time.Minute, func() { _, _ = io.WriteString(open, event("MODIFIED", "2", "b")) })
			return response, nil
		}}
		seen := api.watch(t, slog.New(slog.DiscardHandler))
		if a, b := <-seen, <-seen; a != "a" || b != "b" {
			t.Errorf("seen %q, %q, want a, b", a, b)
		}
		if n := api.count(); n != 1 {
			t.Errorf("%d watches, want 1", n)
		}
	})
}

// What an API server is asked for in an hour, while it works.
func TestClient_WatchSecretProviderClass_Steady(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var lengths []int
		api := &watchAPI{}
		api.answer = func(_ int, r *http.Request) (*http.Response, error) {
			seconds, err := strconv.Atoi(r.URL.Query().Get("timeoutSeconds"))
			if err != nil {
				return nil, err
			}
			api.mu.Lock()
			defer api.mu.Unlock()
			lengths = append(lengths, seconds)
			response, open := stream(r, event("ADDED", "1", "a"))
			time.AfterFunc(time.Duration(seconds)*time.Second, func() { _ = open.Close() })
			return response, nil
		}
		var log bytes.Buffer
		seen := api.watch(t, slog.New(slog.NewTextHandler(&log, nil)))
		<-time.After(time.Hour)
		if n := api.count(); n < 5 || n > 13 {
			t.Errorf("%d watches in an hour, want about 8", n)
		}
		api.mu.Lock()
		defer api.mu.Unlock()
		if slices.Min(lengths) < 300 || slices.Max(lengths) >= 600 || slices.Min(lengths) == slices.Max(lengths) {
			t.Errorf("lengths of the watches in seconds: %v, want them to differ between 300 and 600", lengths)
		}
		if got := received(seen); len(got) != 1 {
			t.Errorf("seen %q: a class that did not change is told again", got)
		}
		if log.Len() > 0 {
			t.Errorf("logged what is as it should be: %s", &log)
		}
	})
}

// An API server that refuses is asked ever less, and it is said once.
func TestClient_WatchSecretProviderClass_Outage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const watches = 3
		const fails = `level=WARN msg="does not see requests to refresh at once" error="watch secretproviderclass shop/db: the API server refuses it; check the driver's ClusterRole`
		api := newRefusing()
		var log bytes.Buffer
		client := api.client(t, slog.New(slog.NewTextHandler(&log, nil)))
		ctx, cancel := context.WithCancel(t.Context())
		var ended sync.WaitGroup
		for range watches {
			ended.Go(func() { client.WatchSecretProviderClass(ctx, "shop", "db", func(map[string]string) {}) })
		}
		said := func(when, want string) {
			t.Helper()
			synctest.Wait()
			if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, want) {
				t.Errorf("%s, the log is %q, want one line with %q", when, got, want)
			}
			log.Reset()
		}
		<-time.After(10 * time.Second)
		if n := api.count(); n < 2*watches {
			t.Errorf("%d attempts in the first 10 s, want some per watch", n)
		}
		<-time.After(time.Hour)
		if n := api.count(); n < 60*watches || n > 200*watches {
			t.Errorf("%d attempts of %d watches in an hour, want about 120 each", n, watches)
		}
		said("refused for an hour", fails)
		api.set(false)
		<-time.After(2 * time.Minute)
		said("back", `level=INFO msg="sees requests to refresh again"`)
		api.set(true)
		<-time.After(time.Hour)
		said("refused again", fails)
		cancel()
		ended.Wait()
		if log.Len() > 0 {
			t.Errorf("nothing is seen again, and yet: %s", &log)
		}
	})
}

// After a watch that lasted, the next one does not wait as after many failures.
func TestClient_WatchSecretProviderClass_OutageIsForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		api := newRefusing()
		api.watch(t, slog.New(slog.DiscardHandler))
		<-time.After(time.Hour)
		api.set(false)
		<-time.After(time.Hour)
		synctest.Wait()
		times := api.times[len(api.times)-5:]
		for i := 1; i < len(times); i++ {
			if gap := times[i].Sub(times[i-1]); gap > 5*time.Minute+time.Second {
				t.Errorf("%v between two watches of 5m, want less than 1s more", gap)
			}
		}
	})
}

// An API server, or what is before it, that ends each watch at once.
func TestClient_WatchSecretProviderClass_EndsAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		api := &watchAPI{answer: func(_ int, r *http.Request) (*http.Response, error) {
			response, open := stream(r, event("ADDED", "1", "a"))
			return response, open.Close()
		}}
		var log bytes.Buffer
		api.watch(t, slog.New(slog.NewTextHandler(&log, nil)))
		<-time.After(time.Hour)
		if n := api.count(); n < 60 || n > 200 {
			t.Errorf("%d watches in an hour, want about 120", n)
		}
		if log.Len() > 0 {
			t.Errorf("the class was seen each time, and yet: %s", &log)
		}
	})
}

func TestClient_WatchSecretProviderClass_Ends(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]func(r *http.Request) (*http.Response, error){
		"in a watch": func(r *http.Request) (*http.Response, error) { return steady(r) },
		"before the answer": func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		},
		"in a pause": func(r *http.Request) (*http.Response, error) {
			return refused(r, tooEarly(3600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				api := &watchAPI{answer: func(_ int, r *http.Request) (*http.Response, error) { return answer(r) }}
				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(time.Second, cancel)
				started := time.Now()
				api.client(t, slog.New(slog.DiscardHandler)).WatchSecretProviderClass(ctx, "shop", "db", func(map[string]string) {})
				if took := time.Since(started); took != time.Second || api.count() != 1 {
					t.Errorf("ended after %v and %d requests, want 1s and 1", took, api.count())
				}
			})
		})
	}
}
