package aws_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/postern-dev/postern/test/aws"
	"github.com/postern-dev/postern/test/aws/control"
)

// reader reads the secret prod/db.
func (d *double) reader(t *testing.T) func() error {
	t.Helper()
	d.apply(t, control.Document{Secrets: []control.Secret{secret(v1, "one")}})
	client := d.secrets(t)
	return func() error {
		_, err := client.GetSecretValue(t.Context(), &secretsmanager.GetSecretValueInput{SecretId: ptr("prod/db")})
		return err
	}
}

func (d *double) fail(t *testing.T, faults ...control.Fault) {
	t.Helper()
	d.apply(t, control.Document{Faults: faults})
}

func TestErrorsThatAreInjected(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		fault      control.Fault
		code, says string
		status     int
		retryAfter string
	}{
		"throttle":          {control.Fault{Kind: control.Throttle}, "ThrottlingException", "Rate exceeded", 400, ""},
		"with a delay":      {control.Fault{Kind: control.Throttle, RetryAfter: 7}, "ThrottlingException", "", 400, "7"},
		"unavailable":       {control.Fault{Kind: control.Unavailable}, "ServiceUnavailable", "", 503, ""},
		"error":             {control.Fault{Kind: control.ErrorAnswer, Status: 500, Code: "InternalServiceError", Message: "m"}, "InternalServiceError", "m", 500, ""},
		"error of our own":  {control.Fault{Kind: control.ErrorAnswer, Code: "Nonsense"}, "Nonsense", "", 400, ""},
		"unknown operation": {control.Fault{Kind: control.UnknownOperation}, "UnknownOperationException", "", 404, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := start(t, aws.Config{})
			read := d.reader(t)
			test.fault.Count = 1
			d.fail(t, test.fault)
			err := read()
			wantError(t, err, test.code, test.says)
			var answer *smithyhttp.ResponseError
			if !errors.As(err, &answer) || answer.HTTPStatusCode() != test.status {
				t.Errorf("%v, want status %d", err, test.status)
			}
			if got := answer.Response.Header.Get("Retry-After"); got != test.retryAfter {
				t.Errorf("Retry-After %q, want %q", got, test.retryAfter)
			}
			if err := read(); err != nil {
				t.Errorf("after its one fault: %v", err)
			}
		})
	}
}

func TestFaultsMatch(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		fault control.Fault
		want  bool
	}{
		"any":              {control.Fault{}, true},
		"service":          {control.Fault{Service: "secretsmanager"}, true},
		"other service":    {control.Fault{Service: "ssm"}, false},
		"operation":        {control.Fault{Operation: "GetSecretValue"}, true},
		"other operation":  {control.Fault{Operation: "DescribeSecret"}, false},
		"region":           {control.Fault{Region: region}, true},
		"other region":     {control.Fault{Region: "us-east-1"}, false},
		"role":             {control.Fault{Role: role}, true},
		"other role":       {control.Fault{Role: role + "2"}, false},
		"after one":        {control.Fault{After: 1}, false},
		"one and no other": {control.Fault{Service: "secretsmanager", Region: "us-east-1"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := start(t, aws.Config{})
			read := d.reader(t)
			test.fault.Kind = control.Throttle
			d.fail(t, test.fault)
			if err := read(); (err != nil) != test.want {
				t.Errorf("the request gets %v, want the fault: %t", err, test.want)
			}
		})
	}
}

func TestFaultsAreCounted(t *testing.T) {
	t.Parallel()
	d := start(t, aws.Config{})
	read := d.reader(t)
	d.fail(t, control.Fault{Kind: control.Throttle, After: 1, Count: 2})
	for i, want := range []bool{false, true, true, false} {
		if err := read(); (err != nil) != want {
			t.Errorf("request %d: %v, want an error: %t", i, err, want)
		}
	}
	d.fail(t, control.Fault{Kind: control.Throttle})
	for range 5 {
		wantError(t, read(), "ThrottlingException", "")
	}
	if err := d.DeleteFaults(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := read(); err != nil {
		t.Errorf("after the faults were deleted: %v", err)
	}
}

func TestEndpointThatIsDown(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{control.Close, control.Garbage} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			d := start(t, aws.Config{})
			read := d.reader(t)
			d.fail(t, control.Fault{Kind: kind, Region: region})
			err := read()
			var answer *smithyhttp.ResponseError
			if err == nil || (kind == control.Close && errors.As(err, &answer) && answer.HTTPStatusCode() != 0) {
				t.Errorf("%v, want no answer", err)
			}
			calls, err := d.Calls(t.Context())
			if err != nil || len(calls) != 1 || calls[0].Code != kind {
				t.Errorf("calls %+v, %v", calls, err)
			}
		})
	}
}

func TestHang(t *testing.T) {
	t.Parallel()
	d := start(t, aws.Config{})
	read := d.reader(t)
	d.fail(t, control.Fault{Kind: control.Hang})
	// The client leaves.
	ctx, cancel := context.WithCancel(t.Context())
	client := d.secrets(t)
	left := make(chan error, 1)
	go func() {
		_, err := client.GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: ptr("prod/db")})
		left <- err
	}()
	d.waitForCalls(t, 1)
	cancel()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("the client that left got %v", err)
	}
	// The fault ends.
	done := make(chan error, 1)
	go func() { done <- read() }()
	d.waitForCalls(t, 2)
	if err := d.DeleteFaults(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err == nil {
		t.Error("what hung got an answer")
	}
	if err := read(); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// waitForCalls waits until so many calls hang.
func (d *double) waitForCalls(t *testing.T, want int) {
	t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		calls, err := d.Calls(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(calls) == 1 && calls[0].Count == want && calls[0].Code == control.Hang {
			return
		}
		<-ticker.C
	}
}

func TestLatency(t *testing.T) {
	t.Parallel()
	d := start(t, aws.Config{})
	read := d.reader(t)
	d.fail(t, control.Fault{Kind: control.Latency, Latency: control.Duration(300 * time.Millisecond), Count: 1})
	before := time.Now()
	if err := read(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(before); took < 300*time.Millisecond {
		t.Errorf("it took %s", took)
	}
}

func TestFaultsOfLogins(t *testing.T) {
	t.Parallel()
	d, i := start(t, aws.Config{}), newIssuer(t, issuerURL)
	d.fail(t,
		control.Fault{Service: control.STS, Kind: control.Throttle, Count: 1},
		control.Fault{Service: control.STS, Kind: control.ErrorAnswer, Status: 403, Code: "RegionDisabledException", Message: "STS is not activated in this region", Count: 1},
		control.Fault{Service: control.PodIdentity, Kind: control.Throttle},
	)
	_, err := d.sts().AssumeRoleWithWebIdentity(t.Context(), assume(i.token(t, nil)))
	wantError(t, err, "Throttling", "Rate exceeded")
	_, err = d.sts().AssumeRoleWithWebIdentity(t.Context(), assume(i.token(t, nil)))
	wantError(t, err, "RegionDisabledException", "STS is not activated in this region")
	if status, body := d.fetch(t, d.server.Addresses.PodIdentity, i.forAgent(t, nil)); status != http.StatusTooManyRequests {
		t.Errorf("the agent answers %d %s", status, body)
	}
}

func TestFaultsThatAreNone(t *testing.T) {
	t.Parallel()
	d := start(t, aws.Config{})
	for name, fault := range map[string]control.Fault{
		"no kind":             {},
		"unknown kind":        {Kind: "explode"},
		"error without code":  {Kind: control.ErrorAnswer},
		"item that throttles": {Kind: control.Throttle, Item: "a"},
	} {
		if _, err := d.Apply(t.Context(), control.Document{Faults: []control.Fault{fault}}); err == nil {
			t.Errorf("%s: want an error", name)
		}
	}
}

// A fault for a region leaves the others alone.
func TestRegionThatIsDown(t *testing.T) {
	t.Parallel()
	d := start(t, aws.Config{})
	d.apply(t, control.Document{Parameters: []control.Parameter{
		parameter("a", "x"), {Region: "us-east-1", Name: "a", Value: ptr("y")},
	}})
	d.fail(t, control.Fault{Kind: control.Unavailable, Region: region})
	in := &ssm.GetParametersInput{Names: []string{"a"}}
	_, err := d.parameters(t).GetParameters(t.Context(), in)
	wantError(t, err, "ServiceUnavailable", "")
	out, err := ssm.NewFromConfig(d.config(t, "us-east-1")).GetParameters(t.Context(), in)
	if err != nil || *out.Parameters[0].Value != "y" {
		t.Errorf("the other region: %+v, %v", out, err)
	}
}
