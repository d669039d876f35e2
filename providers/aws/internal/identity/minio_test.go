package identity

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"go.uber.org/goleak"

	"github.com/postern-dev/postern/providers/sdk"
)

// minioEnv names a MinIO binary.
const minioEnv = "POSTERN_TEST_MINIO"

// testServer is the real STS that all tests of the package share. Nil: there is no
// binary.
var testServer *minio

func TestMain(m *testing.M) { os.Exit(runTests(m)) }

func runTests(m *testing.M) int {
	if binary := os.Getenv(minioEnv); binary != "" {
		server, err := startMinio(binary)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		testServer = server
	}
	code := m.Run()
	if testServer != nil {
		testServer.stop()
	}
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return code
}

// minio is a running MinIO, and the issuer whose tokens it accepts.
type minio struct {
	endpoint, role string
	issuer         *issuer
	dir            string
	command        *exec.Cmd
	ended          chan struct{}
}

// startMinio starts a server. Its port may be taken by another process between the
// choice and the start: then it tries another.
func startMinio(binary string) (s *minio, err error) {
	for range 3 {
		if s, err = tryMinio(binary); err == nil {
			return s, nil
		}
	}
	return nil, err
}

func tryMinio(binary string) (*minio, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	address := listener.Addr().String()
	if err := listener.Close(); err != nil {
		return nil, err
	}
	s := &minio{endpoint: "http://" + address, ended: make(chan struct{})}
	if s.issuer, err = newIssuer(); err != nil {
		return nil, err
	}
	if s.dir, err = os.MkdirTemp("", "minio-"); err != nil {
		return nil, err
	}
	s.command = exec.Command(binary, "server", "--address", address, filepath.Join(s.dir, "data"))
	s.command.Env = []string{
		"HOME=" + s.dir, "PATH=" + os.Getenv("PATH"), "MINIO_BROWSER=off", "MINIO_UPDATE=off",
		"MINIO_PROMETHEUS_AUTH_TYPE=public",
		"MINIO_ROOT_USER=" + rand.Text(), "MINIO_ROOT_PASSWORD=" + rand.Text(),
		"MINIO_IDENTITY_OPENID_CONFIG_URL=" + s.issuer.server.URL + "/.well-known/openid-configuration",
		"MINIO_IDENTITY_OPENID_CLIENT_ID=sts.amazonaws.com", "MINIO_IDENTITY_OPENID_ROLE_POLICY=readwrite",
	}
	log, err := os.Create(filepath.Join(s.dir, "log"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()
	s.command.Stdout, s.command.Stderr = log, log
	s.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // also when a test times out
	if err := s.command.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", binary, err)
	}
	go func() {
		defer close(s.ended)
		_ = s.command.Wait()
	}()
	if err := s.waitFor(log.Name()); err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}

// waitFor waits until the server has printed its role, which it does when it knows
// the issuer's keys, and has its policies, without which it gives no credentials.
func (s *minio) waitFor(log string) error {
	role := regexp.MustCompile(`IAM Roles: (arn:\S+)`)
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); {
		text, err := os.ReadFile(log)
		if err != nil {
			return err
		}
		if found := role.FindSubmatch(text); found != nil && s.ready() {
			s.role = string(found[1])
			return nil
		}
		select {
		case <-s.ended:
			return fmt.Errorf("MinIO has ended:\n%s", text)
		case <-time.After(20 * time.Millisecond): // it cannot be waited for otherwise
		}
	}
	return errors.New("MinIO does not get ready at " + s.endpoint)
}

func (s *minio) ready() bool {
	_, metrics, err := s.do(context.Background(), aws.Credentials{}, "/minio/metrics/v3/cluster/iam")
	return err == nil && regexp.MustCompile(`(?m)^minio_cluster_iam_sync_successes(\{.*\})? [1-9]`).MatchString(metrics)
}

func (s *minio) stop() {
	_ = s.command.Process.Kill()
	<-s.ended
	s.issuer.server.Close()
	_ = os.RemoveAll(s.dir)
}

// do does a request of S3, signed with credentials unless they are empty.
func (s *minio) do(ctx context.Context, credentials aws.Credentials, path string) (status int, answer string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.endpoint+path, http.NoBody)
	if err != nil {
		return 0, "", err
	}
	if credentials.HasKeys() {
		sum := sha256.Sum256(nil)
		payload := hex.EncodeToString(sum[:])
		req.Header.Set("X-Amz-Content-Sha256", payload)
		if err := v4.NewSigner().SignHTTP(ctx, credentials, req, payload, "s3", "us-east-1", time.Now()); err != nil {
			return 0, "", err
		}
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

// server returns the real STS.
func server(t *testing.T) *minio {
	t.Helper()
	if testServer == nil {
		t.Fatalf("%s is not set: `make test` builds the MinIO binary and sets it; by hand, run "+
			"`go build -o minio github.com/minio/minio` in test/servers/minio and set %s to its path", minioEnv, minioEnv)
	}
	return testServer
}

// issuer signs tokens as a Kubernetes API server does.
type issuer struct {
	server *httptest.Server
	key    *rsa.PrivateKey
}

const signingKey = "key-1"

func newIssuer() (*issuer, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		document := map[string]any{"keys": []any{map[string]string{
			"kty": "RSA", "use": "sig", "alg": "RS256", "kid": signingKey,
			"n": base64.RawURLEncoding.EncodeToString(key.N.Bytes()),
			"e": base64.RawURLEncoding.EncodeToString(big.NewInt(int64(key.E)).Bytes()),
		}}}
		if strings.HasSuffix(r.URL.Path, "openid-configuration") {
			document = map[string]any{"issuer": "http://" + r.Host, "jwks_uri": "http://" + r.Host + "/openid/v1/jwks"}
		}
		_ = json.NewEncoder(w).Encode(document)
	}))
	return &issuer{server: server, key: key}, nil
}

// token is one of the pod's, as kubelet hands it over.
func (i *issuer) token(t *testing.T, key *rsa.PrivateKey, change map[string]any) sdk.SecretString {
	t.Helper()
	claims := map[string]any{
		"iss": i.server.URL, "aud": []string{"sts.amazonaws.com"}, "sub": "system:serviceaccount:shop:cart",
		"iat": time.Now().Unix(), "nbf": time.Now().Add(-time.Minute).Unix(), "exp": time.Now().Add(time.Hour).Unix(),
		"kubernetes.io": map[string]any{
			"namespace": "shop", "pod": map[string]string{"name": "cart-1", "uid": "uid-1"},
			"serviceaccount": map[string]string{"name": "cart", "uid": "uid-2"},
		},
	}
	maps.Copy(claims, change)
	part := func(v any) string {
		var encoded bytes.Buffer
		if err := json.NewEncoder(&encoded).Encode(v); err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(bytes.TrimSpace(encoded.Bytes()))
	}
	signed := part(map[string]string{"alg": "RS256", "kid": signingKey}) + "." + part(claims)
	sum := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return sdk.NewSecretString(signed + "." + base64.RawURLEncoding.EncodeToString(signature))
}

// atMinio returns a Manager whose STS is the real one, and a pod's wish.
func atMinio(t *testing.T) (*Manager, Use) {
	t.Helper()
	s := server(t)
	m := manager(nil, func(c *Config) {
		c.AWS.HTTPClient = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		c.AWS.BaseEndpoint = aws.String(s.endpoint)
	})
	use := irsa("a")
	use.RoleARN, use.Token = s.role, s.issuer.token(t, s.issuer.key, nil)
	return m, use
}

// TestMinio: a server by others gives credentials for a token, and accepts what is
// signed with them.
func TestMinio(t *testing.T) {
	t.Parallel()
	m, use := atMinio(t)
	got := session(t, m, use)
	if left := time.Until(got.Expires()); left < 50*time.Minute || left > time.Hour {
		t.Errorf("the session ends in %s, and the token in an hour", left)
	}
	credentials, err := got.Provider().Retrieve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	status, answer, err := server(t).do(t.Context(), credentials, "/")
	if err != nil || status != http.StatusOK || !strings.Contains(answer, "ListAllMyBucketsResult") {
		t.Errorf("ListBuckets: status %d, %v:\n%s", status, err, answer)
	}
	forged := credentials
	forged.SecretAccessKey += "x"
	if status, answer, err = server(t).do(t.Context(), forged, "/"); err != nil || status != http.StatusForbidden {
		t.Errorf("ListBuckets with another key: status %d, %v:\n%s", status, err, answer)
	}
	if again := session(t, m, use); !again.Cached() {
		t.Error("the session is not kept")
	}
}

// TestMinioRefuses: what STS says of a token that is not right.
func TestMinioRefuses(t *testing.T) {
	t.Parallel()
	stranger, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		claims map[string]any
		key    *rsa.PrivateKey
		role   string
		want   string
	}{
		"audience":  {claims: map[string]any{"aud": []string{"vault"}}, want: "must match configured OpenID Client ID"},
		"expired":   {claims: map[string]any{"exp": time.Now().Add(-time.Minute).Unix()}, want: "expired"},
		"signature": {key: stranger, want: "verification error"},
		"role":      {role: "arn:minio:iam:::role/other", want: "RoleARN arn:minio:iam:::role/other is not defined"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, use := atMinio(t)
			key := server(t).issuer.key
			if test.key != nil {
				key = test.key
			}
			if test.role != "" {
				use.RoleARN = test.role
			}
			use.Token = server(t).issuer.token(t, key, test.claims)
			_, err := m.Acquire(t.Context(), use)
			e := failure(t, err)
			if e.Kind != Denied || e.Code != "InvalidParameterValue" || e.Status != http.StatusBadRequest || !strings.Contains(e.Message, test.want) {
				t.Errorf("error %v (%v), want Denied with %q", e, e.Kind, test.want)
			}
			if strings.Contains(prints(t, e), use.Token.Reveal()) {
				t.Errorf("the token shows up in %v", e)
			}
		})
	}
}
