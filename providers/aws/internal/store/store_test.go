package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/ssm"

	"github.com/postern-dev/postern/providers/aws/internal/params"
)

// TestSignedByTheRegionsCredentials: the provider's own, which can do everything,
// sign nothing.
func TestSignedByTheRegionsCredentials(t *testing.T) {
	t.Parallel()
	m := &memoryAWS{secrets: []*memorySecret{current("a"), current("b"), current("c")}, parameters: []*memoryParameter{parameter("p", "v")}}
	s := m.store()
	for _, identity := range []string{"web", "db", "web"} {
		read(t, s, as(identity), secretRef("a"), secretRef("b"), secretRef("c").label("AWSCURRENT").version(versionOf("c")), parameterRef("p"))
		if _, _, err := s.Versions(t.Context(), as(identity), []Ref{secretRef("a"), parameterRef("p")}); err != nil {
			t.Fatal(err)
		}
		for _, service := range []params.Service{params.SecretsManager, params.ParameterStore} {
			if _, err := s.List(t.Context(), as(identity), service, &params.Select{NamePrefix: "a", Limit: 1}); err != nil {
				t.Fatal(err)
			}
		}
		for _, r := range m.requests {
			if r.accessKey != "ASIA"+identity || r.header.Get("X-Amz-Security-Token") != tokenOf || r.region != home {
				t.Errorf("%s is signed with %s for %s", r.operation, r.accessKey, r.region)
			}
		}
		if got, want := m.operations(), "BatchGetSecretValue:1 DescribeParameters:1 DescribeSecret:1 GetParameters:2 GetSecretValue:1 ListSecrets:1"; got != want {
			t.Errorf("requests are %q, want %q", got, want)
		}
	}
}

// TestEndpoints: partitions, FIPS and endpoints of the environment are the SDK's.
func TestEndpoints(t *testing.T) {
	t.Parallel()
	for region, want := range map[string][2]string{
		"eu-west-1":     {"secretsmanager.eu-west-1.amazonaws.com", "ssm.eu-west-1.amazonaws.com"},
		"cn-north-1":    {"secretsmanager.cn-north-1.amazonaws.com.cn", "ssm.cn-north-1.amazonaws.com.cn"},
		"us-gov-west-1": {"secretsmanager.us-gov-west-1.amazonaws.com", "ssm.us-gov-west-1.amazonaws.com"},
	} {
		m := &memoryAWS{}
		s := m.store()
		read(t, s, inRegion(region, "web"), secretRef("a"))
		read(t, s, inRegion(region, "web"), parameterRef("a"))
		if got := [2]string{m.requests[0].host, m.requests[1].host}; got != want {
			t.Errorf("hosts of %s are %q, want %q", region, got, want)
		}
	}
	m := &memoryAWS{}
	cfg := aws.Config{HTTPClient: &http.Client{Transport: m}, ConfigSources: []any{fips{}}}
	read(t, New(Config{AWS: cfg}), inRegion("us-east-1", "web"), secretRef("a"))
	cfg.BaseEndpoint = aws.String("https://vpce.example")
	cfg.ConfigSources = nil
	read(t, New(Config{AWS: cfg}), inRegion("us-east-1", "web"), secretRef("a"))
	if got, want := m.requests[0].host+" "+m.requests[1].host, "secretsmanager-fips.us-east-1.amazonaws.com vpce.example"; got != want {
		t.Errorf("hosts are %s, want %s", got, want)
	}
}

// fips is what the SDK's configuration has of AWS_USE_FIPS_ENDPOINT.
type fips struct{}

func (fips) GetUseFIPSEndpoint(context.Context) (aws.FIPSEndpointState, bool, error) {
	return aws.FIPSEndpointStateEnabled, true, nil
}

// TestConcurrency: a call has no more requests under way than it may, and as many
// as it may.
func TestConcurrency(t *testing.T) {
	t.Parallel()
	for _, limit := range []int{0, 1, 3} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				running, most := 0, 0
				m := &memoryAWS{}
				m.hold = func(context.Context, request) {
					mu.Lock()
					running++
					most = max(most, running)
					mu.Unlock()
					pass(time.Second)
					mu.Lock()
					running--
					mu.Unlock()
				}
				var refs []Ref
				for i := range 24 {
					s := current(fmt.Sprintf("s%d", i))
					m.secrets = append(m.secrets, s)
					refs = append(refs, secretRef(s.name).version(versionOf(s.name)))
				}
				s := New(Config{AWS: aws.Config{HTTPClient: &http.Client{Transport: m}}, Concurrency: limit})
				want := limit
				if limit == 0 {
					want = 8
				}
				start := time.Now()
				read(t, s, as("web"), refs...)
				if took := time.Since(start); most != want || took != time.Duration(24/want)*time.Second {
					t.Errorf("%d requests at once, %s; want %d", most, took, want)
				}
			})
		})
	}
}

// TestNothingIsBegunAfterTheEnd: what waits for others to end is not done any more
// when the call has ended.
func TestNothingIsBegunAfterTheEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		begun := 0
		New(Config{Concurrency: 1}).each(ctx, 2, func(int) {
			begun++
			cancel()
			synctest.Wait()
		})
		if begun != 1 {
			t.Errorf("%d are begun, want 1", begun)
		}
	})
}

// TestCancel: a call ends with its ctx, while nothing answers.
func TestCancel(t *testing.T) {
	t.Parallel()
	for name, call := range map[string]func(ctx context.Context, s *Store) error{
		"read": func(ctx context.Context, s *Store) error {
			_, err := s.Read(ctx, as("web"), []Ref{secretRef("a"), secretRef("b").version("v"), parameterRef("p")})
			return err
		},
		"versions": func(ctx context.Context, s *Store) error {
			_, ok, err := s.Versions(ctx, as("web"), []Ref{secretRef("a"), secretRef("b"), parameterRef("p")})
			if ok {
				return nil
			}
			return err
		},
		"list": func(ctx context.Context, s *Store) error {
			_, err := s.List(ctx, as("web"), params.SecretsManager, &params.Select{NamePrefix: "a"})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				m := &memoryAWS{hold: func(ctx context.Context, _ request) { <-ctx.Done() }}
				s := m.store()
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() { done <- call(ctx, s) }()
				synctest.Wait()
				if len(m.requests) == 0 {
					t.Fatal("nothing is asked")
				}
				cancel()
				synctest.Wait()
				select {
				case err := <-done:
					if _, ofAWS := errors.AsType[*Error](err); ofAWS || !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), home) {
						t.Errorf("error is %v", err)
					}
				default:
					t.Error("the call goes on")
				}
				asked := len(m.requests)
				if err := call(ctx, s); !errors.Is(err, context.Canceled) || len(m.requests) != asked {
					t.Errorf("a call that has ended before: %v, %d more requests", err, len(m.requests)-asked)
				}
				late, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if err := call(late, s); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("error after the deadline is %v", err)
				}
			})
		})
	}
}

// TestClients: they are made once for a region, with the configuration's HTTP
// client and a retryer for each service, which requests keep.
func TestClients(t *testing.T) {
	t.Parallel()
	client := &http.Client{Transport: &memoryAWS{}}
	c := newClients(aws.Config{HTTPClient: client, Credentials: credentials.NewStaticCredentialsProvider("AKIAPROVIDER", "powerful", "")})
	one, two := c.of("eu-west-1"), c.of("eu-west-2")
	if one == two || c.of("eu-west-1") != one {
		t.Error("regions do not have clients of their own, once")
	}
	if one.secrets.Options().Retryer == two.secrets.Options().Retryer || one.secrets.Options().Retryer == one.parameters.Options().Retryer {
		t.Error("a retryer is shared by regions or services")
	}
	a, b := newAttempts(t.Context()), newAttempts(t.Context())
	of := &caller{clients: one, signing: func(context.Context) (aws.Credentials, error) { return aws.Credentials{AccessKeyID: "k"}, nil }}
	secrets, parameters := one.secrets.Options(), one.parameters.Options()
	of.forSecrets(a)(&secrets)
	of.forParameters(b)(&parameters)
	if a.RetryerV2 != one.secrets.Options().Retryer || b.RetryerV2 != one.parameters.Options().Retryer {
		t.Error("a request does not use its client's retryer")
	}
	if secrets.HTTPClient != secretsmanager.HTTPClient(client) || parameters.HTTPClient != ssm.HTTPClient(client) {
		t.Error("a request does not use the configuration's HTTP client")
	}
	if one.secrets.Options().Credentials != nil || one.parameters.Options().Credentials != nil {
		t.Error("a client has credentials")
	}
}

// TestClientsAreBounded: the region not used for longest goes.
func TestClientsAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newClients(aws.Config{HTTPClient: &http.Client{Transport: &memoryAWS{}}})
		first := c.of("r0")
		for i := range maxRegions {
			pass(time.Second)
			c.of(fmt.Sprintf("r%d", i))
		}
		pass(time.Second)
		second := c.of("r1")
		if c.of("r0") != first { // used last now
			t.Error("a region is dropped while there is room")
		}
		pass(time.Second)
		c.of("another")
		if len(c.byRegion) != maxRegions || c.byRegion["r0"] != first || c.byRegion["r1"] != second || c.byRegion["r2"] != nil {
			t.Errorf("%d regions; the one not used for longest is kept", len(c.byRegion))
		}
	})
}

// TestRefusalsAreLogged: once, with what AWS said.
func TestRefusalsAreLogged(t *testing.T) {
	t.Parallel()
	b := current("b")
	b.fails, b.says = "AccessDeniedException", "not authorized to perform: secretsmanager:DescribeSecret"
	m := &memoryAWS{secrets: []*memorySecret{current("a"), b}}
	m.script = func(r request) *reply {
		if r.operation == "BatchGetSecretValue" {
			return denial("secretsmanager:BatchGetSecretValue", "*")
		}
		return nil
	}
	var log strings.Builder
	s := New(Config{
		AWS:    aws.Config{HTTPClient: &http.Client{Transport: m}},
		Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	for range 2 {
		read(t, s, as("web"), secretRef("a"), secretRef("b"))
		if _, ok, _ := s.Versions(t.Context(), as("web"), []Ref{secretRef("b")}); ok {
			t.Error("versions are told")
		}
	}
	for _, want := range []string{"level=INFO msg=\"secrets are read one by one", "level=DEBUG msg=\"a secret is read to see", "region=" + home, "AccessDeniedException"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("log has no %q:\n%s", want, &log)
		}
	}
	if n := strings.Count(log.String(), "\n"); n != 2 || strings.Contains(log.String(), "canary") {
		t.Errorf("log has %d lines:\n%s", n, &log)
	}
}

func BenchmarkRead20Secrets(b *testing.B) {
	m := &memoryAWS{}
	var refs []Ref
	for i := range 20 {
		s := current(fmt.Sprintf("s%d", i))
		m.secrets, refs = append(m.secrets, s), append(refs, secretRef(s.name))
	}
	s := m.store()
	b.ReportAllocs()
	for b.Loop() {
		m.requests = nil
		answers, err := s.Read(b.Context(), as("web"), refs)
		if err != nil || answers[19].Err != nil || len(m.requests) != 1 {
			b.Fatal(err, answers[19].Err, len(m.requests))
		}
	}
}
