package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-dev/postern/test/aws/control"
)

// start runs the program until the test ends, and returns its addresses.
func start(t *testing.T, args ...string) control.Addresses {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	reader, writer := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := program().Run(ctx, args, writer, io.Discard)
		_ = writer.CloseWithError(io.EOF)
		ended <- err
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run() = %v, want nil when it is told to end", err)
		}
	})
	line, err := bufio.NewReader(reader).ReadBytes('\n')
	if err != nil {
		t.Fatalf("it printed no addresses: %v", err)
	}
	var addresses control.Addresses
	if err := json.Unmarshal(line, &addresses); err != nil {
		t.Fatal(err)
	}
	return addresses
}

func write(t *testing.T, name, contents string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(contents), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAddressesAndSeed(t *testing.T) {
	t.Parallel()
	ready := filepath.Join(t.TempDir(), "ready.json")
	seed := write(t, "seed.json", `{"roles":[{"arn":"arn:aws-cn:iam::444455556666:role/app"}],"secrets":[{"region":"cn-north-1","name":"a","string":"b"}]}`)
	addresses := start(t, "--ready-file", ready, "--seed", seed, "--account", "444455556666", "--partition", "aws-cn", "--pod-identity6", "127.0.0.1:0", "--debug")
	contents, err := os.ReadFile(ready)
	if err != nil {
		t.Fatal(err)
	}
	var written control.Addresses
	if err := json.Unmarshal(contents, &written); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(addresses, written); diff != "" {
		t.Errorf("the ready file (-stdout +file):\n%s", diff)
	}
	if addresses.PodIdentity == "" || addresses.PodIdentity6 == "" || addresses.PodIdentity == addresses.PodIdentity6 {
		t.Errorf("the agent is at %q and %q", addresses.PodIdentity, addresses.PodIdentity6)
	}
	client := control.NewClient(addresses.Control)
	t.Cleanup(client.Close)
	applied, err := client.Apply(t.Context(), control.Document{Secrets: []control.Secret{{Region: "cn-north-1", Name: "a", Description: "d"}}})
	if err != nil {
		t.Fatal(err)
	}
	if got := applied.Secrets[0].ARN; !strings.HasPrefix(got, "arn:aws-cn:secretsmanager:cn-north-1:444455556666:secret:a-") {
		t.Errorf("the secret is %s", got)
	}
}

func TestArgumentsThatAreWrong(t *testing.T) {
	t.Parallel()
	absent := filepath.Join(t.TempDir(), "absent")
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"flag":                 {[]string{"--nonsense"}, "nonsense"},
		"argument":             {[]string{"nonsense"}, "unexpected arguments"},
		"address":              {[]string{"--listen", "nonsense"}, "listen at nonsense"},
		"seed":                 {[]string{"--seed", absent}, "read the seed"},
		"seed that is refused": {[]string{"--seed", write(t, "seed", `{"secret":1}`)}, "unknown field"},
		"seed of nonsense":     {[]string{"--seed", write(t, "seed", `{"roles":[{"arn":"x"}]}`)}, "not the ARN of a role"},
		"ready file":           {[]string{"--ready-file", filepath.Join(absent, "x")}, "ready file"},
		"issuer's CA":          {[]string{"--issuer", "https://i", "--issuer-ca", absent}, "read about the issuer"},
		"issuer's keys":        {[]string{"--issuer", "https://i", "--issuer-jwks", absent}, "read the issuer's keys"},
		"upstream's role":      {[]string{"--sts-upstream", "http://127.0.0.1:1"}, "its own role"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := program().Run(t.Context(), test.args, io.Discard, io.Discard)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Run(%q) = %v, want an error with %q", test.args, err, test.want)
			}
		})
	}
}
