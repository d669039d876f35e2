package charts_test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	storagev1 "k8s.io/api/storage/v1"
	"sigs.k8s.io/yaml"

	"github.com/postern-dev/postern/test/charts"
)

func has(list []string, item string) bool { return slices.Contains(list, item) }

// describe is a container's name, image, pull policy and requested CPU.
func describe(c corev1.Container) string {
	return fmt.Sprintf("%s %s %s %s", c.Name, c.Image, c.ImagePullPolicy, c.Resources.Requests.Cpu())
}

// TestCSIDriver holds what kubelet is asked for.
func TestCSIDriver(t *testing.T) {
	t.Parallel()
	const vault, aws = `{"audience":"vault"}`, `{"audience":"sts.amazonaws.com"},{"audience":"pods.eks.amazonaws.com"}`
	const azure = `{"audience":"api://AzureADTokenExchange"},{"audience":"api://AKSIdentityBinding"}`
	const gcp = `{"audience":"shop-prod.svc.id.goog"}`
	for name, test := range map[string]struct {
		values, version string
		tokens          string
		inSecrets       bool
	}{
		"no provider":       {"", "1.35.0", "", false},
		"vault":             {"provider-vault: {enabled: true}", "1.35.0", vault, true},
		"aws":               {"provider-aws: {enabled: true}", "1.35.0", aws, true},
		"aws and vault":     {"{provider-aws: {enabled: true}, provider-vault: {enabled: true}}", "1.35.0", aws + "," + vault, true},
		"gcp":               {"provider-gcp: {enabled: true, gcp: {project: shop-prod}}", "1.35.0", gcp, true},
		"gcp, not set up":   {"provider-gcp: {enabled: true}", "1.35.0", "", false},
		"azure":             {"provider-azure: {enabled: true}", "1.35.0", azure, true},
		"all":               {allProviders, "1.35.0", aws + "," + azure + "," + vault, true},
		"file wants none":   {"provider-file: {enabled: true}", "1.35.0", "", false},
		"old cluster":       {"provider-vault: {enabled: true}", "1.34.9", vault, false},
		"vendor's version":  {"provider-vault: {enabled: true}", "v1.35.2-gke.100", vault, true},
		"disabled, but set": {"provider-vault: {enabled: false, tokenRequests: [{audience: x}]}", "1.35.0", "", false},
		"union": {
			`
driver: {tokenRequests: [{audience: vault, expirationSeconds: 900}, {audience: a}]}
provider-vault: {enabled: true, tokenRequests: [{audience: vault}, {audience: b}]}
provider-file: {enabled: true, tokenRequests: [{audience: a}, {audience: ""}]}`, "1.35.0",
			`{"audience":"vault","expirationSeconds":900},{"audience":"a"},{"audience":""},{"audience":"b"}`, true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			objects := renderWith(t, charts.Options{Chart: charts.Umbrella, Values: []string{test.values}, KubeVersion: test.version})
			driver := decode[storagev1.CSIDriver](t, objects, "CSIDriver", "secrets-store.csi.k8s.io")
			var requests []string
			for _, request := range driver.Spec.TokenRequests {
				encoded, err := json.Marshal(request)
				if err != nil {
					t.Fatal(err)
				}
				requests = append(requests, string(encoded))
			}
			if got := strings.Join(requests, ","); got != test.tokens {
				t.Errorf("tokenRequests %s, want %s", got, test.tokens)
			}
			driver.Spec.TokenRequests = nil
			yes, no, none := true, false, storagev1.NoneFSGroupPolicy
			want := storagev1.CSIDriverSpec{
				AttachRequired: &no, PodInfoOnMount: &yes, RequiresRepublish: &yes, SELinuxMount: &yes, FSGroupPolicy: &none,
				VolumeLifecycleModes: []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecycleEphemeral},
			}
			if test.inSecrets {
				want.ServiceAccountTokenInSecrets = &yes
			}
			if diff := cmp.Diff(want, driver.Spec); diff != "" {
				t.Errorf("CSIDriver (-want +got):\n%s", diff)
			}
		})
	}
}

// TestFlags holds the flags in the charts to those that each daemon has.
func TestFlags(t *testing.T) {
	t.Parallel()
	document := read(t, filepath.Join(repository(t), "docs/flags.md"))
	for name, set := range daemonSets(t, everything) {
		_, section, found := strings.Cut(document, "\n## postern-"+name+"\n")
		section, _, _ = strings.Cut(section, "\n## ")
		if !found {
			t.Errorf("docs/flags.md has no section for postern-%s", name)
			continue
		}
		for _, container := range set.Spec.Template.Spec.Containers {
			if strings.HasPrefix(container.Image, "registry.k8s.io/") {
				continue
			}
			for _, arg := range container.Args {
				flag, _, _ := strings.Cut(arg, "=")
				if !regexp.MustCompile(`(?m)^  ` + flag + `( |$)`).MatchString(section) {
					t.Errorf("postern-%s has no flag %s", name, flag)
				}
			}
		}
	}
}

// TestImages holds each part's image to its chart's version, and to what users
// may change of it.
func TestImages(t *testing.T) {
	t.Parallel()
	versions := map[string]string{}
	for _, chart := range list(t) {
		versions[chart.Name] = chart.AppVersion
	}
	images := func(values ...string) map[string]string {
		found := map[string]string{}
		for name, set := range daemonSets(t, append([]string{allProviders}, values...)...) {
			for _, container := range set.Spec.Template.Spec.Containers {
				found[name+"/"+container.Name] = container.Image
			}
		}
		return found
	}
	const ours, theirs = "ghcr.io/postern-dev/postern-", "registry.k8s.io/sig-storage/"
	want := map[string]string{
		"driver/secrets-store":          ours + "driver:" + versions["driver"],
		"driver/node-driver-registrar":  theirs + "csi-node-driver-registrar:v2.16.0",
		"driver/liveness-probe":         theirs + "livenessprobe:v2.18.0",
		"gateway/gateway":               ours + "gateway:" + versions["gateway"],
		"provider-aws/provider-aws":     ours + "provider-aws:" + versions["provider-aws"],
		"provider-azure/provider-azure": ours + "provider-azure:" + versions["provider-azure"],
		"provider-file/provider-file":   ours + "provider-file:" + versions["provider-file"],
		"provider-gcp/provider-gcp":     ours + "provider-gcp:" + versions["provider-gcp"],
		"provider-vault/provider-vault": ours + "provider-vault:" + versions["provider-vault"],
	}
	if diff := cmp.Diff(want, images()); diff != "" {
		t.Errorf("images (-want +got):\n%s", diff)
	}
	for name, image := range want {
		_, path, _ := strings.Cut(image, "/")
		want[name] = "mirror.example:5000/k8s/" + path
	}
	want["provider-vault/provider-vault"] = "mirror.example:5000/k8s/local/vault@sha256:0123"
	got := images("{global: {imageRegistry: 'mirror.example:5000/k8s/'}, provider-vault: {image: {repository: local/vault, digest: 'sha256:0123'}}}")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("images from a mirror (-want +got):\n%s", diff)
	}
}

// TestProviders: every provider of the tree has a chart, is off by default, and
// has a user id.
func TestProviders(t *testing.T) {
	t.Parallel()
	mains, err := filepath.Glob(filepath.Join(repository(t), "providers/*/cmd/postern-provider-*"))
	if err != nil || len(mains) == 0 {
		t.Fatalf("providers: %v, %v", mains, err)
	}
	var want []string
	for _, dir := range mains {
		want = append(want, strings.TrimPrefix(filepath.Base(dir), "postern-provider-"))
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, umbrella(t).Providers()); diff != "" {
		t.Errorf("providers (-in the tree +in the chart):\n%s", diff)
	}
	objects := render(t)
	if sets := objects.Kind("DaemonSet"); len(sets) != 2 {
		t.Errorf("DaemonSets by default: %d, want driver and gateway", len(sets))
	}
	driver := decode[appsv1.DaemonSet](t, objects, "DaemonSet", "postern-driver")
	args := driver.Spec.Template.Spec.Containers[1].Args
	uids := imageUIDs(t)
	pairs := make([]string, 0, len(want))
	for _, provider := range want {
		pairs = append(pairs, fmt.Sprintf("%s=%d", provider, uids["postern-provider-"+provider]))
	}
	for _, flag := range []string{
		fmt.Sprintf("--gateway-uid=%d", uids["postern-gateway"]), "--provider-uids=" + strings.Join(pairs, ","),
	} {
		if !has(args, flag) {
			t.Errorf("the driver has no %s, as the images would want: %v", flag, args)
		}
	}
}

// imageUIDs are the user ids that the images are made for.
func imageUIDs(t *testing.T) map[string]int {
	t.Helper()
	var file struct {
		Images map[string]struct{ UID int }
	}
	if err := yaml.Unmarshal([]byte(read(t, filepath.Join(repository(t), "versions.yaml"))), &file); err != nil {
		t.Fatal(err)
	}
	uids := map[string]int{}
	for name, image := range file.Images {
		uids[name] = image.UID
	}
	return uids
}

// TestVersions: a chart is released with all that is in it.
func TestVersions(t *testing.T) {
	t.Parallel()
	parent := umbrella(t)
	versions := map[string]string{}
	for _, chart := range list(t) {
		versions[chart.Name] = chart.Version
		if chart.Version != parent.Version {
			t.Errorf("chart %s has version %s, the umbrella %s", chart.Name, chart.Version, parent.Version)
		}
	}
	for _, dependency := range parent.Dependencies {
		if versions[dependency.Name] != dependency.Version {
			t.Errorf("the umbrella wants %s %s, which is %s", dependency.Name, dependency.Version, versions[dependency.Name])
		}
		if dependency.Name != "postern-lib" && dependency.Condition != dependency.Name+".enabled" {
			t.Errorf("%s is installed on the condition %q", dependency.Name, dependency.Condition)
		}
	}
}

// TestNetworkPolicies holds whom each part may reach.
func TestNetworkPolicies(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		values string
		egress map[string][]string
	}{
		"default": {allProviders, map[string][]string{
			"gateway": nil, "provider-aws": {"53", "53", "443", "80"}, "provider-azure": {"53", "53", "443"},
			"provider-file": nil, "provider-gcp": {"53", "53", "443", "80", "988"}, "provider-vault": {"53", "53", "443", "8200"},
		}},
		"traces and a port": {
			allProviders + "global: {otlp: {endpoint: 'http://collector:4318'}}",
			map[string][]string{
				"gateway": {"53", "53", "4318"}, "provider-file": {"53", "53", "4318"},
				"provider-aws":   {"53", "53", "4318", "443", "80"},
				"provider-azure": {"53", "53", "4318", "443"},
				"provider-gcp":   {"53", "53", "4318", "443", "80", "988"},
				"provider-vault": {"53", "53", "4318", "443", "8200"},
			},
		},
		"other ports": {
			`{provider-file: {enabled: true}, provider-vault: {enabled: true, networkPolicy: {ports: []}, vault: {address: 'https://vault'}},
			provider-aws: {enabled: true, networkPolicy: {ports: [], podIdentityAgent: []}, aws: {endpointUrls: {sts: 'https://sts', ssm: 'http://ssm:8080'}}},
			provider-azure: {enabled: true, networkPolicy: {ports: [3128, 443]}, azure: {tokenProxy: {url: 'https://proxy:8443/'}}},
			provider-gcp: {enabled: true, networkPolicy: {ports: [3128]}, gcp: {project: p, clusterName: c, clusterLocation: l}},
			global: {otlp: {endpoint: collector, protocol: grpc}}}`,
			map[string][]string{
				"gateway": {"53", "53", "4317"}, "provider-azure": {"53", "53", "4317", "3128", "443", "8443"},
				"provider-aws":  {"53", "53", "4317", "8080", "443"},
				"provider-gcp":  {"53", "53", "4317", "3128"},
				"provider-file": {"53", "53", "4317"}, "provider-vault": {"53", "53", "4317", "443"},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			objects := render(t, test.values)
			got := map[string][]string{}
			for part := range test.egress {
				policy := decode[networkingv1.NetworkPolicy](t, objects, "NetworkPolicy", "postern-"+part)
				want := []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress}
				if diff := cmp.Diff(want, policy.Spec.PolicyTypes); diff != "" || len(policy.Spec.Ingress) != 1 {
					t.Errorf("%s: %d ingress rules, policy types (-want +got):\n%s", part, len(policy.Spec.Ingress), diff)
				}
				got[part] = nil
				for _, rule := range policy.Spec.Egress {
					for _, port := range rule.Ports {
						got[part] = append(got[part], port.Port.String())
					}
				}
			}
			if diff := cmp.Diff(test.egress, got); diff != "" {
				t.Errorf("ports that may be reached (-want +got):\n%s", diff)
			}
		})
	}
	if policies := render(t, allProviders, "global: {networkPolicy: {enabled: false}}").Kind("NetworkPolicy"); len(policies) > 0 {
		t.Errorf("NetworkPolicies that are turned off: %d", len(policies))
	}
}

// TestNotes holds what an installation tells to what is installed.
func TestNotes(t *testing.T) {
	t.Parallel()
	helm := newHelm(t)
	for name, test := range map[string]struct {
		values        string
		want, wantNot []string
	}{
		"nothing":  {"", []string{"No provider is installed yet", "helm install postern-crds"}, []string{"helm test", "Providers:"}},
		"file":     {"provider-file: {enabled: true}", []string{"Providers: file", "helm test postern -n postern-system"}, []string{"No provider"}},
		"own root": {"provider-file: {enabled: true, root: {hostPath: /a}}", []string{"Providers: file"}, []string{"helm test"}},
		"vault's test": {
			"{provider-vault: {enabled: true}, tests: {provider: vault, parameters: {roleName: test}}}",
			[]string{"Providers: vault", "helm test"},
			nil,
		},
		"gcp, not set up": {
			"provider-gcp: {enabled: true}",
			[]string{"Providers: gcp", "WARNING: pods have no identity in Google Cloud", "provider-gcp.gcp.workloadIdentity.audience"},
			[]string{"No provider"},
		},
		"gcp":      {"provider-gcp: {enabled: true, gcp: {project: shop-prod}}", []string{"Providers: gcp"}, []string{"in Google Cloud"}},
		"no tests": {"{provider-file: {enabled: true}, tests: {enabled: false}}", nil, []string{"helm test"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			notes, err := helm.Notes(t.Context(), charts.Options{Chart: charts.Umbrella, Values: []string{test.values}})
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range test.want {
				if !strings.Contains(notes, want) {
					t.Errorf("the notes lack %q:\n%s", want, notes)
				}
			}
			for _, not := range test.wantNot {
				if strings.Contains(notes, not) {
					t.Errorf("the notes have %q:\n%s", not, notes)
				}
			}
		})
	}
}
