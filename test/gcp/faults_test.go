package gcp_test

import (
	"context"
	"hash/crc32"
	"net/http"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/postern-dev/postern/test/gcp"
	"github.com/postern-dev/postern/test/gcp/control"
)

func (d *double) fault(t *testing.T, f control.Fault) {
	t.Helper()
	if err := d.DeleteFaults(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.apply(t, control.Document{Faults: []control.Fault{f}})
}

func TestFaultsOfSecretManager(t *testing.T) {
	t.Parallel()
	d := start(t, gcp.Config{})
	d.apply(t, control.Document{Secrets: []control.Secret{secret(db, "x"), secret(db+"2", "x")}})
	c := d.secrets(t)
	read := func(name string) error {
		_, err := access(t, c, name+"/versions/latest")
		return err
	}
	d.fault(t, control.Fault{Service: control.SecretManager, Operation: control.Access, Host: globalHost, Resource: "db", Principal: app, Kind: control.Throttle, RetryAfter: 7, After: 1, Count: 2})
	for i, want := range []codes.Code{codes.OK, codes.ResourceExhausted, codes.ResourceExhausted, codes.OK} {
		err := read(db)
		if status.Code(err) != want {
			t.Errorf("request %d: %v", i, err)
		}
		if want == codes.OK {
			continue
		}
		wantStatus(t, err, want, "RATE_LIMIT_EXCEEDED", "Quota exceeded")
		for _, detail := range status.Convert(err).Details() {
			if r, ok := detail.(*errdetails.RetryInfo); ok && r.GetRetryDelay().AsDuration() == 7*time.Second {
				want = codes.OK
			}
		}
		if want != codes.OK {
			t.Errorf("no RetryInfo in %v", err)
		}
	}
	d.fault(t, control.Fault{Kind: control.ErrorAnswer, Code: "PERMISSION_DENIED", Reason: "SERVICE_DISABLED", Message: "no", Resource: db + "/versions/latest"})
	wantStatus(t, read(db), codes.PermissionDenied, "SERVICE_DISABLED", "no")
	if err := read(db + "2"); err != nil {
		t.Errorf("another resource: %v", err)
	}
	d.fault(t, control.Fault{Service: control.SecretManager, Kind: control.Unavailable})
	wantStatus(t, read(db), codes.Unavailable, "", "currently unavailable")
	d.fault(t, control.Fault{Service: control.SecretManager, Kind: control.Garbage})
	wantStatus(t, read(db), codes.Unknown, "", "text/html")
	d.fault(t, control.Fault{Service: control.SecretManager, Kind: control.Close})
	wantStatus(t, read(db), codes.Unavailable, "", "")
	for _, other := range []control.Fault{
		{Service: control.ParameterManager, Kind: control.Unavailable},
		{Operation: control.List, Kind: control.Unavailable},
		{Host: westHost, Kind: control.Unavailable},
		{Resource: "d", Kind: control.Unavailable},
		{Principal: ksa, Kind: control.Unavailable},
		{Kind: control.Latency, Latency: control.Duration(time.Millisecond)},
	} {
		d.fault(t, other)
		if _, err := c.AccessSecretVersion(t.Context(), &secretmanagerpb.AccessSecretVersionRequest{Name: db + "/versions/latest"}); err != nil {
			t.Errorf("a fault for others, %+v: %v", other, err)
		}
	}
}

// What a fault does to contents is seen by their checksum, and by nothing else.
func TestContentsThatAreDamaged(t *testing.T) {
	t.Parallel()
	d := start(t, gcp.Config{})
	d.apply(t, control.Document{Secrets: []control.Secret{secret(db, "hunter2"), secret(db+"-empty", "")}})
	c := d.secrets(t)
	for _, name := range []string{db, db + "-empty"} {
		d.fault(t, control.Fault{Service: control.SecretManager, Operation: control.Access, Kind: control.Corrupt, Count: 1})
		for i, intact := range []bool{false, true} {
			got, err := access(t, c, name+"/versions/1")
			if err != nil {
				t.Fatal(err)
			}
			sum := int64(crc32.Checksum(got.GetPayload().GetData(), crc32.MakeTable(crc32.Castagnoli)))
			if (sum == got.GetPayload().GetDataCrc32C()) != intact {
				t.Errorf("%s, request %d: intact is %v", name, i, !intact)
			}
		}
	}
	d.fault(t, control.Fault{Service: control.SecretManager, Operation: control.Access, Kind: control.NoChecksum, Count: 1})
	got, err := access(t, c, db+"/versions/1")
	if err != nil || got.GetPayload().DataCrc32C != nil || string(got.GetPayload().GetData()) != "hunter2" {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := access(t, c, db+"/versions/1"); err != nil || string(got.GetPayload().GetData()) != "hunter2" {
		t.Errorf("the contents are damaged for good: %v, %v", got, err)
	}
}

func TestHangEndsWithTheClientOrTheFaults(t *testing.T) {
	t.Parallel()
	d := start(t, gcp.Config{})
	d.apply(t, control.Document{Secrets: []control.Secret{secret(db, "x"), secret(db+"2", "x")}})
	c := d.secrets(t)
	for name, end := range map[string]func(cancel func()) error{
		"client": func(cancel func()) error { cancel(); return nil },
		"faults": func(func()) error { return d.DeleteFaults(t.Context()) },
	} {
		d.fault(t, control.Fault{Service: control.SecretManager, Resource: "db", Kind: control.Hang})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			_, err := c.AccessSecretVersion(ctx, &secretmanagerpb.AccessSecretVersionRequest{Name: db + "/versions/1"})
			done <- err
		}()
		d.wait(t, control.Hang)
		if _, err := access(t, c, db+"2/versions/1"); err != nil {
			t.Errorf("%s: beside one that hangs: %v", name, err)
		}
		if err := end(cancel); err != nil {
			t.Error(err)
		}
		if err := <-done; err == nil {
			t.Errorf("%s: it is answered", name)
		}
		if name == "client" {
			if _, err := access(t, c, db+"2/versions/1"); err != nil {
				t.Errorf("the connection is gone with one request: %v", err)
			}
		}
		cancel()
		if err := d.ResetCalls(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// wait waits until a request was answered with a code.
func (d *double) wait(t *testing.T, code string) {
	t.Helper()
	for t.Context().Err() == nil {
		calls, err := d.Calls(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range calls {
			if c.Code == code {
				return
			}
		}
	}
	t.Fatalf("no request was answered with %s", code)
}

func TestFaultsOfTheOthers(t *testing.T) {
	t.Parallel()
	d := start(t, gcp.Config{})
	key := d.apply(t, control.Document{
		Metadata: &control.Metadata{Project: "shop"}, ServiceAccounts: []control.ServiceAccount{{Email: app, Keys: []string{"one"}}},
	}).ServiceAccounts[0].Keys[0]
	d.bind(t, accountResource(app), user, ksa)
	as := d.given(t, control.TokenRequest{Principal: ksa})
	for service, ask := range map[string]func() (int, string){
		control.STS:            func() (int, string) { return d.post(t, stsURL, exchange(gkeAudience, podToken(t, nil)), nil) },
		control.SecureToken:    func() (int, string) { return d.post(t, bindingURL, exchange(gkeAudience, podToken(t, nil)), nil) },
		control.OAuth2:         func() (int, string) { return d.redeemAs(t, key) },
		control.IAMCredentials: func() (int, string) { return d.generate(t, as, map[string]any{}) },
		control.MetadataServer: func() (int, string) {
			return d.send(t, http.MethodGet, "http://"+d.server.Addresses.Metadata+"/computeMetadata/v1/project/project-id", "", http.Header{"Metadata-Flavor": {"Google"}})
		},
	} {
		for _, test := range []struct {
			fault  control.Fault
			status int
			text   string
		}{
			{control.Fault{Kind: control.Throttle}, http.StatusTooManyRequests, "o"},
			{control.Fault{Kind: control.Unavailable}, http.StatusServiceUnavailable, "unavailable"},
			{control.Fault{Kind: control.ErrorAnswer, Status: 400, Code: "INVALID_ARGUMENT", Message: "just so"}, http.StatusBadRequest, "just so"},
			{control.Fault{Kind: control.Garbage}, http.StatusOK, "<html>"},
			{control.Fault{Kind: control.Latency, Latency: control.Duration(time.Millisecond)}, http.StatusOK, ""},
		} {
			test.fault.Service = service
			d.fault(t, test.fault)
			if status, answer := ask(); status != test.status || !strings.Contains(strings.ToLower(answer), test.text) {
				t.Errorf("%s, %s: %d %s", service, test.fault.Kind, status, answer)
			}
		}
	}
	d.fault(t, control.Fault{Service: control.STS, Kind: control.Close})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, stsURL, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := d.http.Do(req); err == nil {
		_ = resp.Body.Close()
		t.Error("it is answered")
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	d := start(t, gcp.Config{})
	d.fault(t, control.Fault{Service: control.STS, Kind: control.Throttle, RetryAfter: 7})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, stsURL, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := d.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if got := resp.Header.Get("Retry-After"); got != "7" {
		t.Errorf("Retry-After is %q", got)
	}
}

func TestFaultsOfTheProxy(t *testing.T) {
	t.Parallel()
	d := start(t, gcp.Config{})
	proxy := strings.TrimPrefix(d.server.Addresses.Proxy, "http://")
	dial := func(host string) error {
		connection, err := connect(t.Context(), proxy, host)
		if err == nil {
			err = connection.Close()
		}
		return err
	}
	d.fault(t, control.Fault{Service: control.Proxy, Host: globalHost, Kind: control.Unresolved})
	if err := dial(globalHost); err == nil || !strings.Contains(err.Error(), "502") {
		t.Errorf("unresolved: %v", err)
	}
	if err := dial(westHost); err != nil {
		t.Errorf("another host: %v", err)
	}
	d.fault(t, control.Fault{Service: control.Proxy, Kind: control.Close})
	if err := dial(westHost); err == nil || strings.Contains(err.Error(), "502") {
		t.Errorf("closed: %v", err)
	}
	d.fault(t, control.Fault{Service: control.Proxy, Kind: control.Latency, Latency: control.Duration(time.Millisecond)})
	if err := dial(westHost); err != nil {
		t.Errorf("slow: %v", err)
	}
}

// Google's front ends find the place of a resource by a header, so it has to be
// that of the request.
func TestRoutingHeader(t *testing.T) {
	t.Parallel()
	d := startUnchecked(t, gcp.Config{})
	d.apply(t, control.Document{Secrets: []control.Secret{secret(db, "x")}})
	raw := secretmanagerpb.NewSecretManagerServiceClient(d.dial(t, globalHost, d.given(t, control.TokenRequest{Principal: app})))
	for name, header := range map[string]string{"none": "", "other": "name=projects%2Fshop%2Fsecrets%2Fother%2Fversions%2F1", "wrong member": "parent=" + db} {
		ctx := t.Context()
		if header != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "x-goog-request-params", header)
		}
		if _, err := raw.AccessSecretVersion(ctx, &secretmanagerpb.AccessSecretVersionRequest{Name: db + "/versions/1"}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		d.wantViolation(t, "routing header")
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "x-goog-request-params", "name=projects%2Fshop%2Fsecrets%2Fdb%2Fversions%2F1")
	if _, err := raw.AccessSecretVersion(ctx, &secretmanagerpb.AccessSecretVersionRequest{Name: db + "/versions/1"}); err != nil {
		t.Error(err)
	}
	if violations, err := d.Violations(t.Context()); err != nil || len(violations) != 0 {
		t.Errorf("%v, %+v", err, violations)
	}
	err := d.dial(t, parameterHost, "").Invoke(t.Context(), secretmanagerpb.SecretManagerService_AccessSecretVersion_FullMethodName,
		&secretmanagerpb.AccessSecretVersionRequest{}, &secretmanagerpb.AccessSecretVersionResponse{}, grpc.WaitForReady(false))
	wantStatus(t, err, codes.Unimplemented, "", "404")
	d.wantViolation(t, "no such method of parametermanager")
}
