package pods_test

import (
	"context"
	_ "embed" // a manifest
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/postern-dev/postern/test/aws/control"
	awscluster "github.com/postern-dev/postern/test/aws/incluster"
	"github.com/postern-dev/postern/test/build"
	"github.com/postern-dev/postern/test/cluster"
)

// What there is in AWS. The keys are those of AWS' documentation.
const (
	region     = "eu-central-1"
	ownAccount = "111122223333"
	adminKeyID = "AKIAIOSFODNN7EXAMPLE"
	adminKey   = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
)

const (
	roleAnnotation = "eks.amazonaws.com/role-arn"
	regionLabel    = "topology.kubernetes.io/region"
)

// awsManifest is what users have from the AWS provider's examples.
//
//go:embed testdata/aws.yaml
var awsManifest string

// awsImage makes the image of the double of AWS.
func (e *environment) awsImage(ctx context.Context) (string, error) {
	minio, err := e.builder.Server(ctx, build.Minio())
	if err != nil {
		return "", err
	}
	programs, err := e.builder.Programs(ctx, "aws", "./test/cmd/postern-aws")
	if err != nil {
		return "", err
	}
	tarball := filepath.Join(e.dir, "aws.tar")
	return tarball, awscluster.Image(filepath.Join(programs, "postern-aws"), minio, tarball)
}

// testAWS installs the provider for AWS. The provider's environment has the keys
// of a user who may do anything. They serve nobody.
func testAWS(t *testing.T) {
	dumpIfFailed(t, system)
	double := deployAWS(t)
	label(t, region)
	must(t, shared.postern.Upgrade(t.Context(), "provider-aws.enabled=true"))
	t.Cleanup(func() {
		if err := shared.postern.Upgrade(context.WithoutCancel(t.Context()), "provider-aws.enabled=false"); err != nil {
			t.Error(err)
		}
	})
	t.Run("Together", func(t *testing.T) {
		for _, test := range []struct {
			name string
			run  func(*testing.T, *awscluster.Server)
		}{
			{"WalkThrough", testAWSWalkThrough},
			{"Docs", testAWSDocs},
			{"PodIdentity", testAWSPodIdentity},
			{"OneTrace", testAWSOneTrace},
			{"PermissionMissing", testAWSPermissionMissing},
			{"NoRole", testAWSNoRole},
			{"RoleOfOthers", testAWSRoleOfOthers},
			{"Tokens", testAWSTokens},
		} {
			t.Run(test.name, func(t *testing.T) {
				t.Parallel()
				test.run(t, double)
			})
		}
	})
	violations, err := double.Violations(t.Context())
	must(t, err)
	for _, violation := range violations {
		t.Errorf("against AWS' own service model: %+v", violation)
	}
}

// deployAWS runs the double of AWS until the test ends.
func deployAWS(t *testing.T) *awscluster.Server {
	t.Helper()
	double, err := awscluster.Deploy(t.Context(), shared.cluster, cluster.Issuer)
	must(t, err)
	t.Cleanup(func() {
		if err := awscluster.Delete(context.WithoutCancel(t.Context()), shared.cluster); err != nil {
			t.Error(err)
		}
	})
	dumpIfFailed(t, awscluster.Namespace)
	_, err = double.Apply(t.Context(), control.Document{Users: []control.User{{
		Name: "admin", AccessKeyID: adminKeyID, SecretAccessKey: adminKey, Policy: allow([]string{"*"}, "*"),
	}}})
	must(t, err)
	return double
}

// label gives the node a region, as EKS does.
func label(t *testing.T, region string) {
	t.Helper()
	kubectl(t, "label", "node", shared.cluster.NodeName(), regionLabel+"="+region, "--overwrite")
	t.Cleanup(func() { kubectl(t, "label", "node", shared.cluster.NodeName(), regionLabel+"-") })
}

// allow is a policy.
func allow(actions []string, resources ...string) json.RawMessage {
	policy, err := json.Marshal(map[string]any{
		"Version":   "2012-10-17",
		"Statement": []any{map[string]any{"Effect": "Allow", "Action": actions, "Resource": resources}},
	})
	if err != nil {
		panic(err) // strings can always be encoded
	}
	return policy
}

// awsTenant is a tenant with a secret <namespace>/db and a role of its own.
type awsTenant struct {
	*tenant

	double *awscluster.Server
	role   string
	secret string
}

// newAWSTenant makes one whose role trusts its service account, which is not
// annotated yet, and may do this with its secret.
func newAWSTenant(t *testing.T, double *awscluster.Server, actions ...string) *awsTenant {
	t.Helper()
	n := newNamespace(t)
	a := &awsTenant{
		tenant: n, double: double,
		role:   "arn:aws:iam::" + ownAccount + ":role/" + n.namespace,
		secret: n.namespace + "/db",
	}
	a.mayDo(actions...)
	a.putString(a.secret, "hunter2")
	return a
}

// mayDo sets the role's policy. What it always has is of no use here: a policy
// without an action is none.
func (a *awsTenant) mayDo(actions ...string) {
	a.t.Helper()
	_, err := a.double.Apply(a.t.Context(), control.Document{Roles: []control.Role{{
		ARN: a.role, ServiceAccounts: []string{a.namespace + "/" + account},
		Policy: allow(append(actions, "sts:GetCallerIdentity"), secretARN(a.secret)),
	}}})
	must(a.t, err)
}

func secretARN(name string) string {
	return fmt.Sprintf("arn:aws:secretsmanager:%s:%s:secret:%s-??????", region, ownAccount, name)
}

// putString writes a new version of a secret.
func (a *awsTenant) putString(name, value string) {
	a.t.Helper()
	_, err := a.double.Apply(a.t.Context(), control.Document{Secrets: []control.Secret{{Region: region, Name: name, String: &value}}})
	must(a.t, err)
}

// annotate gives the service account a role.
func (a *awsTenant) annotate(role string) {
	a.t.Helper()
	patch := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%q}}}`, roleAnnotation, role)
	_, err := shared.client.CoreV1().ServiceAccounts(a.namespace).Patch(a.t.Context(), account, types.MergePatchType, patch, metav1.PatchOptions{})
	must(a.t, err)
}

// awsClass makes a class of the tenant's secret, as the file db, with further
// parameters as names and values.
func (a *awsTenant) awsClass(parameters ...string) {
	a.t.Helper()
	all := map[string]any{"objects": fmt.Sprintf("- {objectName: %s, objectType: secretsmanager, objectAlias: db}", a.secret)}
	for i := 0; i < len(parameters); i += 2 {
		all[parameters[i]] = parameters[i+1]
	}
	a.apply("v1", "app", map[string]any{"provider": "aws", "parameters": all})
}

// requests are those that the double has answered for a role.
func (a *awsTenant) requests(role string) []control.Request {
	a.t.Helper()
	all, err := a.double.Requests(a.t.Context())
	must(a.t, err)
	return slices.DeleteFunc(all, func(r control.Request) bool { return r.Role != role })
}

// adminClient is a client with the keys that are in the provider's environment.
func adminClient(double *awscluster.Server) *secretsmanager.Client {
	return secretsmanager.New(secretsmanager.Options{
		Region: region, BaseEndpoint: aws.String(double.Address),
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: adminKeyID, SecretAccessKey: adminKey}, nil
		}),
		HTTPClient: &http.Client{Transport: &http.Transport{DialContext: shared.cluster.Dial, DisableKeepAlives: true}, Timeout: time.Minute},
	})
}
