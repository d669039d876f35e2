package charts_test

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"

	"github.com/postern-dev/postern/test/charts"
)

// TestValueErrors: what is wrong with values is said before anything is
// installed, with the value's name.
func TestValueErrors(t *testing.T) {
	t.Parallel()
	helm := newHelm(t)
	for _, test := range []struct{ values, want string }{
		{
			"provider-valt: {enabled: true}",
			"postern: - at '': additional properties 'provider-valt' not allowed",
		},
		{
			"global: {otlp: {endpont: x}}",
			"postern: - at '/global/otlp': additional properties 'endpont' not allowed",
		},
		{
			"global: {logLevel: verbose}",
			"at '/global/logLevel': value must be one of 'debug', 'info', 'warn', 'error'",
		},
		{
			"global: {gatewayUid: 0}",
			"at '/global/gatewayUid': minimum: got 0, want 1",
		},
		{
			"gateway: {image: {tga: v1}}",
			"gateway: - at '/image': additional properties 'tga' not allowed",
		},
		{
			"gateway: {metricsPort: metrics}",
			"at '/metricsPort': got string, want integer",
		},
		{
			"driver: {linux: {kubeletRootDir: kubelet}}",
			"at '/linux/kubeletRootDir': 'kubelet' does not match pattern",
		},
		{
			"driver: {rotationPollInterval: 2 minutes}",
			"at '/rotationPollInterval': '2 minutes' does not match pattern",
		},
		{
			"driver: {syncSecret: {namespaces: shop}}",
			"at '/syncSecret/namespaces': got string, want array",
		},
		{
			"provider-vault: {enabled: true, vault: {host: x}}",
			"provider-vault: - at '/vault': additional properties 'host' not allowed",
		},
		{
			"provider-aws: {enabled: true, aws: {awsRegion: eu-central-1}}",
			"provider-aws: - at '/aws': additional properties 'awsRegion' not allowed",
		},
		{
			"provider-aws: {enabled: true, aws: {podIdentityHttpTimeout: 3 seconds}}",
			"at '/aws/podIdentityHttpTimeout': '3 seconds' does not match pattern",
		},
		{
			"provider-aws: {enabled: true, refreshCheck: none}",
			"at '/refreshCheck': value must be one of 'describe', 'read'",
		},
		{
			"provider-aws: {enabled: true, aws: {useFipsEndpoint: true, endpointUrls: {ssm: 'https://ssm'}}}",
			"provider-aws.aws: set useFipsEndpoint or endpointUrls.ssm, not both",
		},
		{
			"provider-azure: {enabled: true, azure: {cloud: AzureChinaCloud}}",
			"provider-azure: - at '/azure': additional properties 'cloud' not allowed",
		},
		{
			"provider-azure: {enabled: true, constructPEMChain: sometimes}",
			"provider-azure: - at '/constructPEMChain': got string, want boolean",
		},
		{
			"provider-azure: {enabled: true, azure: {managedIdentity: {namespaces: shop}}}",
			"provider-azure: - at '/azure/managedIdentity/namespaces': got string, want array",
		},
		{
			"provider-azure: {enabled: true, azure: {cloudEnvironments: {stack.json: '{}'}}}",
			"provider-azure: - at '/azure/cloudEnvironments/stack.json': got string, want object",
		},
		{
			"provider-azure: {enabled: true, azure: {cloudEnvironments: {../stack.json: {name: AzureStackCloud}}}}",
			`provider-azure.azure.cloudEnvironments: "../stack.json" is no name of a file that ends in .json`,
		},
		{
			"provider-azure: {enabled: true, azure: {cloudEnvironments: {stack: {name: AzureStackCloud}}}}",
			`provider-azure.azure.cloudEnvironments: "stack" is no name of a file that ends in .json`,
		},
		// Names of the Azure provider's own chart whose features are not here.
		{
			"provider-azure: {enabled: true, linux: {image: {tag: v1}}}",
			"provider-azure: - at '': additional properties 'linux' not allowed",
		},
		{
			"provider-gcp: {enabled: true, gcp: {projectID: shop-prod}}",
			"provider-gcp: - at '/gcp': additional properties 'projectID' not allowed",
		},
		{
			"provider-gcp: {enabled: true, gcp: {providerIdentity: {namespaces: shop}}}",
			"provider-gcp: - at '/gcp/providerIdentity/namespaces': got string, want array",
		},
		{
			"provider-gcp: {enabled: true, gcp: {allowNodePublishSecret: 'true'}}",
			"provider-gcp: - at '/gcp/allowNodePublishSecret': got string, want boolean",
		},
		{
			"provider-gcp: {enabled: true, gcp: {workloadIdentity: {audience: shop-prod.svc.id.goog}}}",
			`provider-gcp.gcp.workloadIdentity.audience: "shop-prod.svc.id.goog" is no provider of a workload identity pool`,
		},
		{
			"provider-gcp: {enabled: true, gcp: {workloadIdentity: {audience: 'projects/1/locations/global/workloadIdentityPools/p/providers/x'}}}",
			"write //iam.googleapis.com/projects/<number>/locations/global/workloadIdentityPools/<pool>/providers/<provider>",
		},
		// A name of the GCP provider's own chart whose feature is not here.
		{
			"provider-gcp: {enabled: true, app: csi}",
			"provider-gcp: - at '': additional properties 'app' not allowed",
		},
		{
			"provider-file: {enabled: true, resources: {limit: {}}}",
			"provider-file: - at '/resources': additional properties 'limit' not allowed",
		},
		{
			"gateway: {policy: {rules: [{name: a}], existingConfigMap: b}}",
			"gateway.policy: set rules or existingConfigMap, not both",
		},
		{
			"gateway: {policy: {rules: a}}",
			"gateway: - at '/policy/rules': got string, want array",
		},
		{
			"provider-file: {enabled: true, root: {hostPath: /a}, files: {b: {}}}",
			"provider-file: set one of files, root.hostPath and root.volume",
		},
		{
			"provider-vault: {enabled: true, vault: {tls: {caSecret: a, caConfigMap: b}}}",
			"provider-vault.vault.tls: set caSecret or caConfigMap, not both",
		},
		{
			"global: {providerUids: {vault: 65010}}",
			"global.providerUids: file and vault have the same user id 65010, by which they are told apart",
		},
		{
			"global: {providerUids: {vault: 65001}}",
			"global.providerUids: gateway and vault have the same user id 65001, by which they are told apart",
		},
		// Names of the upstream chart whose features are not here.
		{
			"driver: {windows: {enabled: true}}",
			"driver: - at '': additional properties 'windows' not allowed",
		},
	} {
		t.Run(test.values, func(t *testing.T) {
			t.Parallel()
			_, err := helm.Render(t.Context(), charts.Options{Chart: charts.Umbrella, Values: []string{test.values}})
			if err == nil {
				t.Fatalf("no error, want one with %q", test.want)
			}
			if !strings.Contains(squeeze(err.Error()), squeeze(test.want)) {
				t.Errorf("error %v\nwant one with %q", err, test.want)
			}
		})
	}
}

// squeeze makes every run of white space one space.
func squeeze(text string) string { return strings.Join(strings.Fields(text), " ") }

// upstream is a values file for the Secrets Store CSI driver's chart 1.6.0 with
// all names that docs/migrate.md says are the same.
const upstream = `
nameOverride: driver
fullnameOverride: csi-secrets-store
imagePullSecrets: [{name: mirror}]
tokenRequests: [{audience: vault}]
commonLabels: {team: platform}
enableSecretRotation: true
rotationPollInterval: 30s
rbac: {install: true}
syncSecret: {enabled: true}
livenessProbe: {port: 9909, logLevel: 4}
linux:
  driver: {resources: {limits: {memory: 300Mi}}}
  registrarImage: {repository: mirror.example/registrar, tag: v9, pullPolicy: Always, digest: ""}
  registrar: {logVerbosity: 6, resources: {requests: {cpu: 20m}}}
  livenessProbeImage: {repository: mirror.example/liveness, tag: v8, pullPolicy: Always}
  livenessProbe: {resources: {requests: {cpu: 30m}}}
  updateStrategy: {type: OnDelete, rollingUpdate: null}
  kubeletRootDir: /var/data/kubelet
  metricsAddr: ":9095"
  nodeSelector: {pool: a}
  tolerations: []
  env: [{name: HTTPS_PROXY, value: x}]
  priorityClassName: high
  daemonsetAnnotations: {a: "1"}
  podAnnotations: {b: "2"}
  podLabels: {c: "3"}
  volumes: [{name: extra, emptyDir: {}}]
  volumeMounts: [{name: extra, mountPath: /extra}]
`

// TestUpstreamValues: what users of the upstream chart have set works below
// "driver".
func TestUpstreamValues(t *testing.T) {
	t.Parallel()
	objects := render(t, "driver:\n"+strings.ReplaceAll(upstream, "\n", "\n  "))
	set := decode[appsv1.DaemonSet](t, objects, "DaemonSet", "csi-secrets-store")
	spec := set.Spec.Template.Spec
	registrar, driver, liveness := spec.Containers[0], spec.Containers[1], spec.Containers[2]
	for what, got := range map[string][2]string{
		"pull secret":           {"mirror", spec.ImagePullSecrets[0].Name},
		"common label":          {"platform", set.Labels["team"]},
		"pod label":             {"3", set.Spec.Template.Labels["c"]},
		"app label":             {"secrets-store-csi-driver", set.Spec.Template.Labels["app"]},
		"pod annotation":        {"2", set.Spec.Template.Annotations["b"]},
		"annotation":            {"1", set.Annotations["a"]},
		"update strategy":       {"OnDelete", string(set.Spec.UpdateStrategy.Type)},
		"priority class":        {"high", spec.PriorityClassName},
		"node selector":         {"a", spec.NodeSelector["pool"]},
		"memory":                {"300Mi", driver.Resources.Limits.Memory().String()},
		"registrar":             {"node-driver-registrar mirror.example/registrar:v9 Always 20m", describe(registrar)},
		"liveness":              {"liveness-probe mirror.example/liveness:v8 Always 30m", describe(liveness)},
		"driver":                {"secrets-store ghcr.io/postern-dev/postern-driver:v0.1.0 IfNotPresent 10m", describe(driver)},
		"registrar's verbosity": {"--v=6", registrar.Args[0]},
		"registration":          {"--kubelet-registration-path=/var/data/kubelet/plugins/csi-secrets-store/csi.sock", registrar.Args[2]},
		"liveness' verbosity":   {"--v=4", liveness.Args[0]},
		"liveness' port":        {"--http-endpoint=:9909", liveness.Args[3]},
		"environment":           {"HTTPS_PROXY", driver.Env[len(driver.Env)-1].Name},
	} {
		if got[0] != got[1] {
			t.Errorf("%s: got %q, want %q", what, got[1], got[0])
		}
	}
	for _, flag := range []string{"--rotation-poll-interval=30s", "--sync-secret-namespaces=*", "--kubelet-root=/var/data/kubelet", "--metrics-addr=:9095"} {
		if !has(driver.Args, flag) {
			t.Errorf("the driver has no %s: %v", flag, driver.Args)
		}
	}
	if ports := driver.Ports; ports[0].ContainerPort != 9909 || ports[1].ContainerPort != 9095 {
		t.Errorf("ports %v", ports)
	}
	if len(spec.Tolerations) > 0 {
		t.Errorf("tolerations %v, want none", spec.Tolerations)
	}
	off := render(t, "driver: {enableSecretRotation: false}")
	args := decode[appsv1.DaemonSet](t, off, "DaemonSet", "postern-driver").Spec.Template.Spec.Containers[1].Args
	if !has(args, "--rotation-poll-interval=0") {
		t.Errorf("enableSecretRotation: false gives %v", args)
	}
}
