package charts_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	networkingv1 "k8s.io/api/networking/v1"
)

// TestAWSValues holds what the values of provider-aws become: its flags, and the
// variables of AWS' SDK.
func TestAWSValues(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		values    string
		args, env []string
	}{
		"default": {"{}", []string{"--refresh-check=describe", "--max-sessions=1000"}, nil},
		"FIPS": {
			"aws: {useFipsEndpoint: true, region: us-gov-west-1}",
			[]string{"--refresh-check=describe", "--max-sessions=1000", "--aws-region=us-gov-west-1"},
			[]string{"AWS_USE_FIPS_ENDPOINT=true"},
		},
		"all": {
			`
aws:
  region: eu-central-1
  podIdentityHttpTimeout: 1m30s
  endpointUrls: {sts: "https://sts.vpce:8443", secretsmanager: "https://sm.vpce", ssm: "http://ssm.vpce:8080"}
refreshCheck: read
maxSessions: 7
env: [{name: HTTPS_PROXY, value: "http://proxy:3128"}]`,
			[]string{"--refresh-check=read", "--max-sessions=7", "--aws-region=eu-central-1", "--pod-identity-http-timeout=1m30s"},
			[]string{
				"AWS_ENDPOINT_URL_SECRETS_MANAGER=https://sm.vpce", "AWS_ENDPOINT_URL_SSM=http://ssm.vpce:8080",
				"AWS_ENDPOINT_URL_STS=https://sts.vpce:8443", "HTTPS_PROXY=http://proxy:3128",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			set := daemonSets(t, allProviders, "provider-aws:\n  "+strings.ReplaceAll(test.values, "\n", "\n  "))["provider-aws"]
			container := set.Spec.Template.Spec.Containers[0]
			var args, env []string
			for _, arg := range container.Args[3:] { // after those of every provider
				if !strings.HasPrefix(arg, "--log-") {
					args = append(args, arg)
				}
			}
			for _, variable := range container.Env {
				env = append(env, variable.Name+"="+variable.Value)
			}
			if diff := cmp.Diff(test.args, args); diff != "" {
				t.Errorf("flags (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(test.env, env); diff != "" {
				t.Errorf("environment (-want +got):\n%s", diff)
			}
		})
	}
}

// TestAWSReachesNoMetadata: port 80 is open to the agent of EKS Pod Identity
// alone. The node's metadata service, which hands out the node's role, has the
// same port.
func TestAWSReachesNoMetadata(t *testing.T) {
	t.Parallel()
	for values, want := range map[string][]string{
		allProviders: {"169.254.170.23/32", "fd00:ec2::23/128"},
		"provider-aws: {enabled: true, networkPolicy: {podIdentityAgent: ['fd00:ec2::23/128']}}": {"fd00:ec2::23/128"},
		"provider-aws: {enabled: true, networkPolicy: {podIdentityAgent: []}}":                   nil,
	} {
		policy := decode[networkingv1.NetworkPolicy](t, render(t, values), "NetworkPolicy", "postern-provider-aws")
		var reached []string
		for _, rule := range policy.Spec.Egress {
			if rule.Ports[0].Port.IntValue() != 80 {
				continue
			}
			if len(rule.To) == 0 || len(rule.Ports) != 1 {
				t.Errorf("a rule with port 80 is not for the agent alone: %+v", rule)
			}
			for _, peer := range rule.To {
				reached = append(reached, peer.IPBlock.CIDR)
			}
		}
		if diff := cmp.Diff(want, reached); diff != "" {
			t.Errorf("who may be reached at port 80 (-want +got):\n%s", diff)
		}
	}
}
