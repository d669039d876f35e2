package pods_test

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/postern-dev/postern/test/gcp/control"
	gcpcluster "github.com/postern-dev/postern/test/gcp/incluster"
	"github.com/postern-dev/postern/test/otlp"
)

// Users of the GCP provider keep their YAML: what it mounts, what a new version
// becomes, and what Google sees of it.
func testGCPWalkThrough(t *testing.T, double *gcpcluster.Server) {
	g := newGCPTenant(t, double)
	member := g.member("mypodserviceaccount")
	regional := "projects/" + gcpProject + "/locations/" + gcpLocation + "/secrets/" + g.namespace + "-regional"
	for resource, value := range map[string]string{
		g.named("testsecret"): "hunter2", g.named("json"): `{"user":"app","password":"p4ss"}`, regional: "from the region",
	} {
		g.put(resource, value)
		g.grant(resource, gcpAccessor, member)
		g.grant(resource, gcpViewer, member)
	}
	g.parameter(member)
	apply := shared.cluster.Command(t.Context(), "kubectl", "-n", g.namespace, "apply", "-f", "-")
	apply.Stdin = strings.NewReader(strings.NewReplacer(
		"${PROJECT_ID}", gcpProject, "${LOCATION_ID}", gcpLocation, "${PREFIX}", g.namespace,
	).Replace(gcpManifest))
	if _, err := output(apply); err != nil {
		t.Fatal(err)
	}
	kubectl(t, "-n", g.namespace, "rollout", "status", "deployment/mypod", "--timeout=150s")

	g.wantMounted(map[string]string{
		"good1.txt": "hunter2", "good2.txt": "hunter2", "password": "p4ss", "regional/good.txt": "from the region",
		"parameter.json": `{"password":"hunter2"}`,
	})
	g.wantVersion("1")
	g.put(g.named("testsecret"), "hunter3")
	g.wantMounted(map[string]string{
		"good1.txt": "hunter3", "good2.txt": "hunter3", "password": "p4ss", "parameter.json": `{"password":"hunter3"}`,
	})
	g.wantVersion("2")
	if logins := g.count(member, control.Token); logins != 1 {
		t.Errorf("%d logins for two pods of one service account, want one", logins)
	}
}

// parameter makes one that refers to the secret testsecret, which the parameter may
// read and a member may render.
func (g *gcpTenant) parameter(member string) {
	g.t.Helper()
	name := "projects/" + gcpProject + "/locations/global/parameters/" + g.namespace + "-parameter"
	value := `{"password":"__REF__(//secretmanager.googleapis.com/` + g.named("testsecret") + `/versions/latest)"}`
	applied := g.putAll(control.Document{Parameters: []control.Parameter{{Name: name, Format: control.JSON, Version: "v1", Value: &value}}})
	g.grant(g.named("testsecret"), gcpAccessor, member, applied.Parameters[0].PolicyMember)
	g.grant(name, "roles/parametermanager.parameterAccessor", member)
}

// wantMounted waits until the Deployment's pods have files of these contents.
func (g *gcpTenant) wantMounted(want map[string]string) {
	g.t.Helper()
	eventually(g.t, time.Minute, "the YAML's files", func(ctx context.Context) error {
		for name, content := range want {
			got, err := output(shared.cluster.Command(ctx, "kubectl", "-n", g.namespace, "exec", "deploy/mypod", "--", "cat", "/var/secrets/"+name))
			if err != nil {
				return fmt.Errorf("read %s: %w", name, err)
			}
			if got != content {
				return fmt.Errorf("the pod reads %q in %s, want %q", got, name, content)
			}
		}
		return nil
	})
}

// wantVersion waits until both statuses say that testsecret is mounted in this
// version, under the id that the GCP provider gives it.
func (g *gcpTenant) wantVersion(number string) {
	g.t.Helper()
	id, version := g.named("testsecret")+"/versions/latest", regexp.MustCompile("^"+number+`@[-_0-9A-Za-z]{22}\+[0-9a-f]{8}$`)
	eventually(g.t, time.Minute, "versions in the statuses", func(ctx context.Context) error {
		list, err := shared.dynamic.Resource(podStatuses()).Namespace(g.namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		if len(list.Items) != 2 {
			return fmt.Errorf("there are %d statuses", len(list.Items))
		}
		for _, item := range list.Items {
			objects, _, err := unstructured.NestedSlice(item.Object, "status", "objects")
			if err != nil {
				return err
			}
			if !slices.ContainsFunc(objects, func(each any) bool {
				object := each.(map[string]any)
				return object["id"] == id && version.MatchString(fmt.Sprint(object["version"]))
			}) || len(objects) != 5 {
				return fmt.Errorf("the objects are %v, want five, of them %s in version %s", objects, id, number)
			}
		}
		return nil
	})
}

// A service account's annotation says whose secrets its pods read. The provider has
// the name that GKE's add-on gives it, too.
func testGCPAnnotation(t *testing.T, double *gcpcluster.Server) {
	g := newGCPTenant(t, double)
	g.annotate()
	g.grant("projects/-/serviceAccounts/"+g.googleAccount(), "roles/iam.workloadIdentityUser", g.member(account))
	g.dbClass("gke")
	g.wantFiles(g.start(g.pod("web", "app")), "app", map[string]string{"db": "hunter2"})
	if reads := g.count(g.googleAccount(), control.Access); reads == 0 {
		t.Error("the secret was not read as the service account of Google's")
	}
}

// One mount is one trace, from kubelet's call to the requests to Google.
func testGCPOneTrace(t *testing.T, double *gcpcluster.Server) {
	const (
		readSpan  = "google.cloud.secretmanager.v1.SecretManagerService/AccessSecretVersion"
		loginSpan = "gcp login securetoken.googleapis.com"
	)
	g := newGCPTenant(t, double)
	g.dbClass("gcp")
	g.start(g.pod("web", "app"))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	trace, err := shared.traces.Wait(ctx, func(trace otlp.Trace) bool {
		root, ok := trace.Find("csi.NodePublishVolume")
		return ok && root.Attributes["k8s.namespace.name"] == g.namespace && trace.Has(readSpan)
	})
	must(t, err)
	t.Logf("\n%s", trace.Tree())
	for _, name := range []string{readSpan, loginSpan} {
		span, ok := trace.Find(name)
		if !ok {
			t.Errorf("the trace has no span %s", name)
			continue
		}
		if ancestors := trace.Ancestors(span); !slices.Contains(ancestors, "provider.Fetch") || !slices.Contains(ancestors, "gateway.Fetch") {
			t.Errorf("%s is below %v", name, ancestors)
		}
	}
	for _, span := range trace.Spans {
		if strings.Contains(span.Text(), "hunter2") || strings.Contains(span.Text(), "eyJ") || strings.Contains(span.Text(), "ya29.") {
			t.Errorf("span %s holds the secret or a token", span.Name)
		}
	}
}

// refusedWith wants a pod's event to have all of these words, and all of the advice
// before what Google said: events are cut off.
func (g *gcpTenant) refusedWith(said string, advice ...string) {
	g.t.Helper()
	pod := g.refused(append(advice, said)...)
	message := eventOf(g.t, pod, "SecretsMountFailed").Message
	for _, words := range advice {
		if strings.Index(message, words) > strings.Index(message, said) {
			g.t.Errorf("the event says %q only after what Google said: %s", words, message)
		}
	}
}

// What IAM denies is in the pod's event, with the role and for whom. What is granted
// then is enough.
func testGCPRoleMissing(t *testing.T, double *gcpcluster.Server) {
	g := newGCPTenant(t, double)
	g.grant(g.named("db"), gcpAccessor)
	g.dbClass("gcp")
	g.refusedWith("Permission 'secretmanager.versions.access' denied", g.named("db"), gcpAccessor, g.namespace+"/"+account)
	g.grant(g.named("db"), gcpAccessor, g.member(account))
	g.wantFiles(g.ready("web"), "app", map[string]string{"db": "hunter2"})
}

// Who may annotate a service account gets no identity by it that does not let it.
func testGCPNotImpersonated(t *testing.T, double *gcpcluster.Server) {
	g := newGCPTenant(t, double)
	g.annotate()
	g.dbClass("gcp")
	g.refusedWith("iam.serviceAccounts.getAccessToken", "roles/iam.workloadIdentityUser", g.googleAccount(), g.namespace+"/"+account)
	g.grant("projects/-/serviceAccounts/"+g.googleAccount(), "roles/iam.workloadIdentityUser", g.member(account))
	g.wantFiles(g.ready("web"), "app", map[string]string{"db": "hunter2"})
}

// A key of a volume's nodePublishSecretRef counts for nothing unless the operator
// allows it: the pod is itself.
func testGCPKeyIsOff(t *testing.T, double *gcpcluster.Server) {
	g := newGCPTenant(t, double)
	applied := g.putAll(control.Document{ServiceAccounts: []control.ServiceAccount{{Email: g.googleAccount(), Keys: []string{"key"}}}})
	g.grant(g.named("db"), gcpAccessor, "serviceAccount:"+g.googleAccount())
	_, err := shared.client.CoreV1().Secrets(g.namespace).Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "key"}, Data: map[string][]byte{"key.json": applied.ServiceAccounts[0].Keys[0]},
	}, metav1.CreateOptions{})
	must(t, err)
	g.dbClass("gcp")
	pod := g.pod("web", "app")
	pod.Spec.Volumes[0].CSI.NodePublishSecretRef = &corev1.LocalObjectReference{Name: "key"}
	event := eventOf(t, g.create(pod), "SecretsMountFailed")
	if !strings.Contains(event.Message, "Permission 'secretmanager.versions.access' denied") || strings.Contains(event.Message, "PRIVATE KEY") {
		t.Errorf("the event says %q, want it to say that the pod itself may not read", event.Message)
	}
	g.grant(g.named("db"), gcpAccessor, g.member(account))
	g.wantFiles(g.ready("web"), "app", map[string]string{"db": "hunter2"})
	if requests := g.requests(g.googleAccount()); len(requests) > 0 {
		t.Errorf("the key was used: %+v", requests)
	}
}

// The provider's own identity is nobody's who is not named, although it could read
// the secret.
func testGCPProviderIdentityIsOff(t *testing.T, double *gcpcluster.Server) {
	g := newGCPTenant(t, double)
	g.dbClass("gcp", "auth", "provider-adc")
	g.refused("provider-adc", g.namespace, "gcp.providerIdentity.namespaces")
}

// wantRefreshed waits for refreshes of some secrets that ask for versions and read
// nothing, and wants nothing to have been refused. The first one reads: only then is
// it known that what Google tells of is what was read.
func (g *gcpTenant) wantRefreshed(principal string, secrets int) {
	g.t.Helper()
	eventually(g.t, time.Minute, "a refresh", func(context.Context) error {
		for _, request := range g.requests(principal) {
			if request.Code != "" {
				g.t.Errorf("the documented roles are not enough: %+v", request)
			}
		}
		if g.count(principal, control.GetVersion) < 4*secrets {
			return errors.New("versions were not asked for by four refreshes")
		}
		return nil
	})
	if got := g.count(principal, control.Access); got > 2*secrets {
		g.t.Errorf("%d secrets were read %d times by more than three refreshes, want each to be read twice", secrets, got)
	}
}
