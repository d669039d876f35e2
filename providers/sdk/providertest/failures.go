package providertest

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/postern-dev/postern/internal/rpc"
	"github.com/postern-dev/postern/providers/sdk"
)

// promptly is how soon a fetch must end after its caller has left.
const promptly = 5 * time.Second

func keys[V any](m map[string]V) iter.Seq[string] { return maps.Keys(m) }

// errorText is all that an error says.
func errorText(err error) string {
	st, _ := status.FromError(err)
	return fmt.Sprintf("%s %v", st.Message(), st.Proto())
}

// checkError checks an error against a case, and against what holds for all.
func checkError(err error, want ErrorCase) error {
	if err == nil {
		return fmt.Errorf("no error, want %s", want.Reason)
	}
	got := rpc.FromError(err)
	if !slices.Contains(sdk.Reasons(), sdk.Reason(got.Reason)) {
		return fmt.Errorf("the reason %q is not in the list: %w", got.Reason, err)
	}
	if code := rpc.CodeOf(got.Reason); status.Code(err) != code {
		return fmt.Errorf("the code is %s, want %s for %s: %w", status.Code(err), code, got.Reason, err)
	}
	if got.Reason != string(want.Reason) {
		return fmt.Errorf("the reason is %s, want %s: %w", got.Reason, want.Reason, err)
	}
	if got.Metadata["object"] != want.Object {
		return fmt.Errorf("the object is %q, want %q: %w", got.Metadata["object"], want.Object, err)
	}
	if !strings.Contains(got.Message, want.Message) {
		return fmt.Errorf("the message is %q, want %q in it", got.Message, want.Message)
	}
	return checkFields(err, want)
}

func checkFields(err error, want ErrorCase) error {
	var fields []string
	for _, detail := range status.Convert(err).Details() {
		if bad, ok := detail.(*errdetails.BadRequest); ok {
			for _, v := range bad.GetFieldViolations() {
				fields = append(fields, v.GetField())
			}
		}
	}
	if want.Field != "" && !slices.Contains(fields, want.Field) {
		return fmt.Errorf("the violated fields are %q, want %q among them: %w", fields, want.Field, err)
	}
	if want.Reason == sdk.ReasonInvalidParameters && len(fields) == 0 {
		return fmt.Errorf("INVALID_PARAMETERS without a field: %w", err)
	}
	return nil
}

// errorCases makes the harness' requests that fail, by both protocols.
func errorCases(ctx context.Context, s *suite) error {
	if len(s.h.Errors) == 0 {
		return skipf("the harness has no Errors")
	}
	var errs []error
	for _, c := range s.h.Errors {
		if err := s.errorCase(ctx, c); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", c.Name, err))
		}
	}
	return errors.Join(errs...)
}

func (s *suite) errorCase(ctx context.Context, c ErrorCase) error {
	if c.Setup != nil {
		undo, err := c.Setup()
		if err != nil {
			return fmt.Errorf("set up: %w", err)
		}
		defer undo()
	}
	req := s.request(s.h.Valid)
	if c.Request != nil {
		c.Request(req)
	}
	_, err := s.fetch(ctx, req)
	if err := checkError(err, c); err != nil {
		return fmt.Errorf("fetch: %w", err)
	}
	meta := rpc.FromError(err).Metadata
	if meta["provider"] != s.h.Definition().Name || meta["secret_provider_class"] != req.SecretProviderClass {
		return fmt.Errorf("fetch: the error names provider %q and class %q", meta["provider"], meta["secret_provider_class"])
	}
	if s.h.WithoutV1alpha1 != "" {
		return nil
	}
	in, err := mountRequest(req, false)
	if err != nil {
		return err
	}
	if _, err := s.mount(ctx, in); err != nil {
		err = checkError(err, c)
		if err != nil {
			return fmt.Errorf("mount: %w", err)
		}
		return nil
	}
	return errors.New("mount: no error, though Fetch gives one")
}

// malformedParameters checks what a provider says of YAML that is none.
func malformedParameters(ctx context.Context, s *suite) error {
	name := s.h.YAMLParameter
	switch name {
	case "-":
		return skipf("the provider has no parameter in YAML")
	case "":
		name = "objects"
	}
	for _, text := range []string{"- a: [", "{}: - \t", "just text", "- - -"} {
		req := s.request(s.h.Valid)
		req.Parameters[name] = text
		_, err := s.fetch(ctx, req)
		if err := checkError(err, ErrorCase{Reason: sdk.ReasonInvalidParameters}); err != nil {
			return fmt.Errorf("with %s %q: %w", name, text, err)
		}
	}
	return nil
}

// cancellation checks that a fetch ends when its caller has left: the provider
// drains before it ends, so it ends soon only if no fetch goes on.
func cancellation(ctx context.Context, s *suite) error {
	if _, err := s.started(ctx); err != nil {
		return err
	}
	req := s.request(s.h.Valid)
	call, cancel := context.WithCancel(ctx)
	defer cancel()
	returned := make(chan error, 1)
	reached, release := make(<-chan struct{}), func() {}
	if s.h.Hang != nil {
		reached, release = s.h.Hang()
	} else {
		cancel()
	}
	defer release()
	go func() {
		_, err := s.fetch(call, req)
		returned <- err
	}()
	select {
	case <-reached:
	case <-call.Done():
	case err := <-returned:
		return fmt.Errorf("fetch ended before the store was reached: %w", err)
	}
	cancel()
	if err := <-returned; s.h.Hang != nil && status.Code(err) != codes.Canceled {
		return fmt.Errorf("fetch of a caller who has left: %w", err)
	}
	start := time.Now()
	if err := s.stop(); err != nil {
		return fmt.Errorf("a fetch goes on though its caller has left: %w", err)
	}
	if took := time.Since(start); took > promptly {
		return fmt.Errorf("a fetch went on for %s after its caller had left", took)
	}
	return nil
}

// health checks health by gRPC and by HTTP, and that metrics are served.
func health(ctx context.Context, s *suite) error {
	p, err := s.started(ctx)
	if err != nil {
		return err
	}
	resp, err := p.health.Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		return fmt.Errorf("health by gRPC: %w", err)
	}
	if resp.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		return fmt.Errorf("health by gRPC is %s", resp.GetStatus())
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		if _, err := p.get(ctx, path); err != nil {
			return err
		}
	}
	if _, err := s.fetchCase(ctx, s.h.Valid, s.request(s.h.Valid)); err != nil {
		return err
	}
	metrics, err := p.get(ctx, "/metrics")
	if err != nil {
		return err
	}
	want := fmt.Sprintf("provider=%q", s.h.Definition().Name)
	for line := range strings.Lines(metrics) {
		if strings.HasPrefix(line, "postern_provider_fetch_duration_seconds_count{") && strings.Contains(line, want) {
			return nil
		}
	}
	return errors.New("/metrics does not count the fetch")
}

func (p *instance) get(ctx context.Context, path string) (string, error) {
	address, err := p.address(ctx)
	if err != nil {
		return "", err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		return "", fmt.Errorf("get %s: %w", path, err)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return "", fmt.Errorf("get %s: %w", path, err)
	}
	body, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return "", fmt.Errorf("get %s: %w", path, err)
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("get %s: status %d: %s", path, resp.StatusCode, body)
	}
	return string(body), nil
}

// noLeaks looks for tokens, secrets and contents in all that has come out.
func noLeaks(ctx context.Context, s *suite) error {
	p, err := s.started(ctx)
	if err != nil {
		return err
	}
	if _, err := s.fetch(ctx, s.request(s.h.Valid)); err != nil {
		return fmt.Errorf("fetch: %w", err)
	}
	metrics, err := p.get(ctx, "/metrics")
	if err != nil {
		return err
	}
	if err := s.stop(); err != nil { // sends the last spans
		return err
	}
	spans := s.spans.spans.String()
	if !strings.Contains(spans, "provider.Fetch") {
		return errors.New("the provider has sent no span provider.Fetch")
	}
	s.noteText("the metrics", metrics)
	s.noteText("the logs", s.logs.String())
	s.noteText("the spans", spans)

	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for canary, what := range s.canaries {
		for where, text := range s.texts {
			if leaked(text, canary) {
				errs = append(errs, fmt.Errorf("%s is in %s", what, where))
			}
		}
	}
	for label, what := range s.labels {
		if strings.Contains(metrics, label) {
			errs = append(errs, fmt.Errorf("%s (%s) is in the metrics, where labels must be few", what, label))
		}
	}
	return errors.Join(errs...)
}

// leaked reports whether a text holds a canary, as it is or encoded.
func leaked(text, canary string) bool {
	quoted := fmt.Sprintf("%q", canary)
	for _, form := range []string{
		canary, quoted[1 : len(quoted)-1],
		base64.StdEncoding.EncodeToString([]byte(canary)), base64.RawURLEncoding.EncodeToString([]byte(canary)),
		hex.EncodeToString([]byte(canary)),
	} {
		if strings.Contains(text, form) {
			return true
		}
	}
	return false
}
