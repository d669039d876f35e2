package charts_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	storagev1 "k8s.io/api/storage/v1"

	"github.com/postern-dev/postern/test/charts"
)

// defaultGCPArgs are the provider's own flags without any value set.
const defaultGCPArgs = "--allow-node-publish-secret=false --refresh-check=describe --max-sessions=1000"

// What clusters that are not GKE's exchange tokens at.
const (
	ownPool = "//iam.googleapis.com/projects/123456789012/locations/global/workloadIdentityPools/clusters/providers/prod"
	fleet   = "identitynamespace:shop-prod.svc.id.goog:https://gkehub.googleapis.com/projects/p/locations/global/memberships/m"
)

// gcp renders the provider with values of its own, and no other.
func gcp(t *testing.T, values string) (charts.Objects, corev1.PodSpec) {
	t.Helper()
	objects := render(t, "provider-gcp: {enabled: true}", "provider-gcp: "+values)
	return objects, decode[appsv1.DaemonSet](t, objects, "DaemonSet", "postern-provider-gcp").Spec.Template.Spec
}

// TestGCPValues holds what the values of provider-gcp become: its flags, the tokens
// that kubelet is asked for, and whether it reaches the node's metadata server, which
// hands out the node's identity.
func TestGCPValues(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		values, args, tokens string
		metadata             bool
	}{
		"default": {"{}", defaultGCPArgs, "", true},
		"GKE": {
			"{gcp: {project: shop-prod}}", "--project=shop-prod " + defaultGCPArgs, "shop-prod.svc.id.goog", true,
		},
		"GKE, all said": {
			"{gcp: {project: shop-prod, clusterName: prod, clusterLocation: europe-west3}}",
			"--project=shop-prod --cluster-name=prod --cluster-location=europe-west3 " + defaultGCPArgs, "shop-prod.svc.id.goog", false,
		},
		"a cluster without a location": {
			"{gcp: {project: shop-prod, clusterName: prod}}",
			"--project=shop-prod --cluster-name=prod " + defaultGCPArgs, "shop-prod.svc.id.goog", true,
		},
		"a pool of one's own": {
			"{gcp: {workloadIdentity: {audience: " + ownPool + "}}}",
			"--workload-identity-audience=" + ownPool + " " + defaultGCPArgs, ownPool, false,
		},
		"a provider of a pool that wants something else": {
			"{gcp: {workloadIdentity: {audience: " + ownPool + ", tokenAudience: https://clusters.example.com}}}",
			"--workload-identity-audience=" + ownPool + " --token-audience=https://clusters.example.com " + defaultGCPArgs,
			"https://clusters.example.com", false,
		},
		"a fleet": {
			"{gcp: {workloadIdentity: {audience: '" + fleet + "'}}}",
			"--workload-identity-audience=" + fleet + " " + defaultGCPArgs, "shop-prod.svc.id.goog", false,
		},
		"a fleet of a project with a colon": {
			"{gcp: {workloadIdentity: {audience: 'identitynamespace:example.com:shop.svc.id.goog:https://a:8443/b'}}}",
			"--workload-identity-audience=identitynamespace:example.com:shop.svc.id.goog:https://a:8443/b " + defaultGCPArgs,
			"example.com:shop.svc.id.goog", false,
		},
		"a pool of one's own beside a project": {
			"{gcp: {project: shop-prod, workloadIdentity: {audience: " + ownPool + "}}}",
			"--project=shop-prod --workload-identity-audience=" + ownPool + " " + defaultGCPArgs, ownPool, false,
		},
		"further tokens": {
			"{gcp: {project: shop-prod}, tokenRequests: [{audience: other}]}",
			"--project=shop-prod " + defaultGCPArgs, "shop-prod.svc.id.goog other", true,
		},
		"identity of the provider": {
			"{gcp: {project: p, clusterName: c, clusterLocation: l, providerIdentity: {namespaces: [shop, bank]}}}",
			"--project=p --cluster-name=c --cluster-location=l " + defaultGCPArgs + " --provider-identity-namespaces=shop,bank",
			"p.svc.id.goog", true,
		},
		"the rest": {
			"{gcp: {allowNodePublishSecret: true}, refreshCheck: read, maxSessions: 7}",
			"--allow-node-publish-secret=true --refresh-check=read --max-sessions=7", "", true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			objects, pod := gcp(t, test.values)
			var args []string
			for _, arg := range pod.Containers[0].Args[3:] { // after those of every provider
				if !strings.HasPrefix(arg, "--log-") {
					args = append(args, arg)
				}
			}
			if diff := cmp.Diff(strings.Fields(test.args), args); diff != "" {
				t.Errorf("flags (-want +got):\n%s", diff)
			}
			var audiences []string
			for _, request := range decode[storagev1.CSIDriver](t, objects, "CSIDriver", "secrets-store.csi.k8s.io").Spec.TokenRequests {
				audiences = append(audiences, request.Audience)
			}
			if got := strings.Join(audiences, " "); got != test.tokens {
				t.Errorf("kubelet sends tokens of the audiences %q, want %q", got, test.tokens)
			}
			if pod.HostNetwork {
				t.Error("the node's network is open")
			}
			wantMetadata(t, objects, test.metadata)
		})
	}
}

// wantMetadata holds the NetworkPolicy to letting the provider reach the metadata
// server, with nothing beside it, or not at all.
func wantMetadata(t *testing.T, objects charts.Objects, want bool) {
	t.Helper()
	var reached []string
	for _, rule := range decode[networkingv1.NetworkPolicy](t, objects, "NetworkPolicy", "postern-provider-gcp").Spec.Egress {
		if port := rule.Ports[0].Port.IntValue(); port != 80 {
			if len(rule.To) > 0 {
				t.Errorf("port %d is for %v alone", port, rule.To)
			}
			continue
		}
		encoded, err := json.Marshal(rule)
		if err != nil {
			t.Fatal(err)
		}
		reached = append(reached, string(encoded))
	}
	var rules []string
	if want {
		rules = []string{`{"ports":[{"protocol":"TCP","port":80},{"protocol":"TCP","port":988}],` +
			`"to":[{"ipBlock":{"cidr":"169.254.169.254/32"}},{"ipBlock":{"cidr":"169.254.169.252/32"}}]}`}
	}
	if diff := cmp.Diff(rules, reached); diff != "" {
		t.Errorf("who may be reached at port 80 (-want +got):\n%s", diff)
	}
}
