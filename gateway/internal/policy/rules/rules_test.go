package rules_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/postern-dev/postern/gateway/internal/policy/rules"
	"github.com/postern-dev/postern/internal/rpc"
	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
	secretv1 "github.com/postern-dev/postern/proto/gen/go/postern/secret/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// request is the fetch that tests change one thing of.
func request(changes ...func(*gatewayv1.FetchRequest)) *gatewayv1.FetchRequest {
	req := &gatewayv1.FetchRequest{
		VolumeId: "csi-1",
		Provider: "vault",
		Pod: &secretv1.Pod{
			Namespace: "shop", Name: "web-0", Uid: "0c8f",
			ServiceAccount: &secretv1.ServiceAccount{Name: "app", Annotations: map[string]string{"example.com/role": "reader"}},
		},
		Node:                &secretv1.Node{Name: "node-1", Labels: map[string]string{"topology.kubernetes.io/region": "eu"}},
		SecretProviderClass: "db",
		Parameters: map[string]string{
			"roleName": "shop-app",
			"objects":  "- {objectName: user, secretPath: secret/data/shop/db, secretKey: user}\n- {objectName: password, secretPath: secret/data/shop/db}\n",
		},
		Tokens:     []*secretv1.Token{{Audience: "vault", Token: "the-token", Expiry: timestamppb.New(time.Unix(1, 0))}},
		Secrets:    map[string]string{"key": "the-secret"},
		TargetPath: "/var/lib/kubelet/pods/0c8f/volumes/x/mount",
	}
	for _, change := range changes {
		change(req)
	}
	return req
}

// parameter changes one parameter.
func parameter(name, value string) func(*gatewayv1.FetchRequest) {
	return func(r *gatewayv1.FetchRequest) { r.Parameters[name] = value }
}

func without(name string) func(*gatewayv1.FetchRequest) {
	return func(r *gatewayv1.FetchRequest) { delete(r.Parameters, name) }
}

// requiring is a file with one rule.
func requiring(expression string) string {
	return "rules:\n- name: the-rule\n  require: |\n    " + expression + "\n"
}

func compile(t testing.TB, source string) *rules.Set {
	t.Helper()
	set, err := rules.Compile([]byte(source))
	if err != nil {
		t.Fatalf("compile %s: %v", source, err)
	}
	return set
}

// explanation is what a denial says after whom it refuses; "" if all is allowed.
func explanation(t testing.TB, set *rules.Set, req *gatewayv1.FetchRequest) string {
	t.Helper()
	err := set.Check(t.Context(), req)
	if err == nil {
		return ""
	}
	var denial *rpc.Error
	if !errors.As(err, &denial) || denial.Reason != rpc.ReasonPolicyDenied {
		t.Fatalf("got %v, want a denial", err)
	}
	_, why, ok := strings.Cut(denial.Message, "service account "+req.GetPod().GetServiceAccount().GetName()+": ")
	if !ok {
		t.Fatalf("the message is %q", denial.Message)
	}
	return why
}

const refused = "ask whoever runs the cluster what it allows"

func TestCheck_Variables(t *testing.T) {
	t.Parallel()
	for expression, want := range map[string]string{
		`pod.namespace == 'shop' && pod.name == 'web-0' && pod.uid == '0c8f'`: "",
		`pod.namespace == 'bank'`:                                                       refused,
		`serviceAccount.name == 'app'`:                                                  "",
		`serviceAccount.name in ['default']`:                                            refused,
		`serviceAccount.annotations['example.com/role'] == 'reader'`:                    "",
		`'example.com/other' in serviceAccount.annotations`:                             refused,
		`provider == 'vault'`:                                                           "",
		`provider.startsWith('aws')`:                                                    refused,
		`secretProviderClass.name == 'db'`:                                              "",
		`secretProviderClass.name != 'db'`:                                              refused,
		`parameters.roleName.startsWith(pod.namespace + '-')`:                           "",
		`parameters.roleName == pod.namespace`:                                          refused,
		`!has(parameters.vaultAddress)`:                                                 "",
		`parameters[?'vaultSkipTLSVerify'].orValue('false') == 'true'`:                  refused,
		`parameters.?roleName.orValue('') == 'shop-app'`:                                "",
		`parameters.exists(name, name.startsWith('role'))`:                              "",
		`parameters.all(name, value, value != 'shop-app')`:                              refused,
		`objects.all(o, o.secretPath.startsWith('secret/data/' + pod.namespace + '/'))`: "",
		`objects.exists(o, o.objectName == 'other')`:                                    refused,
		`objects.map(o, o.objectName) == ['user', 'password']`:                          "",
		`has(objects[0].secretKey) && !has(objects[1].secretKey)`:                       "",
		`node.name == 'node-1'`:                                                         "",
		`node.labels['topology.kubernetes.io/region'] == 'us'`:                          refused,
		// The dialect.
		`sets.contains(['app', 'web'], [serviceAccount.name])`:           "",
		`parameters.roleName.split('-')[0] == pod.namespace`:             "",
		`parameters.roleName.matches('^shop-[a-z]+$')`:                   "",
		`parameters.roleName.matches('^.{8}$')`:                          "",
		`duration('90s') < duration('2m')`:                               "",
		`objects.map(o, o.objectName).distinct().size() == 2`:            "",
		`regex.extract(parameters.roleName, '^(.*)-').value() == 'shop'`: "",
		`1 < 1.5`: "",
	} {
		if got := explanation(t, compile(t, requiring(expression)), request()); got != want {
			t.Errorf("%s: got %q, want %q", expression, got, want)
		}
	}
}

func TestCheck_Order(t *testing.T) {
	t.Parallel()
	set := compile(t, `
rules:
- name: of-another-provider
  match: provider == 'aws'
  require: "false"
- name: only-audits
  action: audit
  require: "false"
- name: kept
  match: provider == 'vault'
  require: "true"
- name: first
  action: deny
  require: pod.namespace != 'shop'
  message: "  first\n message "
- name: second
  require: "false"
  message: second
`)
	if diff := cmp.Diff([]string{"of-another-provider", "only-audits", "kept", "first", "second"}, set.Names()); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	if got := explanation(t, set, request()); got != "first message" {
		t.Errorf("got %q, want the message of the first rule that is broken", got)
	}
	bank := request(func(r *gatewayv1.FetchRequest) { r.Pod.Namespace = "bank" })
	if got := explanation(t, set, bank); got != "second" {
		t.Errorf("got %q, want the message of the second", got)
	}
}

func TestCheck_NothingIsAllowed(t *testing.T) {
	t.Parallel()
	var none rules.Set
	for name, set := range map[string]*rules.Set{"zero": &none, "empty": compile(t, "rules: []")} {
		if err := set.Check(t.Context(), request()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if names := set.Names(); len(names) > 0 {
			t.Errorf("%s has the rules %v", name, names)
		}
	}
}

func TestCheck_Denial(t *testing.T) {
	t.Parallel()
	set := compile(t, "rules: [{name: own-role, require: 'false', message: use your own role}]")
	err := set.Check(t.Context(), request())
	var got *rpc.Error
	if !errors.As(err, &got) {
		t.Fatalf("got %v", err)
	}
	want := rpc.Error{
		Reason:  rpc.ReasonPolicyDenied,
		Message: `policy rule "own-role" refuses SecretProviderClass shop/db for service account app: use your own role`,
		Metadata: map[string]string{
			"rule": "own-role", rpc.MetadataProvider: "vault", rpc.MetadataSecretProviderClass: "db",
		},
	}
	if diff := cmp.Diff(want, *got); diff != "" {
		t.Errorf("denial (-want +got):\n%s", diff)
	}
	if code := status.Code(err); code != codes.PermissionDenied {
		t.Errorf("code %v", code)
	}
}

// What a rule tells is its message and the request's own, and never its text,
// in which others may be named.
func TestCheck_Messages(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ fields, want string }{
		"none":    {"", refused},
		"static":  {"message: use another", "use another"},
		"dynamic": {`messageExpression: '"use " + pod.namespace + "-" + serviceAccount.name'`, "use shop-app"},
		"lines":   {`messageExpression: '"a\n\tb\u0007c"'`, "a b c"},
		"blank":   {`messageExpression: '" \n"'`, refused},
		"broken":  {`messageExpression: 'parameters.none + "x"'`, refused},
		"long":    {`messageExpression: '"x` + strings.Repeat("ä", 2000) + `"'`, "x" + strings.Repeat("ä", 511)},
	} {
		source := "rules:\n- name: r\n  require: pod.namespace in ['bank']\n  " + test.fields + "\n"
		if got := explanation(t, compile(t, source), request()); got != test.want {
			t.Errorf("%s: got %q, want %q", name, got, test.want)
		}
	}
}

func TestCheck_Unevaluated(t *testing.T) {
	t.Parallel()
	const because = "its expression require cannot be evaluated: "
	for expression, want := range map[string]string{
		`parameters.vaultAddress == 'x'`:                      "vaultAddress is not there",
		`parameters['vaultAddress'] == 'x'`:                   "vaultAddress is not there",
		`parameters["vaultAddress"] == 'x'`:                   "vaultAddress is not there",
		`objects.all(o, o.secretKey == 'x' || o.nope == 'y')`: "nope is not there",
		// The value of a parameter is not for the message.
		`{'bank': 'kv'}[parameters.roleName] == 'kv'`:                                                 "something that it asks for is not there",
		`{'bank': 'kv'}[parameters.roleName.split('-')[0].charAt(0)] == 'kv' || pod.name.size() == 0`: "something that it asks for is not there",
		`int(parameters.roleName) == 1`:                                                               "an operation is not possible with the values that are there",
		`objects[7].objectName == 'x'`:                                                                "an operation is not possible with the values that are there",
		`objects[0].objectName > 3`:                                                                   "a value is of another type than it needs",
		`has(objects[0].objectName.x)`:                                                                "x is not there",
	} {
		got := explanation(t, compile(t, requiring(expression)), request())
		if got != because+want {
			t.Errorf("%s: got %q, want %q", expression, got, because+want)
		}
	}
	matching := compile(t, "rules: [{name: r, match: parameters.nope == 'x', require: 'true'}]")
	if got := explanation(t, matching, request()); got != "its expression match cannot be evaluated: nope is not there" {
		t.Errorf("a match that cannot be evaluated: %q", got)
	}
}

// A part that cannot be evaluated does not matter where the rest decides.
func TestCheck_Absorbs(t *testing.T) {
	t.Parallel()
	for _, expression := range []string{
		`parameters.nope == 'x' || provider == 'vault'`,
		`provider == 'vault' || objects[9].x == 'y'`,
		`!(parameters.nope == 'x' && provider == 'aws')`,
	} {
		if got := explanation(t, compile(t, requiring(expression)), request()); got != "" {
			t.Errorf("%s: %s", expression, got)
		}
	}
}

// Rules have no way to a token, a secret or a path of the node.
func TestCompile_HidesSecrets(t *testing.T) {
	t.Parallel()
	for _, expression := range []string{
		"tokens.size() > 0", "secrets.size() > 0", "target_path != ''", "volume_id != ''", "request.tokens.size() > 0",
		"pod.tokens.size() > 0", "pod.serviceAccount.name == 'x'", "secretProviderClass.secrets.size() > 0", "current_objects.size() > 0",
	} {
		if _, err := rules.Compile([]byte(requiring(expression))); err == nil {
			t.Errorf("%s was compiled", expression)
		}
	}
}

func TestCheck_Bounds(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("x", rules.MaxParameters-4096)
	many := "- {objectName: x, secretPath: secret/data/shop}\n"
	const cannot = "its expression require cannot be evaluated: "
	for name, test := range map[string]struct{ expression, parameter, want string }{
		"a loop in a loop":     {`objects.all(o, objects.all(p, o.objectName == p.objectName))`, strings.Repeat(many, 1000), cannot + "that costs too much"},
		"a long range":         {`lists.range(1000).all(x, lists.range(1000).all(y, true))`, many, cannot + "that costs too much"},
		"a range of too many":  {`lists.range(100000).size() > 0`, many, cannot + "an operation is not possible with the values that are there"},
		"a text that grows":    {`parameters.objects.replace('x', 'xxxxxxxxxx').replace('x', 'xxxxxxxxxx') != ''`, big, cannot + "that costs too much"},
		"what is large":        {`true`, big + big, "its parameters have more than the 131072 bytes that can be checked"},
		"a hundred of objects": {`objects.all(o, ['a/', 'b/', 'c/', 'secret/'].exists(p, o.secretPath.startsWith(p)))`, strings.Repeat(many, 100), ""},
		"with twenty prefixes": {`objects.all(o, lists.range(20).exists(i, o.secretPath.startsWith(string(19 - i) + '/')) || true)`, strings.Repeat(many, 100), ""},
		"a regular expression": {`parameters.objects.matches('^(x*)*$')`, big, ""},
	} {
		got := explanation(t, compile(t, requiring(test.expression)), request(parameter("objects", test.parameter)))
		if got != test.want {
			t.Errorf("%s: got %q, want %q", name, got, test.want)
		}
	}
}

// Who leaves is not refused, and not allowed either.
func TestCheck_Cancelled(t *testing.T) {
	t.Parallel()
	cause := errors.New("the caller left")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	err := compile(t, requiring("true")).Check(ctx, request())
	var denial *rpc.Error
	if !errors.Is(err, context.Canceled) || errors.As(err, &denial) {
		t.Errorf("got %v, want the context's error", err)
	}
}

// TestCheck_TotalCost: many rules that cost much cost no more than some of them,
// whatever comes of each.
func TestCheck_TotalCost(t *testing.T) {
	t.Parallel()
	var source strings.Builder
	source.WriteString("rules:\n")
	for i := range 12 {
		expression := "lists.range(1000).all(x, lists.range(1000).all(y, true))"
		if i%2 > 0 {
			expression = "lists.range(1000).all(x, [1, 2, 3, 4, 5, 6].all(y, x + y > 0)) && parameters.nope == ''"
		}
		fmt.Fprintf(&source, "- {name: rule-%d, action: audit, require: \"%s\"}\n", i, expression)
	}
	cost, last := compile(t, source.String()).Cost(t.Context(), request())
	if cost < rules.MaxTotalCost || cost > rules.MaxTotalCost+2*rules.MaxCost {
		t.Errorf("the rules cost %d, want about %d", cost, rules.MaxTotalCost)
	}
	if last != "its expression require cannot be evaluated: that costs too much" {
		t.Errorf("the last rule says %q", last)
	}
}

// TestCheck_Interrupted: a loop does not outlive its context.
func TestCheck_Interrupted(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithDeadline(t.Context(), time.Unix(1, 0))
	defer cancel()
	set := compile(t, requiring("lists.range(1000).all(x, x >= 0)"))
	if why, broken := set.AskFirst(t.Context(), request()); broken {
		t.Fatalf("with time: %s", why)
	}
	if _, broken := set.AskFirst(ctx, request()); !broken {
		t.Error("the loop ran to its end")
	}
}

func BenchmarkCheck(b *testing.B) {
	var source strings.Builder
	source.WriteString("rules:\n")
	for i, expression := range []string{
		`parameters.roleName.startsWith(pod.namespace + '-')`,
		`!has(parameters.vaultAddress) || parameters.vaultAddress == 'https://vault.example.com:8200'`,
		`parameters.?vaultSkipTLSVerify.orValue('false') == 'false'`,
		`serviceAccount.name != 'default'`,
		`pod.namespace in ['shop', 'bank', 'blog']`,
	} {
		fmt.Fprintf(&source, "- {name: rule-%d, match: provider == 'vault', require: \"%s\"}\n", i, expression)
	}
	for name, add := range map[string]string{
		"parameters": "",
		"objects":    "- {name: paths, require: \"objects.all(o, o.secretPath.startsWith('secret/data/' + pod.namespace + '/'))\"}\n",
	} {
		set, req := compile(b, source.String()+add), request()
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := set.Check(b.Context(), req); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
