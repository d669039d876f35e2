package e2e_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/postern-dev/postern/test/kubelet"
	"github.com/postern-dev/postern/test/openbao"

	"github.com/postern-dev/postern/test/build"
)

// badInput is a mount that must fail: one thing is changed of a mount that
// works.
type badInput struct {
	// parameters of the Vault SPC that are changed; with provider "file", all.
	parameters map[string]any
	// provider instead of vault.
	provider string
	// spec instead of one made of the above.
	spec map[string]any
	// noClass leaves the SPC out of the pod's namespace.
	noClass bool
	// request changes kubelet's request.
	request func(*csi.NodePublishVolumeRequest)
	// storeFile is a file's size in the file provider's store, named "large".
	storeFile int
	// timeout of the call instead of kubelet's.
	timeout time.Duration

	wantCode codes.Code
	// wantText is the whole message, but for these placeholders: {namespace},
	// {target}, {root}, {vault}, {tls} (addresses of the servers), and {…} for
	// a text of others' that may change.
	wantText string
}

// mountFailed is how a message begins that came from beyond the driver.
const mountFailed = "failed to mount secrets store objects for pod {namespace}/web-0, secretproviderclass app: "

// vaultFailed is how a message begins that the Vault provider wrote.
const vaultFailed = mountFailed + `provider "vault": `

// loginFailed is what the Vault provider says of a login that Vault refused.
func loginFailed(role, said, audience string) string {
	return vaultFailed + `failed to login to {vault} at auth/kubernetes with role "` + role + `" as service account ` +
		`{namespace}/web: ` + said + `. Check that the auth method is mounted there, that the role exists, that it is bound ` +
		`to this service account and namespace, and that it accepts tokens of audience "` + audience + `"`
}

func objects(entries ...string) map[string]any {
	return map[string]any{"objects": "- " + strings.Join(entries, "\n- ") + "\n"}
}

func badRequests() map[string]badInput {
	return map[string]badInput{
		"no capability": {
			request:  func(r *csi.NodePublishVolumeRequest) { r.VolumeCapability = nil },
			wantCode: codes.InvalidArgument, wantText: "volume capability missing in request",
		},
		"block volume": {
			request: func(r *csi.NodePublishVolumeRequest) {
				r.VolumeCapability.AccessType = &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}}
			},
			wantCode: codes.InvalidArgument, wantText: "block volumes are not supported: the volume is a directory of files",
		},
		"no volume id": {
			request:  func(r *csi.NodePublishVolumeRequest) { r.VolumeId = "" },
			wantCode: codes.InvalidArgument, wantText: "volume id missing in request",
		},
		"no target": {
			request:  func(r *csi.NodePublishVolumeRequest) { r.TargetPath = "" },
			wantCode: codes.InvalidArgument, wantText: "target path missing in request",
		},
		"target outside of kubelet's directory": {
			request:  func(r *csi.NodePublishVolumeRequest) { r.TargetPath = "/tmp/postern-elsewhere/mount" },
			wantCode: codes.InvalidArgument,
			wantText: `target path "/tmp/postern-elsewhere/mount" is not below the kubelet's directory {root}/kubelet: ` +
				`set --kubelet-root if kubelet runs with another --root-dir`,
		},
		"no attributes": {
			request:  func(r *csi.NodePublishVolumeRequest) { r.VolumeContext = nil },
			wantCode: codes.InvalidArgument, wantText: "volume attributes missing in request",
		},
		"not read-only": {
			request:  func(r *csi.NodePublishVolumeRequest) { r.Readonly = false },
			wantCode: codes.InvalidArgument,
			wantText: "readonly is not set to true in request: set csi.readOnly: true in the pod's volume",
		},
		"no SPC named": {
			request:  func(r *csi.NodePublishVolumeRequest) { delete(r.VolumeContext, "secretProviderClass") },
			wantCode: codes.InvalidArgument, wantText: `volumeAttributes has no secretProviderClass: name the SecretProviderClass to mount`,
		},
		"tokens that are no JSON": {
			request:  func(r *csi.NodePublishVolumeRequest) { r.VolumeContext[kubelet.TokensKey] = "{canary" },
			wantCode: codes.InvalidArgument, wantText: mountFailed + `csi.storage.k8s.io/serviceAccount.tokens is not the JSON object that kubelet sends`,
		},
		"group that is no number": {
			request:  func(r *csi.NodePublishVolumeRequest) { r.VolumeCapability.GetMount().VolumeMountGroup = "staff" },
			wantCode: codes.InvalidArgument, wantText: `volume mount group "staff" is not a group id`,
		},
		"tokens in the secrets that are no JSON": {
			request:  func(r *csi.NodePublishVolumeRequest) { r.Secrets = map[string]string{kubelet.TokensKey: "{canary"} },
			wantCode: codes.InvalidArgument, wantText: mountFailed + `csi.storage.k8s.io/serviceAccount.tokens is not the JSON object that kubelet sends`,
		},
		"no tokens": {
			request:  func(r *csi.NodePublishVolumeRequest) { delete(r.VolumeContext, kubelet.TokensKey) },
			wantCode: codes.FailedPrecondition, wantText: vaultFailed + `kubelet sent no token for audience "vault": add it to spec.tokenRequests ` +
				`of the CSIDriver secrets-store.csi.k8s.io (Helm value driver.tokenRequests); pods get it with their next republish`,
		},
	}
}

func badClasses() map[string]badInput {
	return map[string]badInput{
		"SPC missing": {
			noClass: true, wantCode: codes.NotFound, wantText: "failed to get secretproviderclass {namespace}/app: no such SecretProviderClass in the cluster: " +
				"create it in the pod's namespace",
		},
		"SPC in another namespace": {
			noClass:  true,
			request:  func(r *csi.NodePublishVolumeRequest) { r.VolumeContext["secretProviderClass"] = "elsewhere" },
			wantCode: codes.NotFound, wantText: "failed to get secretproviderclass {namespace}/elsewhere: no such SecretProviderClass in the cluster: " +
				"create it in the pod's namespace",
		},
		"SPC without provider": {
			spec:     map[string]any{"parameters": map[string]any{"objects": "- {objectName: x}"}},
			wantCode: codes.InvalidArgument, wantText: "secretproviderclass {namespace}/app: provider is not set: name the provider, such as vault",
		},
		"SPC without parameters": {
			spec: map[string]any{"provider": "vault"}, wantCode: codes.InvalidArgument, wantText: "secretproviderclass {namespace}/app: parameters are not set: the provider needs to know what to fetch",
		},
		"objects that are no YAML": {
			parameters: map[string]any{"objects": "- objectName: ["}, wantCode: codes.InvalidArgument, wantText: vaultFailed + "invalid parameters: objects: is not valid YAML: line 1: did not find expected node content",
		},
		"no objects": {
			parameters: map[string]any{"objects": ""}, wantCode: codes.InvalidArgument, wantText: vaultFailed + "invalid parameters: objects: no secrets configured - the provider will not read any secret material",
		},
		"no role": {
			parameters: map[string]any{"roleName": ""}, wantCode: codes.InvalidArgument, wantText: vaultFailed + "invalid parameters: roleName: missing 'roleName' in SecretProviderClass definition",
		},
		"unknown provider": {
			provider: "nowhere", parameters: map[string]any{"objects": "- {objectName: x}"}, timeout: 3 * time.Second,
			wantCode: codes.Unavailable, wantText: mountFailed + `provider "nowhere": no instance serves on this node: looked for ` +
				`{root}/run/providers/nowhere/*.sock, {root}/legacy/nowhere.sock; no socket is there; check that the provider's pod runs here`,
		},
		"duplicate object names": {
			parameters: objects(`{objectName: x, secretPath: secret/data/a, secretKey: k}`, `{objectName: x, secretPath: secret/data/b, secretKey: k}`),
			wantCode:   codes.InvalidArgument, wantText: vaultFailed + "invalid parameters: objects: objectName is the file's path and must be unique, duplicated: x",
		},
	}
}

func badStores() map[string]badInput {
	own := func(name, path, key string) string {
		return fmt.Sprintf("{objectName: %q, secretPath: %q, secretKey: %q}", name, path, key)
	}
	return map[string]badInput{
		"unknown role": {
			parameters: map[string]any{"roleName": "nobody"}, wantCode: codes.Unauthenticated, wantText: loginFailed("nobody", `HTTP status 400: invalid role name "nobody"`, "vault"),
		},
		"another's role": {
			parameters: map[string]any{"roleName": "elsewhere"}, wantCode: codes.Unauthenticated, wantText: loginFailed("elsewhere", "HTTP status 403: namespace not authorized", "vault"),
		},
		"token for another audience": {
			parameters: map[string]any{"audience": "elsewhere"}, wantCode: codes.Unauthenticated, wantText: loginFailed("{namespace}",
				"HTTP status 403: invalid audience (aud) claim: audience claim does not match any expected audience", "elsewhere"),
		},
		"denied path": {
			parameters: objects(own("x", "secret/data/t-others/app", "k")), wantCode: codes.PermissionDenied, wantText: vaultFailed + `object "x": couldn't read secret "secret/data/t-others/app": HTTP status 403: ` +
				`1 error occurred: * permission denied. The policies of role "{namespace}" must allow "read" on "secret/data/t-others/app"`,
		},
		"missing secret": {
			parameters: objects(own("x", "secret/data/{namespace}/none", "k")), wantCode: codes.NotFound, wantText: vaultFailed + `object "x": couldn't read secret "secret/data/{namespace}/none": there is nothing at this path (HTTP status 404)`,
		},
		"missing key": {
			parameters: objects(own("x", "secret/data/{namespace}/app", "none")), wantCode: codes.NotFound, wantText: vaultFailed + `object "x": {secret/data/{namespace}/app}: key "none" does not exist at the secret path`,
		},
		"Vault is down": {
			parameters: map[string]any{"vaultAddress": "http://127.0.0.1:1"}, timeout: 30 * time.Second,
			wantCode: codes.Unavailable, wantText: vaultFailed + `http://127.0.0.1:1 cannot be reached: Post "http://127.0.0.1:1/v1/auth/kubernetes/login": ` +
				`dial tcp 127.0.0.1:1: connect: connection refused. Check vaultAddress and the network`,
		},
		"Vault's certificate is not trusted": {
			parameters: map[string]any{"vaultAddress": "{tls}"}, timeout: 30 * time.Second,
			wantCode: codes.Unavailable, wantText: vaultFailed + `the certificate of {tls} is not trusted: Post "{tls}/v1/auth/kubernetes/login": ` +
				`tls: failed to verify certificate: x509: certificate signed by unknown authority. Set vaultCACertPath to a file ` +
				`of the provider's pod with the CA's certificate, or mount it and start the provider with --vault-tls-ca-cert`,
		},
		"file outside of the volume": {
			parameters: objects(own("../x", "secret/data/{namespace}/app", "username")), wantCode: codes.InvalidArgument, wantText: vaultFailed + `invalid parameters: objects[0].objectName: "../x": the path starts with ".."`,
		},
		"absolute file": {
			parameters: objects(own("/x", "secret/data/{namespace}/app", "username")), wantCode: codes.InvalidArgument, wantText: vaultFailed + `invalid parameters: objects[0].objectName: "/x": the path is absolute`,
		},
		"file name too long": {
			parameters: objects(own(strings.Repeat("x", 256), "secret/data/{namespace}/app", "username")),
			wantCode:   codes.InvalidArgument, wantText: vaultFailed + `invalid parameters: objects[0].objectName: "` + strings.Repeat("x", 256) + `": the path has an element longer than 255 bytes`,
		},
		"file that is also a directory": {
			parameters: objects(own("x", "secret/data/{namespace}/app", "username"), own("x/y", "secret/data/{namespace}/app", "username")),
			wantCode:   codes.InvalidArgument, wantText: vaultFailed + `invalid parameters: objects[1].objectName: "x/y": "x" is a file and cannot be a directory too`,
		},
		"answer over the size limit": {
			provider: "file", parameters: objects("{objectName: large}"), storeFile: 20 << 20,
			wantCode: codes.Internal, wantText: mountFailed + `provider "file": the files take {…} bytes, and a volume may take {…}: ask for fewer or smaller objects`,
		},
		"file missing": {
			provider: "file", parameters: objects("{objectName: none}"), wantCode: codes.NotFound, wantText: mountFailed + `provider "file": object "none": there is no such file for this namespace: ` +
				`put it below the provider's directory, or correct objectName`,
		},
	}
}

func TestBadInput(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	secure := startSecureBao(t)
	must(t, servers.API.EnsureServiceAccount(t.Context(), "t-elsewhere", "web"))
	must(t, servers.Bao.PutRole(t.Context(), openbao.Role{
		Name: "elsewhere", Namespace: "t-elsewhere", ServiceAccount: "web", Audience: "vault", Policies: []string{"default"},
	}))
	class(t, "t-elsewhere", "elsewhere", vaultSpec("t-elsewhere", nil))
	cases := map[string]badInput{}
	for _, table := range []map[string]badInput{badRequests(), badClasses(), badStores()} {
		maps.Copy(cases, table)
	}
	for _, name := range slices.Sorted(maps.Keys(cases)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cases[name].run(t, n, secure)
		})
	}
}

func (c badInput) run(t *testing.T, n *node, secure *openbao.Server) {
	namespace := tenant(t, map[string]any{"username": "bob", "password": "p4ssw0rd"})
	fill := strings.NewReplacer("{namespace}", namespace, "{tls}", secure.Address, "{root}", n.Path(), "{vault}", servers.Bao.Address)
	n.storeFile(t, namespace, "large", strings.Repeat("x", c.storeFile))
	if !c.noClass {
		class(t, namespace, "app", c.class(namespace, fill))
	}
	v := pod(t, namespace, "web-0", "app")
	req := n.Kubelet.Request(v)
	if c.request != nil {
		c.request(req)
	}
	ctx, cancel := context.WithTimeout(t.Context(), kubelet.Timeout)
	if c.timeout != 0 {
		ctx, cancel = context.WithTimeout(t.Context(), c.timeout)
	}
	defer cancel()
	_, err := n.Kubelet.NodePublishVolume(ctx, req)
	t.Cleanup(func() { _ = os.RemoveAll(filepath.Dir(filepath.Dir(n.Kubelet.Target(v)))) })
	if got := status.Code(err); got != c.wantCode {
		t.Errorf("code %s, want %s", got, c.wantCode)
	}
	text := trimTrace(status.Convert(err).Message())
	if want := fill.Replace(strings.ReplaceAll(c.wantText, "{target}", n.Kubelet.Target(v))); !matches(want, text) {
		t.Errorf("text\n%s\nwant\n%s", text, want)
	}
	n.wantNoMount(t, v)
}

func (c badInput) class(namespace string, fill *strings.Replacer) map[string]any {
	if c.spec != nil {
		return c.spec
	}
	filled := map[string]any{}
	for name, value := range c.parameters {
		filled[name] = fill.Replace(fmt.Sprint(value))
	}
	if c.provider != "" {
		return map[string]any{"provider": c.provider, "parameters": filled}
	}
	return vaultSpec(namespace, filled)
}

// traceNote is what the driver adds to every message of a traced call.
var traceNote = regexp.MustCompile(` \(trace [0-9a-f]{32}\)$`)

func trimTrace(text string) string { return traceNote.ReplaceAllString(text, "") }

// matches compares the texts, where {…} in want stands for anything.
func matches(want, got string) bool {
	parts := strings.Split(want, "{…}")
	for i, part := range parts {
		parts[i] = regexp.QuoteMeta(part)
	}
	return regexp.MustCompile(`(?s)\A` + strings.Join(parts, ".*") + `\z`).MatchString(got)
}

// startSecureBao starts an OpenBao whose certificate nobody here trusts.
func startSecureBao(t *testing.T) *openbao.Server {
	t.Helper()
	binary, err := servers.builder.Server(t.Context(), build.Bao())
	must(t, err)
	secure, err := openbao.Start(t.Context(), openbao.Config{Bao: binary, Dir: t.TempDir(), TLS: true})
	must(t, err)
	t.Cleanup(func() { must(t, secure.Stop()) })
	return secure
}
