package policy_test

import (
	"bytes"
	"errors"
	"flag"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-dev/postern/gateway/internal/policy"
	"github.com/postern-dev/postern/internal/daemon"
)

const classes = `apiVersion: v1
kind: List
items:
- apiVersion: secrets-store.csi.x-k8s.io/v1
  kind: SecretProviderClass
  metadata: {name: db, namespace: shop}
  spec: {provider: vault, parameters: {roleName: shop-app}}
- apiVersion: secrets-store.csi.x-k8s.io/v1
  kind: SecretProviderClass
  metadata: {name: db, namespace: bank}
  spec: {provider: vault, parameters: {roleName: shop-app}}
---
kind: ConfigMap
metadata: {name: other}
---
kind: SecretProviderClass
metadata: {name: alone}
spec: {provider: aws}
`

const checked = `rules:
- name: own-role
  match: provider == 'vault'
  require: parameters.roleName.startsWith(pod.namespace + '-')
  message: use a role of your own
- name: not-default
  action: audit
  require: serviceAccount.name != 'default'
  message: make a service account
`

func TestCommand(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	rules, bad, spcs := filepath.Join(dir, "rules.yaml"), filepath.Join(dir, "bad.yaml"), filepath.Join(dir, "classes.yaml")
	write(t, rules, checked)
	write(t, bad, "rules:\n- {name: a, require: pod.nmae == 'x'}\n- {name: b}\n")
	write(t, spcs, classes)
	names := func(file string) string { return file + ": 2 rules\n  own-role\n  not-default (audits only)\n" }
	for name, test := range map[string]struct {
		args              []string
		stdin, out, error string
	}{
		"good":       {[]string{rules}, "", names(rules), ""},
		"from stdin": {[]string{"-"}, checked, names("-"), ""},
		"broken": {
			[]string{bad},
			"", "",
			"the rules in " + bad + " are wrong:\n  line 2: rule \"a\": require: 1:4: undefined field 'nmae'\n" +
				"  line 3: rule \"b\" has no require: an expression that is true for what is allowed",
		},
		"not there":      {[]string{filepath.Join(dir, "none")}, "", "", "open what is to be checked: open " + filepath.Join(dir, "none") + ": no such file or directory"},
		"the default":    {nil, "", "", "open what is to be checked: open /etc/postern/policy/policy.yaml: no such file or directory"},
		"unknown flag":   {[]string{rules, "--nope"}, "", "", "flag provided but not defined: -nope"},
		"two files":      {[]string{rules, rules}, "", "", `unexpected argument "` + rules + `": only flags are accepted`},
		"stdin for both": {[]string{"-", "--classes=-"}, "", "", "--classes: standard input has the rules already"},
		"classes": {
			[]string{rules, "--classes", spcs},
			"",
			names(rules) + `shop/db, provider vault: allowed; rule "not-default" audits: make a service account
bank/db, provider vault: refused by rule "own-role": use a role of your own
default/alone, provider aws: allowed; rule "not-default" audits: make a service account
`, "1 of 3 SecretProviderClasses are refused",
		},
		"classes from stdin": {
			[]string{rules, "--classes=-", "--service-account=app"},
			strings.Replace(classes, "namespace: bank", "namespace: shop", 1),
			names(rules) + "shop/db, provider vault: allowed\nshop/db, provider vault: allowed\ndefault/alone, provider aws: allowed\n", "",
		},
		"no classes":     {[]string{rules, "--classes=-"}, "kind: ConfigMap", names(rules), "read SecretProviderClasses of -: there are none"},
		"no YAML at all": {[]string{rules, "--classes=-"}, "{", names(rules), "read SecretProviderClasses of -: parse YAML: yaml: line 1: did not find expected node content"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			env := daemon.Env{Args: test.args, Stdout: &out, Stderr: &out}
			err := policy.CommandWith(t.Context(), env, strings.NewReader(test.stdin))
			got := ""
			if err != nil {
				got = err.Error()
			}
			if diff := cmp.Diff(test.error, got); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(test.out, out.String()); diff != "" {
				t.Errorf("output (-want +got):\n%s", diff)
			}
		})
	}
}

func TestCommand_Help(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	err := policy.Command(t.Context(), daemon.Env{Args: []string{"--help"}, Stdout: &out})
	if !errors.Is(err, flag.ErrHelp) {
		t.Errorf("got %v", err)
	}
	for _, want := range []string{"postern-gateway policy check: ", "FILE", "--classes file", "--service-account name"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the help has no %q:\n%s", want, out.String())
		}
	}
}
