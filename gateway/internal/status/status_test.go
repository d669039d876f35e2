package status_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/postern-dev/postern/gateway/internal/status"
	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// reports returns a function for Handler.
func reports(report *gatewayv1.StatusResponse) func(context.Context) (*gatewayv1.StatusResponse, error) {
	return func(ctx context.Context) (*gatewayv1.StatusResponse, error) {
		if _, bounded := ctx.Deadline(); !bounded {
			return nil, errors.New("the report has no deadline")
		}
		return report, nil
	}
}

func TestHandler(t *testing.T) {
	t.Parallel()
	want := &gatewayv1.StatusResponse{Version: "v1.2.3", Cache: &gatewayv1.CacheStatus{Hits: 3}}
	server := httptest.NewServer(status.Handler(reports(want)))
	t.Cleanup(server.Close)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+status.Path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := server.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		t.Fatal(err)
	}
	var got gatewayv1.StatusResponse
	if err := protojson.Unmarshal(body, &got); err != nil || !proto.Equal(&got, want) {
		t.Errorf("got %s (%v), want %v", body, err, want)
	}
	for name, value := range map[string]string{
		"Content-Type": "application/json", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff",
	} {
		if got := resp.Header.Get(name); resp.StatusCode != http.StatusOK || got != value {
			t.Errorf("%s, %s: %q, want %q", resp.Status, name, got, value)
		}
	}
}

// request is one that is answered, unless a test changes it.
type request struct{ method, remote, local, host string }

func TestHandler_Callers(t *testing.T) {
	t.Parallel()
	const refused, answered = http.StatusForbidden, http.StatusOK
	for name, tt := range map[string]struct {
		mutate func(*request)
		code   int
	}{
		"kubectl exec":              {code: answered},
		"kubectl port-forward":      {mutate: func(r *request) { r.host = "localhost:18096" }, code: answered},
		"IPv6":                      {mutate: func(r *request) { r.remote, r.local, r.host = "[::1]:4711", "[::1]:8096", "[::1]:8096" }, code: answered},
		"IPv4 in IPv6":              {mutate: func(r *request) { r.remote, r.local = "[::ffff:127.0.0.1]:4711", "[::ffff:127.0.0.1]:8096" }, code: answered},
		"no port":                   {mutate: func(r *request) { r.host = "localhost" }, code: answered},
		"another pod":               {mutate: func(r *request) { r.remote, r.local, r.host = "10.0.0.7:4711", "10.0.0.8:8096", "10.0.0.8:8096" }, code: refused},
		"another pod that pretends": {mutate: func(r *request) { r.remote, r.local = "10.0.0.7:4711", "10.0.0.8:8096" }, code: refused},
		"a proxy in the pod":        {mutate: func(r *request) { r.remote, r.local = "127.0.0.6:4711", "10.0.0.8:8096" }, code: refused},
		"from the pod's address":    {mutate: func(r *request) { r.remote = "10.0.0.8:4711" }, code: refused},
		"a page of another site":    {mutate: func(r *request) { r.host = "rebound.example.com:8096" }, code: refused},
		"an address of another":     {mutate: func(r *request) { r.host = "10.0.0.8:8096" }, code: refused},
		"unknown caller":            {mutate: func(r *request) { r.remote = "@" }, code: refused},
		"unknown end":               {mutate: func(r *request) { r.local = "" }, code: refused},
		"another method":            {mutate: func(r *request) { r.method = http.MethodPost }, code: http.StatusMethodNotAllowed},
		"another way to look":       {mutate: func(r *request) { r.method = http.MethodHead }, code: http.StatusMethodNotAllowed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := request{method: http.MethodGet, remote: "127.0.0.1:4711", local: "127.0.0.1:8096", host: "127.0.0.1:8096"}
			if tt.mutate != nil {
				tt.mutate(&r)
			}
			ctx := t.Context()
			if r.local != "" {
				addr, err := net.ResolveTCPAddr("tcp", r.local)
				if err != nil {
					t.Fatal(err)
				}
				ctx = context.WithValue(ctx, http.LocalAddrContextKey, addr)
			}
			req := httptest.NewRequestWithContext(ctx, r.method, "http://"+r.host+status.Path, http.NoBody)
			req.RemoteAddr = r.remote
			recorder := httptest.NewRecorder()
			status.Handler(reports(&gatewayv1.StatusResponse{Version: "v1.2.3"})).ServeHTTP(recorder, req)
			told := isReport(recorder)
			if recorder.Code != tt.code || told != (tt.code == answered) {
				t.Errorf("%d %s, want %d", recorder.Code, recorder.Body, tt.code)
			}
			if got := recorder.Header().Get("Cache-Control"); got != "no-store" {
				t.Errorf("Cache-Control is %q", got)
			}
		})
	}
}

// isReport tells whether the answer is a report.
func isReport(r *httptest.ResponseRecorder) bool {
	return r.Header().Get("Content-Type") == "application/json" && r.Body.Len() > 0
}

func TestHandler_Fails(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(status.Handler(func(context.Context) (*gatewayv1.StatusResponse, error) {
		return nil, errors.New("the gateway starts")
	}))
	t.Cleanup(server.Close)
	_, err := run(t, server, "table")
	if want := "503 Service Unavailable: the gateway starts"; err == nil || !endsWith(err, want) {
		t.Errorf("error = %v, want …%s", err, want)
	}
}

// What is told holds no value and no token: by its type it cannot.
func TestReportCannotHoldSecrets(t *testing.T) {
	t.Parallel()
	if found := secrets(new(gatewayv1.StatusResponse)); len(found) > 0 {
		t.Errorf("StatusResponse has %v", found)
	}
	// The same search finds those of a message that has some.
	if found := secrets(new(gatewayv1.FetchRequest)); len(found) < 2 {
		t.Errorf("found only %v in FetchRequest", found)
	}
	if found := secrets(new(gatewayv1.FetchResponse)); len(found) == 0 {
		t.Error("found nothing in FetchResponse")
	}
}

// secrets lists the fields, of m and of all that it can hold, which are secret or
// can be anything.
func secrets(m proto.Message) (found []protoreflect.FullName) {
	seen := map[protoreflect.FullName]bool{}
	var visit func(protoreflect.MessageDescriptor)
	visit = func(message protoreflect.MessageDescriptor) {
		if seen[message.FullName()] {
			return
		}
		seen[message.FullName()] = true
		for i := range message.Fields().Len() {
			field := message.Fields().Get(i)
			options, _ := field.Options().(*descriptorpb.FieldOptions)
			next := field.Message()
			switch {
			case options.GetDebugRedact(), field.Kind() == protoreflect.BytesKind, next != nil && open(next.FullName()):
				found = append(found, field.FullName())
			case next != nil:
				visit(next)
			}
		}
	}
	visit(m.ProtoReflect().Descriptor())
	return found
}

// open tells whether a message can hold whatever somebody puts into it.
func open(message protoreflect.FullName) bool {
	switch message {
	case "google.protobuf.Any", "google.protobuf.Struct", "google.protobuf.Value", "google.protobuf.ListValue", "google.protobuf.BytesValue":
		return true
	default:
		return false
	}
}

// now is when the reports of these tests are read.
func now() time.Time { return time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC) }
