package pods_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/postern-dev/postern/test/aws/control"
	awscluster "github.com/postern-dev/postern/test/aws/incluster"
	"github.com/postern-dev/postern/test/cluster"
)

// awsCommand stands in for AWS' command line tool: it tells what scripts ask for,
// and notes how it was called.
const awsCommand = `#!/bin/sh
echo "$*" >>calls
case "$1 $2" in
"sts get-caller-identity") echo ` + ownAccount + ` ;;
"eks describe-cluster") echo ` + cluster.Issuer + ` ;;
esac
`

// What docs/aws.md tells readers to do works as it is there: commands, trust
// policies, policy, class and pod. The policy is enough for refreshes, too.
func testAWSDocs(t *testing.T, double *awscluster.Server) {
	content, err := os.ReadFile(filepath.Join(shared.root, "docs/aws.md"))
	must(t, err)
	document := string(content)
	irsa := section(document, "IRSA")
	for name, test := range map[string]struct{ section, parameters string }{
		"IRSA":        {irsa, ""},
		"PodIdentity": {section(document, "EKS Pod Identity"), "\n    usePodIdentity: 'true'"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNamespace(t)
			r := reader{
				awsTenant: &awsTenant{tenant: n, double: double, role: "arn:aws:iam::" + ownAccount + ":role/" + n.namespace},
				policy:    blocks(document, "json")[0],
			}
			r.follow(blocks(test.section, "sh"))
			r.deploy(strings.Replace(blocks(irsa, "yaml")[0], "\n  parameters:", "\n  parameters:"+test.parameters, 1))
			r.wantRefreshed()
		})
	}
}

// reader does what a document says, in a namespace and with a role of their own.
type reader struct {
	*awsTenant

	policy string
}

// follow runs what readers are told to type, and puts into AWS what comes of it.
func (r reader) follow(scripts []string) {
	r.t.Helper()
	dir := r.t.TempDir()
	must(r.t, os.WriteFile(filepath.Join(dir, "aws"), []byte(awsCommand), 0o755))
	script := strings.NewReplacer(
		"NAMESPACE=shop", "NAMESPACE="+r.namespace, "ROLE=shop-cart", "ROLE="+r.namespace, "CLUSTER=prod", "CLUSTER=test",
	).Replace(strings.Join(scripts, "\n"))
	typed(r.t, dir, script)
	trust, err := os.ReadFile(filepath.Join(dir, "trust.json"))
	must(r.t, err)
	calls, err := os.ReadFile(filepath.Join(dir, "calls"))
	must(r.t, err)
	document := control.Document{Roles: []control.Role{{ARN: r.role, Trust: trust, Policy: []byte(r.policy)}}}
	if strings.Contains(string(calls), "eks create-pod-identity-association") {
		document.Associations = []control.Association{{Namespace: r.namespace, ServiceAccount: "cart", Role: r.role}}
	}
	_, err = r.double.Apply(r.t.Context(), document)
	must(r.t, err)
}

// deploy makes the class and the pod, and looks at its files.
func (r reader) deploy(manifest string) {
	r.t.Helper()
	secret, flags := `{"password":"hunter2"}`, "dark-mode"
	_, err := r.double.Apply(r.t.Context(), control.Document{
		Secrets:    []control.Secret{{Region: region, Name: "shop/db", String: &secret}},
		Parameters: []control.Parameter{{Region: region, Name: "/shop/flags", Value: &flags}},
	})
	must(r.t, err)
	apply := shared.cluster.Command(r.t.Context(), "kubectl", "apply", "-f", "-")
	apply.Stdin = strings.NewReader(strings.NewReplacer(
		"namespace: shop", "namespace: "+r.namespace,
		"image: example.com/shop/cart", "image: "+busybox+"\n      command: [sleep, '3600']",
	).Replace(manifest))
	if _, err := output(apply); err != nil {
		r.t.Fatal(err)
	}
	r.wantFiles(r.ready("cart"), "db", map[string]string{"shop_db": secret, "password": "hunter2", "flags": flags})
}

// wantRefreshed waits for a refresh, and wants nothing to have been refused.
func (r reader) wantRefreshed() {
	r.t.Helper()
	eventually(r.t, time.Minute, "a refresh", func(context.Context) error {
		for _, request := range r.requests(r.role) {
			if request.Code != "" {
				r.t.Errorf("the documented policies are not enough: %+v", request)
			}
			if request.Operation == "DescribeSecret" {
				return nil
			}
		}
		return errors.New("nobody has asked for versions")
	})
}

// section is what stands below a heading of a document.
func section(document, heading string) string {
	_, text, _ := strings.Cut(document, "\n## "+heading+"\n")
	text, _, _ = strings.Cut(text, "\n## ")
	return text
}

// blocks are the blocks of code of a language in a document, without their
// indentation.
func blocks(document, language string) []string {
	var found []string
	for _, match := range regexp.MustCompile("(?ms)^( *)```"+language+"\n(.*?)^ *```$").FindAllStringSubmatch(document, -1) {
		found = append(found, regexp.MustCompile("(?m)^"+match[1]).ReplaceAllString(match[2], ""))
	}
	return found
}
