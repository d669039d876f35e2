package rules_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/postern-dev/postern/gateway/internal/policy/rules"
	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
)

// examples are the rules in docs/policy.md and where else they are shown, by their
// names, each as a file.
func examples(t *testing.T) map[string]string {
	t.Helper()
	var content []byte
	for _, document := range []string{"policy.md", "azure.md", "gcp.md"} {
		text, err := os.ReadFile("../../../../docs/" + document)
		if err != nil {
			t.Fatal(err)
		}
		content = append(content, text...)
	}
	type file struct {
		Rules []map[string]string
	}
	found := map[string]string{}
	blocks := strings.Split(string(content), "\n```yaml\n")
	for _, block := range blocks[1:] {
		block, _, _ = strings.Cut(block, "```")
		var document struct {
			file    `yaml:",inline"`
			Gateway struct{ Policy file }
		}
		if err := yaml.Unmarshal([]byte(block), &document); err != nil {
			t.Fatalf("%v in\n%s", err, block)
		}
		for _, rule := range append(document.Rules, document.Gateway.Policy.Rules...) {
			source, err := yaml.Marshal(file{Rules: []map[string]string{rule}})
			if err != nil {
				t.Fatal(err)
			}
			if before, ok := found[rule["name"]]; ok && before != string(source) {
				t.Errorf("there are two rules %s", rule["name"])
			}
			found[rule["name"]] = string(source)
		}
	}
	return found
}

// pod is a request of a pod in the namespace shop, with these parameters.
func pod(provider string, parameters ...string) *gatewayv1.FetchRequest {
	return request(func(r *gatewayv1.FetchRequest) {
		r.Provider, r.Parameters = provider, map[string]string{}
		for i := 0; i < len(parameters); i += 2 {
			r.Parameters[parameters[i]] = parameters[i+1]
		}
	})
}

// object is a request for one object.
func object(provider, item string) *gatewayv1.FetchRequest {
	return pod(provider, "objects", "- {"+item+"}")
}

func changed(req *gatewayv1.FetchRequest, change func(*gatewayv1.FetchRequest)) *gatewayv1.FetchRequest {
	change(req)
	return req
}

// cases are what each example lets pass, and what it refuses.
func cases() map[string]struct{ allowed, refused []*gatewayv1.FetchRequest } {
	type requests = []*gatewayv1.FetchRequest
	inNamespace := func(name string) func(*gatewayv1.FetchRequest) {
		return func(r *gatewayv1.FetchRequest) { r.Pod.Namespace = name }
	}
	role := func(arn string) func(*gatewayv1.FetchRequest) {
		return func(r *gatewayv1.FetchRequest) {
			r.Pod.ServiceAccount.Annotations = map[string]string{"eks.amazonaws.com/role-arn": arn}
		}
	}
	const tenant = "11111111-2222-3333-4444-555555555555"
	const client = tenant
	annotated := func(client string) func(*gatewayv1.FetchRequest) {
		return func(r *gatewayv1.FetchRequest) {
			r.Pod.ServiceAccount.Annotations = map[string]string{"azure.workload.identity/client-id": client}
		}
	}
	azure := func(item string) *gatewayv1.FetchRequest { return pod("azure", "objects", "array: [\""+item+"\"]") }
	gcp := func(resource string) *gatewayv1.FetchRequest {
		return pod("gcp", "secrets", "- {resourceName: "+resource+"}")
	}
	return map[string]struct{ allowed, refused requests }{
		"namespaces-of-vault": {
			requests{pod("vault"), changed(pod("aws"), inNamespace("other"))},
			requests{changed(pod("vault"), inNamespace("other"))},
		},
		"known-providers": {requests{pod("gcp")}, requests{pod("file")}},
		"own-service-account": {
			requests{pod("vault")},
			requests{changed(pod("vault"), func(r *gatewayv1.FetchRequest) { r.Pod.ServiceAccount.Name = "default" })},
		},
		"few-objects": {
			requests{pod("x"), object("x", "a: b")},
			requests{pod("x", "objects", strings.Repeat("- {a: b}\n", 51)), pod("x", "objects", "{")},
		},
		"stale-at-most-an-hour": {
			requests{pod("x"), pod("x", "maxStale", "60m"), pod("x", "maxStale", "0")},
			requests{pod("x", "maxStale", "61m"), pod("x", "maxStale", "1d")},
		},
		"vault-role-of-own-namespace": {
			requests{pod("vault", "roleName", "shop-app"), pod("aws")},
			requests{pod("vault", "roleName", "bank-app"), pod("vault", "roleName", "shop"), pod("vault")},
		},
		"vault-own-paths": {
			requests{object("vault", "secretPath: secret/data/shop/db"), object("vault", "secretPath: secret/data/shop/db/user_1")},
			requests{
				object("vault", "secretPath: secret/data/bank/db"), object("vault", "secretPath: secret/data/shop/../bank/db"),
				object("vault", "secretPath: secret/data/shop"), object("vault", "secretPath: /v1/secret/data/shop/db"),
				object("vault", "secretPath: 'secret/data/shop/%2e%2e/bank'"), object("vault", "secretPath: 'secret/data/shop/db?version=1'"),
				object("vault", `secretPath: "secret/data/shop/db\n"`),
				object("vault", "SecretPath: secret/data/shop/db"), object("vault", "objectName: db"), pod("vault"),
				pod("vault", "objects", "- {secretPath: secret/data/shop/db}\n- {secretPath: secret/data/bank/db}"),
			},
		},
		"vault-address": {
			requests{pod("vault"), pod("vault", "vaultAddress", "https://vault.example.com:8200")},
			requests{pod("vault", "vaultAddress", "https://vault.example.com:8200.evil.example"), pod("vault", "vaultAddress", "")},
		},
		"vault-verifies-tls": {
			requests{pod("vault"), pod("vault", "vaultSkipTLSVerify", "false")},
			requests{pod("vault", "vaultSkipTLSVerify", "true"), pod("vault", "vaultSkipTLSVerify", "1"), pod("vault", "vaultSkipTLSVerify", "True")},
		},
		"vault-reads-only": {
			requests{object("vault", "secretPath: a"), object("vault", "method: GET")},
			requests{object("vault", "method: PUT"), object("vault", "method: get"), object("vault", "Method: GET"), pod("vault")},
		},
		"aws-own-secrets": {
			requests{object("aws", "objectName: shop/db, objectType: secretsmanager")},
			requests{
				object("aws", "objectName: bank/db, objectType: secretsmanager"), object("aws", "objectName: shop/db, objectType: ssmparameter"),
				object("aws", "objectName: shop/db"), object("aws", "objectName: 'arn:aws:secretsmanager:eu-west-1:1:secret:shop/db', objectType: secretsmanager"),
				object("aws", "objectName: shop/db, objectType: secretsmanager, failoverObject: {objectName: bank/db}"),
				object("aws", "objectName: shop/db, objectType: secretsmanager, FailoverObject: {objectName: bank/db}"),
				object("aws", "objectName: shop/db, OBJECTNAME: bank/db, objectType: secretsmanager"),
			},
		},
		"aws-regions": {
			requests{pod("aws"), pod("aws", "region", "eu-west-1", "failoverRegion", "eu-central-1")},
			requests{pod("aws", "region", "us-east-1"), pod("aws", "failoverRegion", "us-east-1"), pod("aws", "region", "")},
		},
		"aws-role-of-this-account": {
			requests{changed(pod("aws"), role("arn:aws:iam::111122223333:role/shop"))},
			requests{
				changed(pod("aws"), role("arn:aws:iam::444455556666:role/shop")), pod("aws"),
				changed(pod("aws", "roleArn", "arn:aws:iam::444455556666:role/shop"), role("arn:aws:iam::111122223333:role/shop")),
				changed(pod("aws", "roleArn", ""), role("arn:aws:iam::444455556666:role/shop")),
			},
		},
		"azure-vault-of-own-namespace": {
			requests{pod("azure", "keyvaultName", "kv-shop")},
			requests{pod("azure", "keyvaultName", "kv-bank"), pod("azure")},
		},
		"azure-own-identity": {
			requests{pod("azure"), pod("azure", "useVMManagedIdentity", "false"), pod("azure", "useAzureTokenProxy", "1")},
			requests{pod("azure", "useVMManagedIdentity", "true"), pod("azure", "usePodIdentity", " T"), pod("azure", "usePodIdentity", "1")},
		},
		"azure-identity-of-the-node": {
			requests{
				pod("azure"), pod("aws", "useVMManagedIdentity", "true"), pod("azure", "useVMManagedIdentity", "false"),
				pod("azure", "useVMManagedIdentity", "true", "userAssignedIdentityID", client, "keyvaultName", "kv-legacy"),
			},
			requests{
				pod("azure", "useVMManagedIdentity", "true", "keyvaultName", "kv-legacy"), pod("azure", "usePodIdentity", "T"),
				pod("azure", "useVMManagedIdentity", "1", "userAssignedIdentityID", client, "keyvaultName", "kv-shop"),
				pod("azure", "useVMManagedIdentity", "", "userAssignedIdentityID", client),
			},
		},
		"azure-clients-of-own-namespace": {
			requests{pod("azure", "clientID", client), changed(pod("azure"), annotated(client)), pod("aws")},
			requests{
				pod("azure"), pod("azure", "clientID", tenant+"0"), changed(pod("azure"), annotated("x")),
				changed(pod("azure", "clientID", "x"), annotated(client)), changed(pod("azure", "clientID", client), inNamespace("other")),
			},
		},
		"azure-tenant": {
			requests{pod("azure", "tenantID", tenant), pod("azure", "tenantId", tenant)},
			requests{pod("azure", "tenantID", "x"), pod("azure", "tenantID", tenant, "tenantId", "x")},
		},
		"azure-secrets-only": {
			requests{azure("objectType: secret")},
			requests{azure("objectType: key"), azure("objectName: x"), pod("azure", "objects", "- {objectType: key}")},
		},
		"gcp-project-of-own-namespace": {
			requests{gcp("projects/shop-prod/secrets/db/versions/latest")},
			requests{
				gcp("projects/bank-prod/secrets/db/versions/1"), gcp("projects/shop-prod-2/secrets/db/versions/1"),
				changed(gcp("projects/shop-prod/secrets/db/versions/1"), inNamespace("other")), object("gcp", "path: x"), pod("gke"),
				changed(gcp("projects/shop-prod/secrets/db/versions/1"), parameter("objects", "[]")),
			},
		},
		"gcp-own-identity": {
			requests{pod("gcp"), pod("gke", "auth", "pod-adc"), pod("gke", "auth", "")},
			requests{pod("gcp", "auth", "provider-adc"), pod("gke", "auth", "provider-adc"), pod("gcp", "auth", "x")},
		},
		"gcp-identity-of-the-provider": {
			requests{
				changed(gcp("projects/shop-prod/secrets/legacy-db/versions/1"), parameter("auth", "provider-adc")),
				gcp("projects/shop-prod/secrets/db/versions/1"),
			},
			requests{
				changed(gcp("projects/shop-prod/secrets/db/versions/1"), parameter("auth", "provider-adc")),
				changed(pod("gke", "secrets", "- {parent: projects/shop-prod, namePrefix: legacy-}"), parameter("auth", "provider-adc")),
			},
		},
		"gcp-global-secrets-only": {
			requests{gcp("projects/p/secrets/s/versions/latest")},
			requests{
				gcp("projects/p/locations/europe-west3/secrets/s/versions/1"), gcp("projects/p/locations/global/parameters/x/versions/1"),
				pod("gke", "secrets", "- {parent: projects/p, labels: {app: shop}}"),
			},
		},
		"gcp-pinned-versions": {
			requests{gcp("projects/p/secrets/s/versions/latest"), changed(gcp("projects/p/secrets/s/versions/3"), inNamespace("bank"))},
			requests{changed(gcp("projects/p/secrets/s/versions/latest"), inNamespace("bank"))},
		},
		"akeyless-own-folder": {
			requests{object("akeyless", "secretPath: /shop/db")},
			requests{object("akeyless", "secretPath: /bank/db"), object("akeyless", "secretPath: /shop/../bank/db"), object("akeyless", "secretPath: shop/db")},
		},
		"akeyless-login-by-kubernetes": {
			requests{pod("akeyless", "akeylessAccessType", "k8s")},
			requests{pod("akeyless", "akeylessAccessType", "aws_iam"), pod("akeyless")},
		},
		"akeyless-gateway": {
			requests{pod("akeyless", "akeylessGatewayURL", "https://akeyless.example.com")},
			requests{pod("akeyless", "akeylessGatewayURL", "https://evil.example"), pod("akeyless")},
		},
	}
}

// TestDocs: what docs/policy.md tells people to begin with does what it says.
func TestDocs(t *testing.T) {
	t.Parallel()
	table := cases()
	documented := examples(t)
	if len(documented) < 20 {
		t.Fatalf("there are %d rules in docs/policy.md", len(documented))
	}
	for name, source := range documented {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			set, err := rules.Compile([]byte(source))
			if err != nil {
				t.Fatal(err)
			}
			requests, ok := table[name]
			if !ok || len(requests.allowed) == 0 || len(requests.refused) == 0 {
				t.Fatal("nobody tries it: add requests that it allows and that it refuses")
			}
			for _, req := range requests.allowed {
				if why := explanation(t, set, req); why != "" {
					t.Errorf("%v is refused: %s", req.GetParameters(), why)
				}
			}
			for _, req := range requests.refused {
				if explanation(t, set, req) == "" {
					t.Errorf("%v is allowed", req.GetParameters())
				}
			}
		})
	}
	for name := range table {
		if _, ok := documented[name]; !ok {
			t.Errorf("rule %s is not documented", name)
		}
	}
}

// TestDocs_Together: all of a provider's rules can be in force at once.
func TestDocs_Together(t *testing.T) {
	t.Parallel()
	source := "rules:\n"
	documented := examples(t)
	names := make([]string, 0, len(documented))
	for name, rule := range documented {
		source += strings.TrimPrefix(rule, "rules:\n")
		names = append(names, name)
	}
	got := compile(t, source).Names()
	slices.Sort(got)
	slices.Sort(names)
	if !slices.Equal(got, names) {
		t.Errorf("rules %v, want %v", got, names)
	}
}

// TestDocs_Denial: the denial in docs/policy.md is what one gets.
func TestDocs_Denial(t *testing.T) {
	t.Parallel()
	content, err := os.ReadFile("../../../../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	set := compile(t, examples(t)["vault-role-of-own-namespace"])
	denial := set.Check(t.Context(), pod("vault", "roleName", "bank-app"))
	if want := "\nprovider \"vault\": " + denial.Error() + "\n"; !strings.Contains(string(content), want) {
		t.Errorf("docs/policy.md does not have %q", want)
	}
}
