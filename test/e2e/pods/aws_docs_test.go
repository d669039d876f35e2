package pods_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/postern-dev/postern/test/aws/control"
	awscluster "github.com/postern-dev/postern/test/aws/incluster"
	"github.com/postern-dev/postern/test/cluster"
)

// awsCommand stands in for AWS' command line tool: it tells what scripts ask for,
// and changes nothing.
const awsCommand = `#!/bin/sh
case "$1 $2" in
"sts get-caller-identity") echo ` + ownAccount + ` ;;
"eks describe-cluster") echo ` + cluster.Issuer + ` ;;
esac
`

// What docs/aws.md tells readers to do for IRSA works as it is there: commands,
// trust policy, policy, class and pod. The policy is enough for refreshes, too.
func testAWSDocs(t *testing.T, double *awscluster.Server) {
	content, err := os.ReadFile(filepath.Join(shared.root, "docs/aws.md"))
	must(t, err)
	document := string(content)
	_, irsa, _ := strings.Cut(document, "\n## IRSA\n")
	irsa, _, _ = strings.Cut(irsa, "\n## ")
	n := newNamespace(t)
	secret, flags := `{"password":"hunter2"}`, "dark-mode"
	_, err = double.Apply(t.Context(), control.Document{
		Secrets:    []control.Secret{{Region: region, Name: "shop/db", String: &secret}},
		Parameters: []control.Parameter{{Region: region, Name: "/shop/flags", Value: &flags}},
		Roles: []control.Role{{
			ARN:    "arn:aws:iam::" + ownAccount + ":role/shop-cart",
			Trust:  n.followScripts(blocks(irsa, "sh")),
			Policy: []byte(blocks(document, "json")[0]),
		}},
	})
	must(t, err)
	apply := shared.cluster.Command(t.Context(), "kubectl", "apply", "-f", "-")
	apply.Stdin = strings.NewReader(strings.NewReplacer(
		"namespace: shop", "namespace: "+n.namespace,
		"image: example.com/shop/cart", "image: "+busybox+"\n      command: [sleep, '3600']",
	).Replace(blocks(irsa, "yaml")[0]))
	if _, err := output(apply); err != nil {
		t.Fatal(err)
	}
	n.wantFiles(n.ready("cart"), "db", map[string]string{"shop_db": secret, "password": "hunter2", "flags": flags})

	a := &awsTenant{tenant: n, double: double}
	eventually(t, time.Minute, "a refresh", func(context.Context) error {
		for _, request := range a.requests("arn:aws:iam::" + ownAccount + ":role/shop-cart") {
			if request.Code != "" {
				t.Errorf("the documented policy is not enough: %+v", request)
			}
			if request.Operation == "DescribeSecret" {
				return nil
			}
		}
		return errors.New("nobody has asked for versions")
	})
}

// followScripts runs what readers are told to type, for the tenant's namespace,
// and returns the trust policy that it wrote.
func (n *tenant) followScripts(scripts []string) (trust []byte) {
	n.t.Helper()
	dir := n.t.TempDir()
	must(n.t, os.WriteFile(filepath.Join(dir, "aws"), []byte(awsCommand), 0o755))
	script := strings.ReplaceAll(strings.Join(scripts, "\n"), "NAMESPACE=shop", "NAMESPACE="+n.namespace)
	bash := shared.cluster.Command(n.t.Context(), "bash", "-euo", "pipefail", "-c", "cd "+dir+"\n"+script)
	var stderr bytes.Buffer
	bash.Stdout, bash.Stderr = &stderr, &stderr
	bash.Env = append(bash.Environ(), "PATH="+dir+":"+pathOf(bash.Environ()))
	if err := bash.Run(); err != nil {
		n.t.Fatalf("%v\n%s", err, stderr.String())
	}
	accounts, err := shared.client.CoreV1().ServiceAccounts(n.namespace).Get(n.t.Context(), "cart", metav1.GetOptions{})
	must(n.t, err)
	if role := accounts.Annotations[roleAnnotation]; role != "arn:aws:iam::"+ownAccount+":role/shop-cart" {
		n.t.Errorf("the service account has the role %q", role)
	}
	trust, err = os.ReadFile(filepath.Join(dir, "trust.json"))
	must(n.t, err)
	return trust
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
