package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"time"

	"github.com/postern-dev/postern/test/bench/provider"
	"github.com/postern-dev/postern/test/harness"
	"github.com/postern-dev/postern/test/kubelet"
	"github.com/postern-dev/postern/test/process"
)

// The two that are compared.
const (
	upstreamName = "upstream 1.6.0"
	posternName  = "Postern"
)

// stopTimeout is how long a daemon may take to end.
const stopTimeout = 15 * time.Second

// side is one of the two that are compared, running: a driver with what belongs
// to it, and a provider of its own.
type side struct {
	name string
	// slug is the name in names of namespaces, node that of its node.
	slug, node string
	kubelet    *kubelet.Kubelet
	// daemons are all that belongs to the driver; the provider's price is the
	// same for both.
	daemons  []*process.Process
	provider *process.Process
	// metrics is the address of the provider's.
	metrics string
	end     func() error
}

// options say how a side is started; the zero value is as it is installed.
type options struct {
	// interval is how old a volume's content is when it is fetched again; 0 is
	// each side's default, which for upstream's is never.
	interval time.Duration
}

// startPostern starts Postern's driver, gateway and the provider.
func (e *environment) startPostern(ctx context.Context, o options) (*side, error) {
	cfg := harness.Config{
		Binaries:   e.daemons,
		Programs:   map[string]string{providerProgram: e.provider},
		Providers:  map[string][]string{provider.Name: nil},
		Kubeconfig: e.kubeconfig,
		Dir:        e.dir,
	}
	if o.interval > 0 {
		cfg.DriverArgs = []string{"--rotation-poll-interval", o.interval.String()}
	}
	n, err := harness.Start(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return &side{
		name: posternName, slug: "postern", node: "node-1",
		kubelet:  n.Kubelet,
		daemons:  []*process.Process{n.Driver.Process, n.Gateway.Process},
		provider: n.Providers[provider.Name].Process,
		metrics:  n.Providers[provider.Name].Admin,
		end:      n.Close,
	}, nil
}

// pair has a figure of each side.
type pair[T any] struct{ upstream, postern T }

// both runs the same on each side, one after the other, each started anew.
func both[T any](ctx context.Context, e *environment, o options, run func(context.Context, *side) (T, error)) (pair[T], error) {
	var p pair[T]
	for _, c := range []struct {
		name   string
		start  func(context.Context, options) (*side, error)
		result *T
	}{{upstreamName, e.startUpstream, &p.upstream}, {posternName, e.startPostern, &p.postern}} {
		e.say("  %s", c.name)
		if err := e.with(ctx, o, c.start, func(ctx context.Context, s *side) (err error) {
			*c.result, err = run(ctx, s)
			return err
		}); err != nil {
			return p, fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return p, nil
}

// with runs something on a side that is started for it and ended after it.
func (e *environment) with(ctx context.Context, o options, start func(context.Context, options) (*side, error),
	run func(context.Context, *side) error,
) (err error) {
	s, err := start(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.end()) }()
	if err = e.warmUp(ctx, s); err == nil {
		err = run(ctx, s)
	}
	if err != nil {
		return fmt.Errorf("%w; the end of the driver's log:\n%s", err, tail(s.daemons[0].Log()))
	}
	return nil
}

// tail is the end of a log.
func tail(log string) string {
	const enough = 4000
	return log[max(0, len(log)-enough):]
}

// warmUp mounts one volume of a class that nobody else uses, as on a node that
// is up.
func (e *environment) warmUp(ctx context.Context, s *side) error {
	w, err := e.prepare(ctx, s, workload{name: "warm-up", volumes: 1, accounts: 1})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if r := s.publishUntilMounted(ctx, w.volumes); r.err != nil {
		return fmt.Errorf("the first mount: %w", r.err)
	}
	return e.remove(ctx, s, w)
}

// calls are a provider's since it started.
type calls struct{ all, refused int }

func (c calls) since(before calls) calls {
	return calls{all: c.all - before.all, refused: c.refused - before.refused}
}

// countCalls reads the provider's metrics.
func (s *side) countCalls(ctx context.Context) (calls, error) {
	text, err := get(ctx, "http://"+s.metrics+"/metrics")
	if err != nil {
		return calls{}, fmt.Errorf("count the provider's calls: %w", err)
	}
	var c calls
	for _, match := range regexp.MustCompile(`(?m)^postern_provider_fetch_duration_seconds_count\{([^}]*)\} (\S+)$`).FindAllStringSubmatch(text, -1) {
		n, err := strconv.ParseFloat(match[2], 64)
		if err != nil {
			return calls{}, fmt.Errorf("count the provider's calls: %w", err)
		}
		c.all += int(n)
		if regexp.MustCompile(`(^|,)reason="RATE_LIMITED"`).MatchString(match[1]) {
			c.refused += int(n)
		}
	}
	return c, nil
}

// counted runs something and counts the provider's calls meanwhile.
func (s *side) counted(ctx context.Context, run func() error) (calls, error) {
	before, err := s.countCalls(ctx)
	if err != nil {
		return calls{}, err
	}
	if err := run(); err != nil {
		return calls{}, err
	}
	after, err := s.countCalls(ctx)
	return after.since(before), err
}

func get(ctx context.Context, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return "", err
	}
	req.Close = true
	resp, err := (&http.Client{Timeout: stopTimeout}).Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answers %s", url, resp.Status)
	}
	return string(body), err
}
