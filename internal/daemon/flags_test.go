package daemon_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-dev/postern/internal/daemon"
)

// values is one flag of each type.
type values struct {
	Format   string
	Pprof    bool
	Burst    int
	Rate     float64
	Drain    time.Duration
	UIDs     []string
	Audience string
	Output   string
}

func newFlags(v *values) *daemon.Flags {
	f := daemon.NewFlags("postern-test", "does nothing at all.")
	f.String(&v.Output, "o", "table", "`table|wide`")
	f.Float(&v.Rate, "rate", 2.5, "calls per second")
	f.Int(&v.Burst, "burst", 10, "calls at once")
	f.Group("Server")
	f.StringSlice(&v.UIDs, "allowed-uids", []string{"0", "65532"}, "`uids` that may call")
	f.Duration(&v.Drain, "drain-timeout", 25*time.Second, "how long calls may take\nat the end")
	f.Group("Telemetry")
	f.String(&v.Format, "log.format", "json", "`text|json`")
	f.Bool(&v.Pprof, "pprof", false, "serve profiles")
	v.Audience = "a"
	f.Func("audience", v.Audience, "the `name` in tokens", func(s string) error {
		if s == "bad" {
			return errors.New("is bad")
		}
		v.Audience = s
		return nil
	})
	return f
}

func defaults() values {
	return values{
		Format: "json", Burst: 10, Rate: 2.5, Drain: 25 * time.Second,
		UIDs: []string{"0", "65532"}, Audience: "a", Output: "table",
	}
}

func parse(v *values, env map[string]string, args ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	err := newFlags(v).Parse(daemon.Env{
		Args: args, Stdout: &stdout, Stderr: &stderr,
		Getenv: func(name string) string { return env[name] },
	})
	return stdout.String() + stderr.String(), err
}

func TestFlags_Parse(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		args   []string
		env    map[string]string
		mutate func(*values)
	}{
		"defaults":      {mutate: func(*values) {}},
		"two dashes":    {args: []string{"--burst", "3"}, mutate: func(v *values) { v.Burst = 3 }},
		"one dash":      {args: []string{"-burst=3"}, mutate: func(v *values) { v.Burst = 3 }},
		"float":         {args: []string{"--rate=0.5"}, mutate: func(v *values) { v.Rate = 0.5 }},
		"bool":          {args: []string{"--pprof"}, mutate: func(v *values) { v.Pprof = true }},
		"func":          {args: []string{"--audience=b"}, mutate: func(v *values) { v.Audience = "b" }},
		"end of flags":  {args: []string{"--pprof", "--"}, mutate: func(v *values) { v.Pprof = true }},
		"list":          {args: []string{"--allowed-uids=1, 2,"}, mutate: func(v *values) { v.UIDs = []string{"1", "2"} }},
		"list repeated": {args: []string{"--allowed-uids=1", "--allowed-uids=2,3"}, mutate: func(v *values) { v.UIDs = []string{"1", "2", "3"} }},
		"list emptied":  {args: []string{"--allowed-uids="}, mutate: func(v *values) { v.UIDs = nil }},
		"environment": {
			env: map[string]string{
				"POSTERN_BURST": "4", "POSTERN_RATE": "1", "POSTERN_PPROF": "true", "POSTERN_DRAIN_TIMEOUT": "1m",
				"POSTERN_LOG_FORMAT": "text", "POSTERN_ALLOWED_UIDS": "5,6", "POSTERN_AUDIENCE": "c",
			},
			mutate: func(v *values) {
				*v = values{Burst: 4, Rate: 1, Pprof: true, Drain: time.Minute, Format: "text", UIDs: []string{"5", "6"}, Audience: "c", Output: "table"}
			},
		},
		"empty environment": {env: map[string]string{"POSTERN_LOG_FORMAT": ""}, mutate: func(*values) {}},
		"arguments win": {
			env:    map[string]string{"POSTERN_BURST": "4", "POSTERN_ALLOWED_UIDS": "5,6"},
			args:   []string{"--burst=3", "--allowed-uids=7"},
			mutate: func(v *values) { v.Burst, v.UIDs = 3, []string{"7"} },
		},
		"arguments win over nonsense": {
			env: map[string]string{"POSTERN_BURST": "many"}, args: []string{"--burst=3"},
			mutate: func(v *values) { v.Burst = 3 },
		},
		"one letter is no variable": {env: map[string]string{"POSTERN_O": "wide"}, mutate: func(*values) {}},
		"one letter":                {args: []string{"-o", "wide"}, mutate: func(v *values) { v.Output = "wide" }},
		"version is no variable":    {env: map[string]string{"POSTERN_VERSION": "true"}, mutate: func(*values) {}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got values
			if out, err := parse(&got, tt.env, tt.args...); err != nil || out != "" {
				t.Fatalf("error %v, output %q", err, out)
			}
			want := defaults()
			tt.mutate(&want)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestFlags_UsageErrors(t *testing.T) {
	t.Parallel()
	for want, tt := range map[string]struct {
		args []string
		env  map[string]string
	}{
		"flag provided but not defined: -x":                    {args: []string{"--x"}},
		"flag needs an argument: -burst":                       {args: []string{"--burst"}},
		`invalid value "many" for flag -burst: parse error`:    {args: []string{"--burst=many"}},
		`invalid value "bad" for flag -audience: is bad`:       {args: []string{"--audience=bad"}},
		`unexpected argument "serve": only flags are accepted`: {args: []string{"serve"}},
		`invalid value "many" for environment variable POSTERN_BURST: parse error` + "\n" +
			`invalid value "soon" for environment variable POSTERN_DRAIN_TIMEOUT: parse error`: {env: map[string]string{"POSTERN_BURST": "many", "POSTERN_DRAIN_TIMEOUT": "soon"}},
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			out, err := parse(new(values), tt.env, tt.args...)
			var usage *daemon.UsageError
			if !errors.As(err, &usage) || err.Error() != want || out != "" {
				t.Errorf("error %T %v, output %q, want %s", err, err, out, want)
			}
		})
	}
}

const wantHelp = `postern-test: does nothing at all.

Usage: postern-test [flags]

General:
  --burst int
        calls at once (default 10; POSTERN_BURST)
  -o table|wide
        table|wide (default table)
  --rate float
        calls per second (default 2.5; POSTERN_RATE)

Server:
  --allowed-uids uids
        uids that may call (default 0,65532; POSTERN_ALLOWED_UIDS)
  --drain-timeout duration
        how long calls may take
        at the end (default 25s; POSTERN_DRAIN_TIMEOUT)

Telemetry:
  --audience name
        the name in tokens (default a; POSTERN_AUDIENCE)
  --log.format text|json
        text|json (default json; POSTERN_LOG_FORMAT)
  --pprof
        serve profiles (POSTERN_PPROF)

Information:
  --help
        print this, and exit
  --version
        print what this is built from, and exit
`

func TestFlags_Help(t *testing.T) {
	t.Parallel()
	for _, arg := range []string{"--help", "-help", "-h"} {
		out, err := parse(new(values), nil, arg)
		if !errors.Is(err, flag.ErrHelp) {
			t.Errorf("%s: error %v, want ErrHelp", arg, err)
		}
		if diff := cmp.Diff(wantHelp, out); diff != "" {
			t.Errorf("%s (-want +got):\n%s", arg, diff)
		}
	}
}

func TestFlags_Version(t *testing.T) {
	t.Parallel()
	out, err := parse(new(values), nil, "--version")
	if !errors.Is(err, flag.ErrHelp) {
		t.Errorf("error %v, want ErrHelp", err)
	}
	if want := "postern-test " + daemon.BuildInfo().String() + "\n"; out != want {
		t.Errorf("version = %q, want %q", out, want)
	}
}

func TestFlags_PrintFails(t *testing.T) {
	t.Parallel()
	err := newFlags(new(values)).Parse(daemon.Env{Args: []string{"--help"}, Stdout: brokenWriter{}})
	if errors.Is(err, flag.ErrHelp) || fmt.Sprint(err) != "print: closed pipe" {
		t.Errorf("error = %v", err)
	}
}

// withCommands has no flags but commands.
func withCommands() *daemon.Flags {
	f := daemon.NewFlags("postern-test", "does nothing at all.")
	f.Command("status", "print how it is")
	f.Command("policy check", "say what is wrong with a policy")
	return f
}

func TestFlags_Commands(t *testing.T) {
	t.Parallel()
	const wantHelp = `postern-test: does nothing at all.

Usage: postern-test [flags]
       postern-test COMMAND [flags]

Commands (COMMAND --help tells more):
  status
        print how it is
  policy check
        say what is wrong with a policy

Information:
  --help
        print this, and exit
  --version
        print what this is built from, and exit
`
	var stdout bytes.Buffer
	if err := withCommands().Parse(daemon.Env{Args: []string{"--help"}, Stdout: &stdout}); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("error %v, want ErrHelp", err)
	}
	if diff := cmp.Diff(wantHelp, stdout.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for want, args := range map[string][]string{
		`unexpected argument "stats": there are flags, and the commands status, policy check`:  {"stats"},
		`unexpected argument "policy": there are flags, and the commands status, policy check`: {"policy"},
		`"policy check" comes first, before all flags`:                                         {"--", "policy", "check", "-"},
	} {
		var usage *daemon.UsageError
		if err := withCommands().Parse(daemon.Env{Args: args}); !errors.As(err, &usage) || err.Error() != want || usage.Program != "postern-test" {
			t.Errorf("%q: error %T %v, want %s", args, err, err, want)
		}
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("closed pipe") }

func TestFlags_Docs(t *testing.T) {
	t.Parallel()
	docs := newFlags(new(values)).Docs()
	want := []daemon.FlagDoc{
		{Name: "burst", Env: "POSTERN_BURST", Group: "General", Type: "int", Default: "10", Usage: "calls at once"},
		{Name: "o", Group: "General", Type: "table|wide", Default: "table", Usage: "table|wide"},
		{Name: "rate", Env: "POSTERN_RATE", Group: "General", Type: "float", Default: "2.5", Usage: "calls per second"},
		{Name: "allowed-uids", Env: "POSTERN_ALLOWED_UIDS", Group: "Server", Type: "uids", Default: "0,65532", Usage: "uids that may call"},
		{Name: "drain-timeout", Env: "POSTERN_DRAIN_TIMEOUT", Group: "Server", Type: "duration", Default: "25s", Usage: "how long calls may take\nat the end"},
		{Name: "audience", Env: "POSTERN_AUDIENCE", Group: "Telemetry", Type: "name", Default: "a", Usage: "the name in tokens"},
		{Name: "log.format", Env: "POSTERN_LOG_FORMAT", Group: "Telemetry", Type: "text|json", Default: "json", Usage: "text|json"},
		{Name: "pprof", Env: "POSTERN_PPROF", Group: "Telemetry", Default: "false", Usage: "serve profiles"},
	}
	if diff := cmp.Diff(want, docs); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestBuildInfo(t *testing.T) {
	t.Parallel()
	b := daemon.BuildInfo()
	if b.Version == "" || b.Revision == "" || b.Time == "" || !strings.HasPrefix(b.Go, "go1.") {
		t.Errorf("BuildInfo = %+v, want no empty field", b)
	}
}
