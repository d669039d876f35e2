// Package prometheus runs a real Prometheus, Debian's, for tests: it scrapes what
// it is told to, evaluates rules and answers queries. And it runs promtool, which
// checks and tests rules.
package prometheus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/postern-dev/postern/test/ports"
	"github.com/postern-dev/postern/test/process"
)

// defaultInterval suits a machine that has other things to do.
const defaultInterval = time.Second

const (
	readyTimeout = time.Minute
	stopTimeout  = 15 * time.Second
)

// Target is something to scrape at /metrics.
type Target struct {
	// Job is the label of that name. Required.
	Job string
	// Address is host:port. Required.
	Address string
	// Labels are added to every series of the target.
	Labels map[string]string
}

// Config is what a Server needs.
type Config struct {
	// Dir is an existing directory for its files. Required.
	Dir string
	// Targets to scrape.
	Targets []Target
	// Rules are paths of files with rules.
	Rules []string
	// Interval of scrapes and of evaluations; 0 is a second.
	Interval time.Duration
}

// Server is a running Prometheus.
type Server struct {
	// URL is where it serves.
	URL string

	process *process.Process
}

// Start starts it and waits until it answers. It keeps exemplars, and asks for
// them by asking for OpenMetrics.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	program, err := find("prometheus")
	if err != nil {
		return nil, err
	}
	config := filepath.Join(cfg.Dir, "prometheus.yaml")
	if err := cfg.write(config); err != nil {
		return nil, err
	}
	free, err := ports.Free(ctx, 1)
	if err != nil {
		return nil, err
	}
	address := "127.0.0.1:" + strconv.Itoa(free[0])
	s := &Server{URL: "http://" + address}
	if s.process, err = process.Start(process.Config{
		Name: "prometheus", Path: program, Dir: cfg.Dir, LogFile: filepath.Join(cfg.Dir, "prometheus.log"),
		Args: []string{
			"--config.file=" + config, "--storage.tsdb.path=" + filepath.Join(cfg.Dir, "data"),
			"--web.listen-address=" + address, "--enable-feature=exemplar-storage",
		},
	}); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	ready := func(ctx context.Context) error {
		_, err := s.get(ctx, "/-/ready", nil)
		return err
	}
	if err := s.process.WaitFor(ctx, ready); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

// Stop ends it.
func (s *Server) Stop() error { return s.process.Stop(stopTimeout) }

// write writes the configuration file.
func (c Config) write(path string) error {
	interval := cmp.Or(c.Interval, defaultInterval)
	targets := map[string][]map[string]any{}
	for _, target := range c.Targets {
		targets[target.Job] = append(targets[target.Job], map[string]any{
			"targets": []string{target.Address}, "labels": target.Labels,
		})
	}
	jobs := []map[string]any{}
	for _, job := range slices.Sorted(maps.Keys(targets)) {
		jobs = append(jobs, map[string]any{"job_name": job, "static_configs": targets[job]})
	}
	text := strconv.FormatInt(interval.Milliseconds(), 10) + "ms"
	contents, err := yaml.Marshal(map[string]any{
		"global":         map[string]any{"scrape_interval": text, "scrape_timeout": text, "evaluation_interval": text},
		"rule_files":     c.Rules,
		"scrape_configs": jobs,
	})
	if err != nil {
		return fmt.Errorf("write Prometheus' configuration: %w", err)
	}
	if err := os.WriteFile(path, contents, 0o600); err != nil {
		return fmt.Errorf("write Prometheus' configuration: %w", err)
	}
	return nil
}

// find returns the path of a program of Debian's package.
func find(program string) (string, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return "", fmt.Errorf("this machine lacks %s (make packages installs it): apt-get install -y --no-install-recommends prometheus: %w", program, err)
	}
	return path, nil
}
