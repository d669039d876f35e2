package charts_test

import (
	"os"
	"testing"

	"github.com/postern-dev/postern/test/build"
	"github.com/postern-dev/postern/test/charts"
)

// everything turns on all that is off by default.
const everything = `
global:
  imagePullSecrets: [{name: mirror}]
  otlp: {endpoint: "http://otel-collector.observability:4318"}
  serviceMonitor: {enabled: true, labels: {release: prometheus}}
  networkPolicy: {metricsFrom: [{namespaceSelector: {matchLabels: {name: monitoring}}}]}
  startupTaint: {enabled: true, providers: [vault]}
prometheusRule: {enabled: true, labels: {release: prometheus}}
resourceQuota: {enabled: true}
driver:
  allowParameterOverrides: true
  commonLabels: {team: platform}
  tokenRequests: [{audience: other, expirationSeconds: 600}]
gateway:
  podAnnotations: {example.com/a: b}
  policy: {rules: [{name: no-default, require: serviceAccount.name != 'default'}]}
provider-aws:
  enabled: true
  aws:
    region: eu-central-1
    podIdentityHttpTimeout: 3s
    endpointUrls: {sts: "https://sts.vpce:8443", secretsmanager: "https://sm.vpce", ssm: "http://ssm.vpce:8080"}
  refreshCheck: read
  maxSessions: 10
  env: [{name: HTTPS_PROXY, value: "http://proxy.example.com:3128"}]
  networkPolicy: {to: [{ipBlock: {cidr: 10.0.0.0/8}}]}
provider-azure:
  enabled: true
  azure:
    cloudName: AzureStackCloud
    cloudEnvironments: {stack.json: {name: AzureStackCloud}}
    objectVersionHistoryInclusive: true
    tokenProxy: {url: "https://kubernetes.default.svc.cluster.local", sniName: abc.ests.aks}
    managedIdentity: {namespaces: [shop, bank]}
  constructPEMChain: false
  writeCertAndKeyInSeparateFiles: true
  maxSessions: 10
  env: [{name: HTTPS_PROXY, value: "http://proxy.example.com:3128"}]
  networkPolicy: {ports: [443, 3128], to: [{ipBlock: {cidr: 10.0.0.0/8}}]}
provider-gcp:
  enabled: true
  gcp:
    project: shop-prod
    clusterName: prod
    clusterLocation: europe-west3
    workloadIdentity: {audience: "identitynamespace:shop-prod.svc.id.goog:https://gkehub.googleapis.com/projects/p/locations/global/memberships/m", tokenAudience: pods}
    allowNodePublishSecret: true
    providerIdentity: {namespaces: [shop, bank]}
  refreshCheck: read
  maxSessions: 10
  tokenRequests: [{audience: gcp-too}]
  env: [{name: HTTPS_PROXY, value: "http://proxy.example.com:3128"}]
  networkPolicy: {ports: [443, 3128], to: [{ipBlock: {cidr: 10.0.0.0/8}}]}
provider-file:
  enabled: true
  files: {shop: {password: s3cret}}
provider-vault:
  enabled: true
  vault:
    address: https://vault.example.com:8201
    namespace: team
    tls: {caSecret: vault-ca, clientSecret: vault-client, serverName: vault, dirs: [/etc/postern/vault-ca], skipVerify: true}
  extraArgs: [--max-sessions=10]
  env: [{name: VAULT_MAX_RETRIES, value: "3"}]
  extraVolumes: [{name: extra, emptyDir: {}}]
  extraVolumeMounts: [{name: extra, mountPath: /extra}]
  serviceAccount: {annotations: {eks.amazonaws.com/role-arn: "arn:aws:iam::1:role/vault"}}
  networkPolicy: {to: [{ipBlock: {cidr: 10.0.0.0/8}}]}
`

// allProviders is an installation with nothing but the providers turned on.
const allProviders = `
provider-aws: {enabled: true}
provider-azure: {enabled: true}
provider-file: {enabled: true}
provider-gcp: {enabled: true}
provider-vault: {enabled: true}
`

func repository(t *testing.T) string {
	t.Helper()
	root, err := build.FindRoot(".")
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func newBuilder(t *testing.T) *build.Builder {
	t.Helper()
	builder, err := build.Here(os.Getenv, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	return builder
}

func newHelm(t *testing.T) charts.Helm {
	t.Helper()
	path, err := newBuilder(t).Server(t.Context(), build.Helm())
	if err != nil {
		t.Fatal(err)
	}
	return charts.Helm{Path: path, Root: repository(t)}
}

// render renders the umbrella.
func render(t *testing.T, values ...string) charts.Objects {
	t.Helper()
	return renderWith(t, charts.Options{Chart: charts.Umbrella, Values: values})
}

func renderWith(t *testing.T, o charts.Options) charts.Objects {
	t.Helper()
	objects, err := newHelm(t).Render(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if len(objects) == 0 {
		t.Fatal("nothing was rendered")
	}
	return objects
}

func list(t *testing.T) []charts.Chart {
	t.Helper()
	all, err := charts.List(repository(t))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func umbrella(t *testing.T) charts.Chart {
	t.Helper()
	for _, chart := range list(t) {
		if chart.Name == charts.Umbrella {
			return chart
		}
	}
	t.Fatal("there is no umbrella chart")
	return charts.Chart{}
}

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func decode[T any](t *testing.T, objects charts.Objects, kind, name string) T {
	t.Helper()
	var object T
	if err := objects.Decode(kind, name, &object); err != nil {
		t.Fatal(err)
	}
	return object
}
