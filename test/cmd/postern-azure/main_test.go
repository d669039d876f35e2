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

	"github.com/postern-dev/postern/test/azure/control"
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
	dir := t.TempDir()
	ready, ca := filepath.Join(dir, "ready.json"), filepath.Join(dir, "ca.pem")
	seed := write(t, "seed.json", `{"vaults":[{"name":"shop","tenant":"t"}],"secrets":[{"vault":"shop","name":"a","value":"b"}]}`)
	keys := write(t, "keys.json", `{"keys":[{"kty":"RSA","kid":"one","n":"AQAB","e":"AQAB"}]}`)
	addresses := start(t, "--ready-file", ready, "--ca-file", ca, "--seed", seed, "--nmi", "off", "--issuer", "https://i", "--issuer-jwks", keys, "--debug")
	contents, err := os.ReadFile(ready)
	if err != nil {
		t.Fatal(err)
	}
	var written control.Addresses
	if err := json.Unmarshal(contents, &written); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(addresses, written); diff != "" || addresses.NMI != "" || addresses.IMDS == "" || addresses.CAFile != ca {
		t.Errorf("addresses %+v; the ready file (-stdout +file):\n%s", addresses, diff)
	}
	client := control.NewClient(addresses.Control)
	t.Cleanup(client.Close)
	pem, err := client.CA(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if contents, err := os.ReadFile(ca); err != nil || string(contents) != pem {
		t.Errorf("%v: the certificate in the file is another", err)
	}
	if err := client.Delete(t.Context(), control.Secrets, "shop", "a"); err != nil {
		t.Errorf("the seed is not there: %v", err)
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
		"address":              {[]string{"--proxy", "nonsense"}, "listen at nonsense"},
		"seed":                 {[]string{"--seed", absent}, "read the seed"},
		"seed that is refused": {[]string{"--seed", write(t, "seed", `{"secret":1}`)}, "unknown field"},
		"seed of nonsense":     {[]string{"--seed", write(t, "seed", `{"vaults":[{"name":"-"}]}`)}, "not a name of a vault"},
		"ready file":           {[]string{"--ready-file", filepath.Join(absent, "x")}, "ready file"},
		"CA's file":            {[]string{"--ca-file", filepath.Join(absent, "x")}, "certificate of the authority"},
		"issuer's keys":        {[]string{"--issuer", "https://i", "--issuer-jwks", absent}, "read the issuer's keys"},
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
