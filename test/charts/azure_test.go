package charts_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/postern-dev/postern/test/charts"
)

// defaultAzureArgs are the provider's own flags without any value set.
const defaultAzureArgs = "--cloud-name=AzurePublicCloud --construct-pem-chain=true --write-cert-and-key-in-separate-files=false " +
	"--object-version-history-inclusive=false --max-sessions=1000"

// azure renders the provider with values of its own.
func azure(t *testing.T, values string) (charts.Objects, corev1.PodSpec) {
	t.Helper()
	own := "provider-azure:\n  " + strings.ReplaceAll(values, "\n", "\n  ")
	return render(t, allProviders, own), daemonSets(t, allProviders, own)["provider-azure"].Spec.Template.Spec
}

// TestAzureValues holds what the values of provider-azure become: its flags, and
// the ConfigMaps that it is given.
func TestAzureValues(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		values       string
		args, mounts string
	}{
		"default": {"{}", defaultAzureArgs, ""},
		"content": {
			`
azure: {cloudName: AzureUSGovernmentCloud, objectVersionHistoryInclusive: true}
constructPEMChain: false
writeCertAndKeyInSeparateFiles: true
maxSessions: 7`,
			"--cloud-name=AzureUSGovernmentCloud --construct-pem-chain=false --write-cert-and-key-in-separate-files=true " +
				"--object-version-history-inclusive=true --max-sessions=7", "",
		},
		"identities of nodes": {
			"azure: {managedIdentity: {namespaces: [shop, bank]}}",
			defaultAzureArgs + " --provider-identity-namespaces=shop,bank", "",
		},
		"token proxy": {
			"azure: {tokenProxy: {url: 'https://proxy', sniName: abc.ests.aks, caConfigMap: proxy-ca}}",
			defaultAzureArgs + " --token-proxy-url=https://proxy --sni-name=abc.ests.aks --token-proxy-ca-file=/etc/postern/token-proxy/ca.crt",
			"proxy-ca at /etc/postern/token-proxy",
		},
		"token proxy of the cluster": {
			"azure: {tokenProxy: {sniName: abc.ests.aks}}",
			defaultAzureArgs + " --sni-name=abc.ests.aks --token-proxy-ca-file=/etc/postern/token-proxy/ca.crt",
			"kube-root-ca.crt at /etc/postern/token-proxy",
		},
		"token proxy that everybody trusts": {
			"azure: {tokenProxy: {url: 'https://proxy', caConfigMap: ''}}",
			defaultAzureArgs + " --token-proxy-url=https://proxy", "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, pod := azure(t, test.values)
			var args []string
			for _, arg := range pod.Containers[0].Args[3:] { // after those of every provider
				if !strings.HasPrefix(arg, "--log-") {
					args = append(args, arg)
				}
			}
			if diff := cmp.Diff(strings.Fields(test.args), args); diff != "" {
				t.Errorf("flags (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(test.mounts, configMaps(t, pod)); diff != "" {
				t.Errorf("ConfigMaps (-want +got):\n%s", diff)
			}
		})
	}
}

// configMaps are those that a pod's only container has mounted, and where.
func configMaps(t *testing.T, pod corev1.PodSpec) string {
	t.Helper()
	var found []string
	for _, volume := range pod.Volumes {
		if volume.ConfigMap == nil {
			continue
		}
		for _, mount := range pod.Containers[0].VolumeMounts {
			if mount.Name != volume.Name {
				continue
			}
			if !mount.ReadOnly {
				t.Errorf("ConfigMap %s is not mounted read-only", volume.ConfigMap.Name)
			}
			found = append(found, volume.ConfigMap.Name+" at "+mount.MountPath)
		}
	}
	return strings.Join(found, ", ")
}

// TestAzureClouds: each cloud of the values is a file where the provider looks for
// them, and what is in them is a part of the pods, which read them at their start.
func TestAzureClouds(t *testing.T) {
	t.Parallel()
	const stack = "azure: {cloudEnvironments: {stack.json: {name: AzureStackCloud, resourceIdentifiers: {keyVault: 'https://a'}}, b.json: {}}}"
	objects, pod := azure(t, stack)
	flag := "--cloud-environment-dir=/etc/postern/clouds"
	name, dir, _ := strings.Cut(configMaps(t, pod), " at ")
	if !has(pod.Containers[0].Args, flag) || !strings.HasSuffix(flag, "="+dir) {
		t.Errorf("clouds are in %q, flags %v", dir, pod.Containers[0].Args)
	}
	files := decode[corev1.ConfigMap](t, objects, "ConfigMap", name).Data
	var got struct {
		Name                string
		ResourceIdentifiers map[string]string
	}
	if err := json.Unmarshal([]byte(files["stack.json"]), &got); err != nil || len(files) != 2 {
		t.Fatalf("files %v: %v", files, err)
	}
	if got.Name != "AzureStackCloud" || got.ResourceIdentifiers["keyVault"] != "https://a" {
		t.Errorf("stack.json is %s", files["stack.json"])
	}
	_, changed := azure(t, strings.Replace(stack, "https://a", "https://b", 1))
	if other := configMaps(t, changed); other == name+" at "+dir {
		t.Error("another cloud replaces no pod")
	}
	if _, same := azure(t, stack); configMaps(t, same) != name+" at "+dir {
		t.Error("the same values replace pods")
	}
}

// TestAzureReachesNoMetadata: the node's metadata service, which hands out the
// node's identities, is open to the provider only where pods may use them.
func TestAzureReachesNoMetadata(t *testing.T) {
	t.Parallel()
	for values, want := range map[string][]string{
		"{}": nil,
		"azure: {managedIdentity: {namespaces: [shop]}}": {"169.254.169.254/32"},
	} {
		objects, pod := azure(t, values)
		if pod.HostNetwork {
			t.Errorf("%s: the node's network is open", values)
		}
		policy := decode[networkingv1.NetworkPolicy](t, objects, "NetworkPolicy", "postern-provider-azure")
		var reached []string
		for _, rule := range policy.Spec.Egress {
			if rule.Ports[0].Port.IntValue() != 80 {
				continue
			}
			if len(rule.To) == 0 || len(rule.Ports) != 1 {
				t.Errorf("a rule with port 80 is not for the metadata service alone: %+v", rule)
			}
			for _, peer := range rule.To {
				reached = append(reached, peer.IPBlock.CIDR)
			}
		}
		if diff := cmp.Diff(want, reached); diff != "" {
			t.Errorf("%s: who may be reached at port 80 (-want +got):\n%s", values, diff)
		}
	}
}
