package azure_test

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/postern-dev/postern/test/azure"
	"github.com/postern-dev/postern/test/azure/control"
)

func (d *double) fault(t *testing.T, f control.Fault) {
	t.Helper()
	if err := d.DeleteFaults(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.apply(t, control.Document{Faults: []control.Fault{f}})
}

func TestFaultsOfKeyVault(t *testing.T) {
	t.Parallel()
	d := start(t, azure.Config{})
	d.apply(t, control.Document{Secrets: []control.Secret{secret("db", "x"), secret("api", "x")}})
	c := d.secrets(t)
	get := func(name string) error {
		_, err := c.GetSecret(t.Context(), name, "", nil)
		return err
	}
	if err := get("db"); err != nil {
		t.Fatal(err)
	}
	d.fault(t, control.Fault{Service: control.Secrets, Operation: control.Get, Vault: "shop", Object: "DB", ClientID: client, Kind: control.Throttle, RetryAfter: 7, After: 1, Count: 2})
	for i, throttled := range []bool{false, true, true, false} {
		err := get("db")
		if !throttled {
			if err != nil {
				t.Errorf("request %d: %v", i, err)
			}
			continue
		}
		wantError(t, err, http.StatusTooManyRequests, "Throttled", "too many requests")
		var e *azcore.ResponseError
		if errors.As(err, &e) && e.RawResponse.Header.Get("Retry-After") != "7" {
			t.Errorf("Retry-After is %q", e.RawResponse.Header.Get("Retry-After"))
		}
	}
	d.fault(t, control.Fault{Kind: control.ErrorAnswer, Status: 403, Code: "Forbidden", InnerCode: "AccessDenied", Message: "no", Object: "db"})
	wantError(t, get("db"), http.StatusForbidden, "Forbidden", `"AccessDenied"`, `"no"`)
	if err := get("api"); err != nil {
		t.Errorf("another object: %v", err)
	}
	d.fault(t, control.Fault{Vault: "shop", Kind: control.Unavailable})
	wantError(t, get("db"), http.StatusServiceUnavailable, "ServiceUnavailable")
	d.fault(t, control.Fault{Service: control.Secrets, Kind: control.Garbage})
	if err := get("db"); err == nil {
		t.Error("it reads garbage")
	}
	d.fault(t, control.Fault{Service: control.Secrets, Kind: control.Close})
	if err := get("db"); err == nil || !strings.Contains(err.Error(), "EOF") {
		t.Errorf("closed: %v", err)
	}
	for _, other := range []control.Fault{
		{Service: control.Keys, Kind: control.Unavailable},
		{Operation: control.List, Kind: control.Unavailable},
		{Vault: "other", Kind: control.Unavailable},
		{Object: "other", Kind: control.Unavailable},
		{ClientID: "other", Kind: control.Unavailable},
	} {
		d.fault(t, other)
		if err := get("db"); err != nil {
			t.Errorf("a fault for others, %+v: %v", other, err)
		}
	}
	d.fault(t, control.Fault{Kind: control.Latency, Latency: control.Duration(time.Millisecond)})
	if err := get("db"); err != nil {
		t.Errorf("slow: %v", err)
	}
}

// The challenge is a request too; a fault may leave it out.
func TestFaultForRequestsWithABearer(t *testing.T) {
	t.Parallel()
	d := start(t, azure.Config{})
	d.apply(t, control.Document{Secrets: []control.Secret{secret("db", "x")}, Faults: []control.Fault{{Service: control.Secrets, Bearer: true, Kind: control.Throttle}}})
	_, err := d.secrets(t).GetSecret(t.Context(), "db", "", nil)
	wantError(t, err, http.StatusTooManyRequests, "Throttled")
	calls, err := d.Calls(t.Context())
	if err != nil || len(calls) != 2 {
		t.Fatalf("%v, %+v", err, calls)
	}
	want := control.Call{Service: "secrets", Operation: "get", Vault: "shop.vault.azure.net", ClientID: client, Code: "Throttled", Count: 1, Items: 1}
	if calls[1] != want {
		t.Errorf("calls %+v, want %+v", calls[1], want)
	}
}

func TestHangEndsWithTheClientOrTheFaults(t *testing.T) {
	t.Parallel()
	d := start(t, azure.Config{})
	d.apply(t, control.Document{Secrets: []control.Secret{secret("db", "x")}, Faults: []control.Fault{{Service: control.Secrets, Kind: control.Hang}}})
	for name, end := range map[string]func(cancel func()) error{
		"client": func(cancel func()) error { cancel(); return nil },
		"faults": func(func()) error { return d.DeleteFaults(t.Context()) },
	} {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			_, err := d.secrets(t).GetSecret(ctx, "db", "", nil)
			done <- err
		}()
		d.wait(t, control.Hang)
		if err := end(cancel); err != nil {
			t.Error(err)
		}
		if err := <-done; err == nil {
			t.Errorf("%s: it was answered", name)
		}
		cancel()
		if err := d.ResetCalls(t.Context()); err != nil {
			t.Fatal(err)
		}
		d.fault(t, control.Fault{Service: control.Secrets, Kind: control.Hang})
	}
}

// wait returns when a request has a code.
func (d *double) wait(t *testing.T, code string) {
	t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		for _, line := range d.answered(t) {
			if strings.HasSuffix(line, " "+code) {
				return
			}
		}
		select {
		case <-ticker.C:
		case <-t.Context().Done():
			t.Fatal("the test is over")
		}
	}
}

func TestFaultsOfEntra(t *testing.T) {
	t.Parallel()
	d := start(t, azure.Config{})
	for name, test := range map[string]struct {
		fault  control.Fault
		status int
		want   []string
	}{
		"throttle":    {control.Fault{Service: control.Entra, Operation: control.Token, Kind: control.Throttle, RetryAfter: 3}, 429, []string{"AADSTS90055", "temporarily_unavailable"}},
		"unavailable": {control.Fault{Service: control.Entra, Operation: control.Token, Kind: control.Unavailable}, 503, []string{"AADSTS90033"}},
		"error":       {control.Fault{Service: control.Entra, ClientID: client, Kind: control.ErrorAnswer, Status: 400, Code: "AADSTS50034", Message: "no such account"}, 400, []string{"AADSTS50034: no such account", "50034", "invalid_request"}},
		"OAuth error": {control.Fault{Service: control.Entra, Operation: control.Token, Kind: control.ErrorAnswer, Status: 400, Code: "interaction_required", Message: "no"}, 400, []string{`"interaction_required"`}},
		"metadata":    {control.Fault{Service: control.Entra, Operation: control.OpenIDConfiguration, Kind: control.Unavailable}, 503, []string{"AADSTS90033"}},
	} {
		t.Run(name, func(t *testing.T) {
			d.fault(t, test.fault)
			_, err := ask(t, d.login(t, assertion(t, nil)))
			wantRefused(t, err, test.status, test.want...)
			var failed *azidentity.AuthenticationFailedError
			if want := test.fault.RetryAfter; want != 0 && errors.As(err, &failed) && failed.RawResponse.Header.Get("Retry-After") != strconv.Itoa(want) {
				t.Errorf("Retry-After is %q, want %d", failed.RawResponse.Header.Get("Retry-After"), want)
			}
		})
	}
}

func TestFaultsOfTheProxy(t *testing.T) {
	t.Parallel()
	d := start(t, azure.Config{})
	d.apply(t, control.Document{Faults: []control.Fault{{Service: control.Proxy, Vault: "login.microsoftonline.com", Kind: control.Unresolved, Count: 1}}})
	_, err := ask(t, d.login(t, assertion(t, nil)))
	if err == nil || !strings.Contains(err.Error(), "Bad Gateway") {
		t.Errorf("%v", err)
	}
	if _, err := ask(t, d.login(t, assertion(t, nil))); err != nil {
		t.Errorf("once more: %v", err)
	}
	d.http.CloseIdleConnections()
	d.fault(t, control.Fault{Service: control.Proxy, Kind: control.Close})
	if _, err := ask(t, d.login(t, assertion(t, nil))); err == nil {
		t.Error("a proxy that hangs up connects")
	}
	d.fault(t, control.Fault{Service: control.Proxy, Kind: control.Latency, Latency: control.Duration(time.Millisecond)})
	if _, err := ask(t, d.login(t, assertion(t, nil))); err != nil {
		t.Errorf("slow: %v", err)
	}
}
