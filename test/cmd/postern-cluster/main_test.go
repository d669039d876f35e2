package main

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWhatIsWrongWithAnInvocationIsSaid(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "cluster")
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"no such command":         {args: []string{"sideways"}, want: `no such command: "sideways"`},
		"no command":              {want: "no such command"},
		"kubectl without cluster": {args: []string{"kubectl", "get", "pods"}, want: "postern-cluster up starts one"},
		"status without cluster":  {args: []string{"status"}, want: "postern-cluster up starts one"},
		"reboot without cluster":  {args: []string{"reboot"}, want: "postern-cluster up starts one"},
		"logs without cluster":    {args: []string{"logs"}, want: "no logs in " + dir},
		"import of nothing":       {args: []string{"import"}, want: "which tarballs"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := run(t.Context(), append([]string{"--dir", dir}, test.args...))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("postern-cluster %s: %v, want %q", strings.Join(test.args, " "), err, test.want)
			}
		})
	}
}

func TestHelpNamesEveryCommand(t *testing.T) {
	t.Parallel()
	if err := run(t.Context(), []string{"--help"}); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("--help: %v", err)
	}
	for _, name := range []string{"up", "down", "status", "kubectl", "shell", "logs", "import", "reboot", "packages"} {
		if !strings.Contains(usage, "\n  "+name+" ") {
			t.Errorf("the help does not name %s", name)
		}
	}
}

// Down is for what a crash has left, so there may be nothing to end.
func TestDownOfNothing(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if err := run(t.Context(), []string{"--dir", filepath.Join(t.TempDir(), "cluster"), "down"}); err != nil {
		t.Errorf("down: %v", err)
	}
}
