package pods_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/postern-dev/postern/test/gcp/control"
	gcpcluster "github.com/postern-dev/postern/test/gcp/incluster"
)

// gcloudCommand stands in for Google's command line tool: it tells what scripts ask
// for, and notes how it was called.
const gcloudCommand = `#!/bin/sh
echo "$*" >>calls
case "$*" in
"projects describe "*) echo ` + gcpProjectNumber + ` ;;
"iam workload-identity-pools providers describe "*)
	echo projects/` + gcpProjectNumber + `/locations/global/workloadIdentityPools/clusters/providers/prod ;;
esac
`

// gcpReader is a tenant of somebody who reads docs/gcp.md.
type gcpReader struct{ *gcpTenant }

func newGCPReader(t *testing.T, double *gcpcluster.Server) gcpReader {
	t.Helper()
	r := gcpReader{newGCPTenant(t, double)}
	r.put(r.named("db-password"), "hunter2")
	for _, token := range []string{"one", "two", "three", "four"} {
		r.put(r.named("api-token"), token)
	}
	return r
}

func gcpDocument(t *testing.T) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(shared.root, "docs/gcp.md"))
	must(t, err)
	return string(content)
}

// own gives what readers are told the tenant's namespace and secrets.
func (r gcpReader) own(text string) string {
	return strings.NewReplacer(
		"NAMESPACE=shop", "NAMESPACE="+r.namespace, "namespace: shop", "namespace: "+r.namespace,
		"in db-password api-token", "in "+r.namespace+"-db-password "+r.namespace+"-api-token",
		"secrets/db-password/", "secrets/"+r.namespace+"-db-password/", "secrets/api-token/", "secrets/"+r.namespace+"-api-token/",
		"image: example.com/shop/cart", "image: "+busybox+"\n      command: [sleep, '3600']",
	).Replace(text)
}

// follow runs what readers are told to type, and grants what they told Google's
// command line tool to. It returns how that was called.
func (r gcpReader) follow(section string) string {
	r.t.Helper()
	dir := r.t.TempDir()
	must(r.t, os.WriteFile(filepath.Join(dir, "gcloud"), []byte(gcloudCommand), 0o755))
	typed(r.t, dir, r.own(strings.Join(blocks(section, "sh"), "\n")))
	content, err := os.ReadFile(filepath.Join(dir, "calls"))
	must(r.t, err)
	calls := string(content)
	binding := regexp.MustCompile(`secrets add-iam-policy-binding (\S+) --project (\S+) --member (\S+) --role (\S+)`)
	matches := binding.FindAllStringSubmatch(calls, -1)
	if len(matches) != 4 {
		r.t.Fatalf("two roles on two secrets were not granted:\n%s", calls)
	}
	for _, match := range matches {
		r.grant("projects/"+match[2]+"/secrets/"+match[1], match[4], match[3])
	}
	return calls
}

// deploy makes class and pod, and wants the pod to read, and to be refreshed without
// a payload being moved.
func (r gcpReader) deploy(principal string) {
	r.t.Helper()
	manifest := blocks(section(gcpDocument(r.t), "GKE"), "yaml")[0]
	apply := shared.cluster.Command(r.t.Context(), "kubectl", "apply", "-f", "-")
	apply.Stdin = strings.NewReader(r.own(manifest))
	if _, err := output(apply); err != nil {
		r.t.Fatal(err)
	}
	r.wantFiles(r.ready("cart"), "secrets", map[string]string{"db-password": "hunter2", "tokens/api": "three"})
	r.wantRefreshed(principal, 2)
}

// What docs/gcp.md tells readers to do works as it is there: commands, roles, class
// and pod. The roles are enough for refreshes, too.
func testGCPDocs(t *testing.T, double *gcpcluster.Server) {
	r := newGCPReader(t, double)
	r.follow(section(gcpDocument(t), "GKE"))
	r.deploy(r.member("cart"))
}

// The same on a cluster that is not GKE's, with a pool of one's own. The provider is
// told as the document has it.
func testGCPOtherCluster(t *testing.T, double *gcpcluster.Server) {
	r := newGCPReader(t, double)
	calls := r.follow(section(gcpDocument(t), "Any other cluster"))
	match := regexp.MustCompile(`providers create-oidc prod .*--workload-identity-pool clusters --issuer-uri (\S+) ` +
		`--jwk-json-path keys.json --attribute-mapping google.subject=assertion.sub`).FindStringSubmatch(calls)
	if match == nil {
		t.Fatalf("no provider of a pool was made:\n%s", calls)
	}
	r.putAll(control.Document{Pools: []control.Pool{{
		Project: gcpProject, ID: "clusters", Providers: []control.Provider{{ID: "prod", Issuer: match[1]}},
	}}})
	must(t, shared.postern.Upgrade(t.Context(), "provider-gcp.gcp.workloadIdentity.audience="+gcpPools+"clusters/providers/prod"))
	r.deploy("principal:" + gcpPools + "clusters/subject/system:serviceaccount:" + r.namespace + ":cart")
}
