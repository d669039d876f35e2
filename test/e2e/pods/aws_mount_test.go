package pods_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/postern-dev/postern/test/aws/control"
	awscluster "github.com/postern-dev/postern/test/aws/incluster"
	"github.com/postern-dev/postern/test/otlp"
)

// Users of the AWS provider keep their YAML: what it mounts, what a change in the
// store becomes, and what AWS sees of it.
func testAWSWalkThrough(t *testing.T, double *awscluster.Server) {
	n := newNamespace(t)
	a := &awsTenant{tenant: n, double: double, role: "arn:aws:iam::" + ownAccount + ":role/" + n.namespace}
	const parameter = "arn:aws:ssm:" + region + ":" + ownAccount + ":parameter/my/parameter"
	value := "on"
	_, err := double.Apply(t.Context(), control.Document{
		Roles: []control.Role{{
			ARN: a.role, ServiceAccounts: []string{n.namespace + "/nginx-irsa-deployment-sa"},
			Policy: allow([]string{"secretsmanager:GetSecretValue", "secretsmanager:DescribeSecret", "ssm:GetParameters"}, secretARN("MySecret"), parameter),
		}},
		Parameters: []control.Parameter{{Region: region, Name: "/my/parameter", Type: "SecureString", Value: &value}},
	})
	must(t, err)
	a.putString("MySecret", `{"username":"testuser", "password":"testpassword"}`)
	apply := shared.cluster.Command(t.Context(), "kubectl", "-n", n.namespace, "apply", "-f", "-")
	apply.Stdin = strings.NewReader(strings.ReplaceAll(awsManifest, "${ROLE}", a.role))
	if _, err := output(apply); err != nil {
		t.Fatal(err)
	}
	kubectl(t, "-n", n.namespace, "rollout", "status", "deployment/nginx-irsa-deployment", "--timeout=150s")

	a.wantMounted("the YAML's files", "deploy/nginx-irsa-deployment",
		`{"username":"testuser", "password":"testpassword"} testuser testpassword on`)
	a.wantVersions()
	a.putString("MySecret", `{"username":"testuser", "password":"rotated"}`)
	a.wantMounted("the new password", "deploy/nginx-irsa-deployment", `{"username":"testuser", "password":"rotated"} testuser rotated on`)

	logins := 0
	for _, request := range a.requests(a.role) {
		if request.Service == control.STS {
			logins++
		} else if request.Region != region {
			t.Errorf("a request to the region %q", request.Region)
		}
		if !strings.Contains(request.Session, n.namespace) || !strings.Contains(request.Session, "nginx-irsa") {
			t.Errorf("the session %q does not tell who it was", request.Session)
		}
	}
	if logins != 1 {
		t.Errorf("%d logins for two pods of one service account, want one", logins)
	}
}

// wantMounted waits until a Deployment's pod reads this, its four files with a
// space between them.
func (a *awsTenant) wantMounted(what, deployment, want string) {
	a.t.Helper()
	const read = "cd /mnt/secrets-store && echo $(cat MySecret) $(cat MySecretUsername) $(cat MySecretPassword) $(cat _my_parameter)"
	eventually(a.t, time.Minute, what, func(ctx context.Context) error {
		out, err := output(shared.cluster.Command(ctx, "kubectl", "-n", a.namespace, "exec", deployment, "--", "sh", "-c", read))
		if err == nil && strings.TrimSpace(out) != want {
			err = fmt.Errorf("the pod reads %q, want %q", out, want)
		}
		return err
	})
}

// wantVersions holds the versions in the statuses to the documented form.
func (a *awsTenant) wantVersions() {
	a.t.Helper()
	eventually(a.t, time.Minute, "versions in the statuses", func(ctx context.Context) error {
		list, err := shared.dynamic.Resource(podStatuses()).Namespace(a.namespace).List(ctx, metav1.ListOptions{})
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
			var ids []string
			for _, each := range objects {
				object := each.(map[string]any)
				ids = append(ids, fmt.Sprint(object["id"]))
				if !regexp.MustCompile(`^([-0-9a-f]{36}|1@[-0-9T:.]+Z)\+[0-9a-f]{8}$`).MatchString(fmt.Sprint(object["version"])) {
					return fmt.Errorf("the version of %s is %s", object["id"], object["version"])
				}
			}
			slices.Sort(ids)
			if want := []string{"MySecret", "MySecretPassword", "MySecretUsername", "_my_parameter"}; !slices.Equal(ids, want) {
				return fmt.Errorf("the objects are %v, want %v", ids, want)
			}
		}
		return nil
	})
}

func testAWSPodIdentity(t *testing.T, double *awscluster.Server) {
	a := newAWSTenant(t, double, "secretsmanager:GetSecretValue")
	_, err := double.Apply(t.Context(), control.Document{
		Associations: []control.Association{{Namespace: a.namespace, ServiceAccount: account, Role: a.role}},
	})
	must(t, err)
	a.awsClass("usePodIdentity", "true")
	a.wantFiles(a.start(a.pod("web", "app")), "app", map[string]string{"db": "hunter2"})
	for _, request := range a.requests(a.role) {
		if request.Service == control.STS {
			t.Errorf("STS was asked: %+v", request)
		}
	}
}

// One mount is one trace, from kubelet's call to the requests to AWS.
func testAWSOneTrace(t *testing.T, double *awscluster.Server) {
	a := newAWSTenant(t, double, "secretsmanager:GetSecretValue")
	a.annotate(a.role)
	a.awsClass()
	a.start(a.pod("web", "app"))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	const read = "aws GetSecretValue"
	trace, err := shared.traces.Wait(ctx, func(trace otlp.Trace) bool {
		root, ok := trace.Find("csi.NodePublishVolume")
		return ok && root.Attributes["k8s.namespace.name"] == a.namespace && trace.Has(read)
	})
	must(t, err)
	t.Logf("\n%s", trace.Tree())
	span, _ := trace.Find(read)
	if ancestors := trace.Ancestors(span); !slices.Contains(ancestors, "provider.Fetch") || !slices.Contains(ancestors, "gateway.Fetch") {
		t.Errorf("%s is below %v", read, ancestors)
	}
	if !trace.Has("aws POST") {
		t.Error("the trace has no login")
	}
	for _, span := range trace.Spans {
		if strings.Contains(span.Text(), "hunter2") || strings.Contains(span.Text(), "eyJ") {
			t.Errorf("span %s holds the secret or a token", span.Name)
		}
	}
}

// What IAM denies is in the pod's event, and what is granted then is enough.
func testAWSPermissionMissing(t *testing.T, double *awscluster.Server) {
	a := newAWSTenant(t, double)
	a.annotate(a.role)
	a.awsClass()
	a.refused("secretsmanager:GetSecretValue", a.secret, a.role[strings.LastIndex(a.role, "/"):])
	a.mayDo("secretsmanager:GetSecretValue")
	a.wantFiles(a.ready("web"), "app", map[string]string{"db": "hunter2"})
}

// A pod without a role gets nothing, although the provider could read its secret
// with the keys in its own environment.
func testAWSNoRole(t *testing.T, double *awscluster.Server) {
	a := newAWSTenant(t, double, "secretsmanager:GetSecretValue")
	a.awsClass()
	a.refused("An IAM role must be associated with service account "+account, a.namespace, roleAnnotation)
	if requests := a.requests("arn:aws:iam::" + ownAccount + ":user/admin"); len(requests) > 0 {
		t.Errorf("the provider used the keys of its environment: %+v", requests)
	}
	got, err := adminClient(double).GetSecretValue(t.Context(), &secretsmanager.GetSecretValueInput{SecretId: aws.String(a.secret)})
	must(t, err)
	if aws.ToString(got.SecretString) != "hunter2" {
		t.Errorf("with those keys the secret is %q", aws.ToString(got.SecretString))
	}
	if requests := a.requests("arn:aws:iam::" + ownAccount + ":user/admin"); len(requests) != 1 {
		t.Errorf("the keys were used once, and the double tells of %+v", requests)
	}
}

// Who may annotate a service account gets no role by it that does not trust it.
func testAWSRoleOfOthers(t *testing.T, double *awscluster.Server) {
	others := newAWSTenant(t, double, "secretsmanager:GetSecretValue")
	a := newAWSTenant(t, double)
	a.secret = others.secret
	a.annotate(others.role)
	a.awsClass()
	a.refused("Not authorized to perform sts:AssumeRoleWithWebIdentity", others.role)
}

// The cluster's own tokens, as the double's STS takes and refuses them: or else
// what is refused above would prove little.
func testAWSTokens(t *testing.T, double *awscluster.Server) {
	a := newAWSTenant(t, double, "secretsmanager:GetSecretValue")
	for name, test := range map[string]struct{ account, audience, want string }{
		"own":                     {account, "sts.amazonaws.com", "<SessionToken>"},
		"another service account": {"default", "sts.amazonaws.com", "AccessDenied"},
		"another audience":        {account, "vault", "InvalidIdentityToken"},
	} {
		token := strings.TrimSpace(kubectl(t, "-n", a.namespace, "create", "token", test.account, "--audience", test.audience))
		answer, err := a.assume(token)
		must(t, err)
		if !strings.Contains(answer, test.want) {
			t.Errorf("%s: STS answers %s, want %s", name, answer, test.want)
		}
	}
}

// assume asks STS for credentials of the tenant's role.
func (a *awsTenant) assume(token string) (answer string, err error) {
	form := url.Values{
		"Action": {"AssumeRoleWithWebIdentity"}, "Version": {"2011-06-15"},
		"RoleArn": {a.role}, "RoleSessionName": {"by-hand"}, "WebIdentityToken": {token},
	}
	req, err := http.NewRequestWithContext(a.t.Context(), http.MethodPost, a.double.Address, strings.NewReader(form.Encode()))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	client := &http.Client{Transport: &http.Transport{DialContext: shared.cluster.Dial, DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}
