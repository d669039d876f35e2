package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/postern-dev/postern/test/apiserver"
	"github.com/postern-dev/postern/test/aws"
	"github.com/postern-dev/postern/test/aws/control"
	"github.com/postern-dev/postern/test/build"
	"github.com/postern-dev/postern/test/harness"
	"github.com/postern-dev/postern/test/kubelet"
	"github.com/postern-dev/postern/test/minio"
)

const (
	awsAccount = "111122223333"
	awsRegion  = "eu-west-1"
)

// cloud is a test double of AWS whose STS is MinIO, for tokens of the API server.
type cloud struct {
	*aws.Server
	client *control.Client
}

func startCloud(t *testing.T) *cloud {
	t.Helper()
	binary, err := servers.builder.Server(t.Context(), build.Minio())
	must(t, err)
	keys, err := servers.API.Client.Discovery().RESTClient().Get().AbsPath("/openid/v1/jwks").DoRaw(t.Context())
	must(t, err)
	issuer := publish(t, keys)
	sts, err := minio.Start(t.Context(), minio.Config{Minio: binary, Dir: t.TempDir(), Issuer: issuer})
	must(t, err)
	t.Cleanup(sts.Stop)
	double, err := aws.Start(t.Context(), aws.Config{
		STSUpstream: sts.Endpoint, STSUpstreamRole: sts.RoleARN,
		Issuers: []control.Issuer{{URL: apiserver.Issuer, JWKS: keys}},
	})
	must(t, err)
	t.Cleanup(double.Close)
	c := &cloud{Server: double, client: control.NewClient(double.Addresses.Control)}
	t.Cleanup(func() {
		violations, err := c.client.Violations(context.WithoutCancel(t.Context()))
		if err != nil || len(violations) > 0 {
			t.Errorf("requests or answers break AWS' service models: %v (%v)", violations, err)
		}
		c.client.Close()
	})
	return c
}

// publish serves the API server's keys as a cluster's issuer does: to anybody.
func publish(t *testing.T, keys []byte) (issuer string) {
	t.Helper()
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{
			"issuer": apiserver.Issuer, "jwks_uri": server.URL + "/keys", "response_types_supported": []string{"id_token"},
			"subject_types_supported": []string{"public"}, "id_token_signing_alg_values_supported": []string{"RS256"},
		})
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(keys) })
	return server.URL
}

// tenant makes a namespace whose service account "web" is annotated with a role
// that may read what begins with the namespace's name.
func (c *cloud) tenant(t *testing.T) (namespace, role string) {
	t.Helper()
	namespace = "aws-" + strings.ToLower(strings.NewReplacer("_", "-", "/", "-").Replace(t.Name()))
	role = "arn:aws:iam::" + awsAccount + ":role/" + namespace
	must(t, servers.API.EnsureServiceAccount(t.Context(), namespace, "web"))
	must(t, servers.API.Apply(t.Context(), fmt.Sprintf(`
apiVersion: v1
kind: ServiceAccount
metadata: {name: web, namespace: %s, annotations: {eks.amazonaws.com/role-arn: %s}}
`, namespace, role)))
	policy := fmt.Sprintf(`{"Version": "2012-10-17", "Statement": [
		{"Effect": "Allow", "Action": ["secretsmanager:GetSecretValue", "secretsmanager:DescribeSecret"], "Resource": "arn:aws:secretsmanager:*:*:secret:%s/*"},
		{"Effect": "Allow", "Action": "secretsmanager:BatchGetSecretValue", "Resource": "*"}]}`, namespace)
	c.apply(t, control.Document{Roles: []control.Role{{ARN: role, Policy: []byte(policy), ServiceAccounts: []string{namespace + "/web"}}}})
	return namespace, role
}

func (c *cloud) apply(t *testing.T, d control.Document) {
	t.Helper()
	_, err := c.client.Apply(t.Context(), d)
	must(t, err)
}

func (c *cloud) secret(t *testing.T, name, contents string) {
	t.Helper()
	c.apply(t, control.Document{Secrets: []control.Secret{{Region: awsRegion, Name: name, String: &contents}}})
}

// calls counts a role's requests by operation.
func (c *cloud) calls(t *testing.T, role string) map[string]int {
	t.Helper()
	all, err := c.client.Calls(t.Context())
	must(t, err)
	counts := map[string]int{}
	for _, call := range all {
		if call.Role == role {
			counts[call.Operation] += call.Count
		}
	}
	return counts
}

// node starts a node of the region, with the AWS provider.
func (c *cloud) node(t *testing.T) *node {
	t.Helper()
	must(t, servers.API.Apply(t.Context(), fmt.Sprintf(`
apiVersion: v1
kind: Node
metadata: {name: node-1, labels: {topology.kubernetes.io/region: %s}}
`, awsRegion)))
	return startNode(t, func(cfg *harness.Config) {
		cfg.Providers = map[string][]string{"aws": {}}
		cfg.ProviderEnv = []string{"AWS_ENDPOINT_URL=" + c.Addresses.Endpoint}
	})
}

// awsPod is a pod with the tokens that the AWS provider asks for.
func awsPod(t *testing.T, namespace, name, class string) kubelet.Volume {
	t.Helper()
	created, err := servers.API.CreatePod(t.Context(), apiserver.Pod{
		Namespace: namespace, Name: name, ServiceAccount: "web", Node: "node-1", Volume: "secrets", SecretProviderClass: class,
	})
	must(t, err)
	tokens, err := servers.API.Tokens(t.Context(), created, "sts.amazonaws.com", "pods.eks.amazonaws.com")
	must(t, err)
	return kubelet.Volume{
		Namespace: namespace, Pod: name, UID: string(created.UID), ServiceAccount: "web",
		Name: "secrets", SecretProviderClass: class, Tokens: tokens,
	}
}

// Twenty pods with five secrets, for as many refreshes as an hour of two minutes
// has: the whole node reads once, and logs in once. ASCP makes 3,720 calls.
func TestAWS_Calls(t *testing.T) {
	t.Parallel()
	const replicas, secrets, refreshes = 20, 5, 30
	c := startCloud(t)
	n := c.node(t)
	namespace, role := c.tenant(t)
	var objects strings.Builder
	want := map[string]string{}
	for i := range secrets {
		name, contents := fmt.Sprintf("%s/%d", namespace, i), fmt.Sprintf("canary-%d", i)
		c.secret(t, name, contents)
		fmt.Fprintf(&objects, "- {objectName: %s, objectType: secretsmanager, objectAlias: s%d}\n", name, i)
		want[fmt.Sprintf("s%d", i)] = contents
	}
	class(t, namespace, "app", map[string]any{"provider": "aws", "parameters": map[string]any{
		"objects": objects.String(), "rotationPollInterval": "1s",
	}})
	var volumes []kubelet.Volume
	for i := range replicas {
		v := awsPod(t, namespace, fmt.Sprintf("web-%d", i), "app")
		n.publish(t, v)
		volumes = append(volumes, v)
	}
	within(t, 10*time.Minute, "there were as many refreshes as in an hour", func() bool {
		return c.calls(t, role)["DescribeSecret"] >= refreshes*secrets
	})
	calls := c.calls(t, role)
	t.Logf("calls: %v", calls)
	if reads := calls["GetSecretValue"] + calls["BatchGetSecretValue"]; reads == 0 || reads > 32 {
		t.Errorf("%d calls read contents, want at most 32", reads)
	}
	if logins := calls["AssumeRoleWithWebIdentity"]; logins < 1 || logins > 2 {
		t.Errorf("%d logins, want 1 or 2", logins)
	}
	for _, v := range volumes {
		n.wantFiles(t, v, want)
	}
	c.secret(t, namespace+"/0", "canary-new")
	eventually(t, "all volumes hold what is new", func() bool {
		for _, v := range volumes {
			if n.read(t, v, "s0") != "canary-new" {
				return false
			}
		}
		return true
	})
}

// MinIO judges the API server's tokens: whose they are is in the role's trust.
func TestAWS_Tokens(t *testing.T) {
	t.Parallel()
	c := startCloud(t)
	namespace, role := c.tenant(t)
	must(t, servers.API.EnsureServiceAccount(t.Context(), namespace, "other"))
	for name, tt := range map[string]struct {
		account, audience string
		spoil             func(token string) string
		code              string
	}{
		"the role's":              {account: "web", audience: "sts.amazonaws.com"},
		"another service account": {account: "other", audience: "sts.amazonaws.com", code: "AccessDenied"},
		"another audience":        {account: "web", audience: "vault", code: "InvalidIdentityToken"},
		"another signature": {account: "web", audience: "sts.amazonaws.com", code: "InvalidIdentityToken", spoil: func(token string) string {
			return token[:strings.LastIndexByte(token, '.')+1] + strings.Repeat("A", 342)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			status, err := servers.API.Client.CoreV1().ServiceAccounts(namespace).CreateToken(t.Context(), tt.account,
				&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: []string{tt.audience}}}, metav1.CreateOptions{})
			must(t, err)
			token := status.Status.Token
			if tt.spoil != nil {
				token = tt.spoil(token)
			}
			code, body := c.assume(t, role, token)
			if (code == http.StatusOK) != (tt.code == "") || !strings.Contains(body, tt.code) {
				t.Errorf("HTTP status %d, %s; want %q", code, strings.ReplaceAll(body, token, "[token]"), tt.code)
			}
		})
	}
}

// assume asks STS as the SDKs do.
func (c *cloud) assume(t *testing.T, role, token string) (status int, body string) {
	t.Helper()
	form := url.Values{
		"Action": {"AssumeRoleWithWebIdentity"}, "Version": {"2011-06-15"}, "RoleSessionName": {"test"},
		"RoleArn": {role}, "WebIdentityToken": {token},
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.Addresses.Endpoint, strings.NewReader(form.Encode()))
	must(t, err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := http.DefaultClient.Do(req)
	must(t, err)
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp.StatusCode, string(text)
}

// A pod whose tokens are another service account's, or that has none for AWS, is
// refused before AWS is asked, though there are credentials that would do.
func TestAWS_OthersTokens(t *testing.T) {
	t.Parallel()
	c := startCloud(t)
	n := c.node(t)
	namespace, role := c.tenant(t)
	c.secret(t, namespace+"/a", "canary-a")
	class(t, namespace, "app", map[string]any{"provider": "aws", "parameters": map[string]any{
		"objects": fmt.Sprintf("- {objectName: %s/a, objectType: secretsmanager, objectAlias: a}", namespace),
	}})
	mine := awsPod(t, namespace, "web", "app")
	n.publish(t, mine)
	n.wantFiles(t, mine, map[string]string{"a": "canary-a"})
	calls := c.calls(t, role)
	stolen := awsPod(t, namespace, "thief", "app")
	stolen.Tokens = mine.Tokens
	wantReason(t, n.Kubelet.Publish(t.Context(), stolen), "TOKEN_INVALID")
	none := awsPod(t, namespace, "none", "app")
	none.Tokens = "{}"
	wantReason(t, n.Kubelet.Publish(t.Context(), none), "TOKEN_MISSING")
	if now := c.calls(t, role); !maps.Equal(calls, now) {
		t.Errorf("AWS was asked: %v, then %v", calls, now)
	}
}

// wantReason wants an error of the driver with a reason.
func wantReason(t *testing.T, err error, reason string) {
	t.Helper()
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetReason() == reason {
			return
		}
	}
	t.Errorf("error %v, want one for the reason %s", err, reason)
}
