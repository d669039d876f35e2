package azure_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/google/go-cmp/cmp"

	"github.com/postern-dev/postern/test/azure"
	"github.com/postern-dev/postern/test/azure/control"
)

func TestTokenProxy(t *testing.T) {
	t.Parallel()
	d := start(t, azure.Config{})
	const sni = "a1b2c3.ests.aks"
	d.apply(t, control.Document{
		TokenProxy:   &control.TokenProxy{SNIName: sni},
		Applications: []control.Application{{Tenant: tenant, ClientID: client, Bindings: []string{subject}}},
	})
	direct := through(t, d.server)
	direct.Proxy, direct.TLSClientConfig.ServerName = nil, sni
	t.Cleanup(direct.CloseIdleConnections)
	behind := through(t, d.server)
	behind.TLSClientConfig.ServerName = sni
	t.Cleanup(behind.CloseIdleConnections)
	login := func(at string, transport *http.Transport, raw string) error {
		to, err := url.Parse(at + "/")
		if err != nil {
			t.Fatal(err)
		}
		options := d.options()
		options.Transport = rewriter{to, transport}
		credential, err := azidentity.NewClientAssertionCredential(tenant, client, func(context.Context) (string, error) { return raw, nil },
			&azidentity.ClientAssertionCredentialOptions{ClientOptions: options, DisableInstanceDiscovery: true})
		if err != nil {
			t.Fatal(err)
		}
		got, err := ask(t, credential)
		if err == nil && got.Token == "" {
			t.Error("no token")
		}
		return err
	}
	good := assertion(t, func(c *claims) { c.Audience = []string{"api://AKSIdentityBinding"} })
	for at, transport := range map[string]*http.Transport{
		d.server.Addresses.TokenProxy:                  direct,
		"https://kubernetes.default.svc.cluster.local": behind,
	} {
		if err := login(at, transport, good); err != nil {
			t.Errorf("%s: %v", at, err)
		}
		wantRefused(t, login(at, transport, assertion(t, nil)), http.StatusUnauthorized, "wrong audience")
		wantRefused(t, login(at, transport, assertion(t, func(c *claims) {
			c.Subject, c.Audience = "system:serviceaccount:shop:api", []string{"api://AKSIdentityBinding"}
		})), http.StatusForbidden, "system:serviceaccount:shop:api cannot use-managed-identity")
	}
	wrong := direct.Clone()
	wrong.TLSClientConfig.ServerName = "other.ests.aks"
	if err := login(d.server.Addresses.TokenProxy, wrong, good); err == nil {
		t.Error("it takes another server name")
	}
	if _, err := ask(t, d.login(t, good)); err == nil {
		t.Error("Entra itself takes tokens for the proxy")
	}
}

// rewriter sends everything to another host, as azidentity does for the token proxy.
type rewriter struct {
	to        *url.URL
	transport *http.Transport
}

func (r rewriter) Do(req *http.Request) (*http.Response, error) {
	query := req.URL.RawQuery
	req.URL = r.to.JoinPath(req.URL.EscapedPath())
	req.URL.RawQuery = query
	return r.transport.RoundTrip(req)
}

func TestProxy(t *testing.T) {
	t.Parallel()
	d := startUnchecked(t, azure.Config{})
	for _, host := range []string{"absent.vault.azure.net", "example.com"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+host+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := d.http.Do(req)
		if err == nil {
			_ = resp.Body.Close()
			t.Errorf("%s answers", host)
		} else if !strings.Contains(err.Error(), "Bad Gateway") {
			t.Errorf("%s: %v", host, err)
		}
	}
	want := []string{"proxy connect NXDOMAIN", "proxy connect NXDOMAIN"}
	if diff := cmp.Diff(want, d.answered(t)); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
	d.wantViolation(t, "")
}

// What a client may not do with a proxy.
func TestProxyMisused(t *testing.T) {
	t.Parallel()
	d := startUnchecked(t, azure.Config{})
	for name, test := range map[string]struct{ request, want, problem string }{
		"plain":      {"GET http://shop.vault.azure.net/ HTTP/1.1\r\nHost: shop.vault.azure.net\r\n\r\n", " 405 ", "not CONNECT"},
		"other port": {"CONNECT shop.vault.azure.net:80 HTTP/1.1\r\nHost: shop.vault.azure.net:80\r\n\r\n", " 405 ", "port 443"},
	} {
		t.Run(name, func(t *testing.T) {
			connection, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(d.server.Addresses.Proxy, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = connection.Close() }()
			if _, err := io.WriteString(connection, test.request); err != nil {
				t.Fatal(err)
			}
			line := make([]byte, 20)
			if _, err := io.ReadFull(connection, line); err != nil || !strings.Contains(string(line), test.want) {
				t.Errorf("%q, %v, want %q", line, err, test.want)
			}
			d.wantViolation(t, test.problem)
		})
	}
}

// A request for one host does not get to another by the way.
func TestHostHasToBeTheTunnels(t *testing.T) {
	t.Parallel()
	d := startUnchecked(t, azure.Config{})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://shop.vault.azure.net/secrets", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "login.microsoftonline.com"
	resp, err := d.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusMisdirectedRequest {
		t.Errorf("status %d", resp.StatusCode)
	}
	d.wantViolation(t, "asked for login.microsoftonline.com")
	other := through(t, d.server)
	t.Cleanup(other.CloseIdleConnections)
	other.TLSClientConfig = &tls.Config{RootCAs: other.TLSClientConfig.RootCAs, MinVersion: tls.VersionTLS12, ServerName: "evil.example"}
	if _, err := other.RoundTrip(req); err == nil { //nolint:bodyclose // there is none
		t.Error("a name that nobody has is certified")
	}
}
