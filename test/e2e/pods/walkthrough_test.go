package pods_test

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/postern-dev/postern/test/build"
)

// testWalkThrough does what users read in the documentation of the Vault
// provider, with the commands and manifests as they are there.
func testWalkThrough(t *testing.T) {
	t.Parallel()
	dumpIfFailed(t, "default")
	bao, err := shared.builder.Server(t.Context(), build.Bao())
	must(t, err)
	bin := t.TempDir()
	must(t, os.Symlink(bao, filepath.Join(bin, "vault")))
	script, err := filepath.Abs("testdata/walkthrough.sh")
	must(t, err)
	cmd := shared.cluster.Command(t.Context(), "bash", script)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.Env = append(cmd.Environ(),
		"PATH="+bin+":"+pathOf(cmd.Environ()), "HOME="+bin,
		"VAULT_ADDR="+shared.bao.ClusterAddress, "VAULT_TOKEN="+shared.bao.RootToken())
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s%s", err, stdout.String(), stderr.String())
	}
	t.Cleanup(func() {
		kubectl(t, "delete", "deployment/mycsiapp", "secretproviderclass/mycsispc", "serviceaccount/mycsiserviceaccount", "--wait=false")
	})

	lines := strings.Split(strings.TrimSpace(stdout.String()), "\n")
	for i, want := range []string{
		`^total 0$`,
		`^lrwxrwxrwx +1 (root|0) +(root|0) +17 .* myPassword -> \.\.data/myPassword$`,
		`^lrwxrwxrwx +1 (root|0) +(root|0) +17 .* myUsername -> \.\.data/myUsername$`,
		`^adminp4ssw0rd$`,
	} {
		if i >= len(lines) || !regexp.MustCompile(want).MatchString(lines[i]) {
			t.Fatalf("line %d is not %s; all:\n%s", i+1, want, stdout.String())
		}
	}
}

// pathOf returns the PATH of an environment.
func pathOf(environment []string) string {
	path := ""
	for _, entry := range environment {
		if value, ok := strings.CutPrefix(entry, "PATH="); ok {
			path = value
		}
	}
	return path
}

// typed runs what readers are told to type, in a directory whose programs come
// before those of the system.
func typed(t *testing.T, dir, script string) {
	t.Helper()
	bash := shared.cluster.Command(t.Context(), "bash", "-euo", "pipefail", "-c", "cd "+dir+"\n"+script)
	var printed bytes.Buffer
	bash.Stdout, bash.Stderr = &printed, &printed
	bash.Env = append(bash.Environ(), "PATH="+dir+":"+pathOf(bash.Environ()))
	if err := bash.Run(); err != nil {
		t.Fatalf("%v\n%s", err, printed.String())
	}
}
