package identity

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// node answers as the metadata server of a GKE node does, and counts.
func node(t *testing.T, asked *atomic.Int32) string {
	t.Helper()
	return metadataOf(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		value, ok := map[string]string{
			"/computeMetadata/v1/project/project-id":                   "shop-1",
			"/computeMetadata/v1/instance/attributes/cluster-location": "europe-west1\n",
			"/computeMetadata/v1/instance/attributes/cluster-name":     "prod",
		}[r.URL.Path]
		if !ok {
			t.Errorf("asked for %s", r.URL)
		}
		_, _ = fmt.Fprint(w, value)
	})
}

func credentialsFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "adc.json")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestFindFederation: who says where tokens are exchanged, and who is asked.
func TestFindFederation(t *testing.T) {
	t.Parallel()
	const provider = "projects/123/locations/global/workloadIdentityPools/corp/providers/k8s"
	external := func(audience, tokenURL string) string {
		return credentialsFile(t, fmt.Sprintf(`{"type": "external_account", "audience": %q, "token_url": %q,
			"service_account_impersonation_url": "https://evil.example/"}`, audience, tokenURL))
	}
	namespace := func(pool, cluster, tokenURL string) Federation {
		audience := "identitynamespace:" + pool + ":" + cluster
		return Federation{Audience: audience, TokenAudiences: []string{pool, audience}, TokenURL: tokenURL}
	}
	const fleet = "https://gkehub.googleapis.com/projects/123/locations/global/memberships/m"
	for name, test := range map[string]struct {
		cfg   FederationConfig
		want  Federation
		asked int32
	}{
		"metadata server": {want: gke(), asked: 3},
		"all said":        {cfg: FederationConfig{Project: "shop-1", ClusterName: "prod", ClusterLocation: "europe-west1"}, want: gke()},
		"all said, and a file": {
			cfg:  FederationConfig{Project: "shop-1", ClusterName: "prod", ClusterLocation: "europe-west1", CredentialsFile: external(wif().Audience, "")},
			want: gke(),
		},
		"a part said": {cfg: FederationConfig{Project: "other"}, want: namespace("other.svc.id.goog", strings.Replace(cluster, "shop-1", "other", 1), GKETokenURL), asked: 2},
		"of a domain": {
			cfg:  FederationConfig{Project: "corp.example:shop", ClusterName: "prod", ClusterLocation: "europe-west1"},
			want: namespace("corp.example:shop.svc.id.goog", strings.Replace(cluster, "shop-1", "corp.example:shop", 1), GKETokenURL),
		},
		"endpoints": {
			cfg:   FederationConfig{GKEEndpoint: "https://container.sandbox.example/v1/", TokenURL: "https://sts.sandbox.example/v1/token"},
			want:  namespace(gkePool, strings.Replace(cluster, "googleapis.com", "sandbox.example", 1), "https://sts.sandbox.example/v1/token"),
			asked: 3,
		},
		"another pool":    {cfg: FederationConfig{Pool: "corp.global.1.workload.id.goog"}, want: namespace("corp.global.1.workload.id.goog", cluster, GKETokenURL), asked: 3},
		"provider":        {cfg: FederationConfig{PoolProvider: provider}, want: wif()},
		"provider, whole": {cfg: FederationConfig{PoolProvider: "//iam.googleapis.com/" + provider}, want: wif()},
		"provider, as a URL, with its own audience": {
			cfg: FederationConfig{PoolProvider: "https://iam.googleapis.com/" + provider, TokenAudience: "vault", TokenURL: "https://sts.example/"},
			want: Federation{
				Audience: wif().Audience, TokenURL: "https://sts.example/", TokenAudiences: []string{"vault", wif().Audience, "https:" + wif().Audience},
			},
		},
		"provider with the usual audience": {cfg: FederationConfig{PoolProvider: provider, TokenAudience: wif().Audience}, want: wif()},
		"fleet":                            {cfg: FederationConfig{Pool: gkePool, PoolProvider: fleet}, want: namespace(gkePool, fleet, GKETokenURL)},
		"fleet of the project":             {cfg: FederationConfig{Project: "shop-1", PoolProvider: fleet}, want: namespace(gkePool, fleet, GKETokenURL)},
		"file of a federation":             {cfg: FederationConfig{CredentialsFile: external(wif().Audience, "")}, want: wif()},
		"file of a fleet": {
			cfg:  FederationConfig{CredentialsFile: external("identitynamespace:shop-1.svc.id.goog:"+fleet, "https://sts.googleapis.com/v1/token")},
			want: namespace(gkePool, fleet, STSTokenURL),
		},
		"file and an address": {
			cfg:  FederationConfig{CredentialsFile: external("identitynamespace:shop-1.svc.id.goog:"+fleet, STSTokenURL), TokenURL: GKETokenURL},
			want: namespace(gkePool, fleet, GKETokenURL),
		},
		"file of something else": {cfg: FederationConfig{CredentialsFile: credentialsFile(t, `{"type": "service_account"}`)}, want: gke(), asked: 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var asked atomic.Int32
			test.cfg.MetadataHost = node(t, &asked)
			got, err := FindFederation(t.Context(), test.cfg)
			if diff := cmp.Diff(test.want, got); diff != "" || err != nil || asked.Load() != test.asked {
				t.Errorf("error %v, %d requests, federation (-want +got):\n%s", err, asked.Load(), diff)
			}
		})
	}
}

// TestFindNoFederation: what is said has to be right, and what is not said there.
func TestFindNoFederation(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		cfg    FederationConfig
		status int    // what the metadata server answers; zero: 200
		value  string // with 200
		flavor string
		want   string
	}{
		"address without TLS":   {cfg: FederationConfig{TokenURL: "http://sts.googleapis.com/v1/token"}, want: "no https URL"},
		"provider of no kind":   {cfg: FederationConfig{PoolProvider: "projects/123"}, want: "nor is it of the form projects/<number>"},
		"pool beside provider":  {cfg: FederationConfig{Pool: "x", PoolProvider: strings.TrimPrefix(wif().Audience, "//iam.googleapis.com/")}, want: "give no pool x"},
		"cluster without pool":  {cfg: FederationConfig{PoolProvider: cluster}, want: `"" is no workload identity pool`},
		"pool that is none":     {cfg: FederationConfig{Pool: "a b", PoolProvider: cluster}, want: `"a b" is no workload identity pool`},
		"pool with GKE":         {cfg: FederationConfig{Pool: "a/b", Project: "p", ClusterName: "c", ClusterLocation: "l"}, want: `"a/b" is no workload identity pool`},
		"no file":               {cfg: FederationConfig{CredentialsFile: "/nonexistent/adc.json"}, want: "no such file"},
		"file without JSON":     {cfg: FederationConfig{CredentialsFile: credentialsFile(t, "canary")}, want: "not JSON"},
		"file with no audience": {cfg: FederationConfig{CredentialsFile: credentialsFile(t, `{"type": "external_account", "audience": "x"}`)}, want: `"x" is no audience`},
		"file with half of it":  {cfg: FederationConfig{CredentialsFile: credentialsFile(t, `{"type": "external_account", "audience": "identitynamespace:x"}`)}, want: "is no audience"},
		"file without TLS": {
			cfg: FederationConfig{CredentialsFile: credentialsFile(t, `{"type": "external_account", "audience": "`+wif().Audience+`", "token_url": "http://x/"}`)}, want: "token_url",
		},
		"no GKE":          {status: 404, flavor: "Google", want: "the node is not of a GKE cluster"},
		"broken":          {status: 500, flavor: "Google", want: "HTTP status 500 for project/project-id"},
		"somebody else":   {value: "shop-1", want: "is not Google's"},
		"redirect":        {status: 302, flavor: "Google", want: "HTTP status 302"},
		"value of a page": {value: "<html>", flavor: "Google", want: `"<html>" is no project`},
		"value of a path": {cfg: FederationConfig{Project: "p", ClusterName: "c/../d", ClusterLocation: "l"}, want: `"c/../d" is no cluster name`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test.cfg.MetadataHTTPClient = &http.Client{Transport: &transport{answer: func(int, asked) scripted {
				if test.status == 0 && test.value == "" {
					t.Error("the metadata server was asked")
				}
				return scripted{status: max(test.status, 200*min(len(test.value), 1)), body: test.value, header: []string{"Metadata-Flavor", test.flavor, "Location", "http://evil.example/"}}
			}}}
			got, err := FindFederation(t.Context(), test.cfg)
			if err == nil || !strings.Contains(err.Error(), test.want) || got.Audience != "" {
				t.Errorf("federation %v, error %v, want %q", got, err, test.want)
			}
			noCanary(t, err)
		})
	}
}

// TestNoMetadataServer: what to do is said, and it does not take long.
func TestNoMetadataServer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &transport{takes: time.Hour, answer: always(scripted{err: errors.New("at last")})}
		began := time.Now()
		_, err := FindFederation(t.Context(), FederationConfig{MetadataHTTPClient: &http.Client{Transport: s}})
		if err == nil || !strings.Contains(err.Error(), "metadata server 169.254.169.254") || !strings.Contains(err.Error(), "say which workload identity pool") ||
			!errors.Is(err, context.DeadlineExceeded) || time.Since(began) != metadataTimeout {
			t.Errorf("error %v after %v", err, time.Since(began))
		}
		if got := s.all()[0].url; got != "http://169.254.169.254/computeMetadata/v1/project/project-id" {
			t.Errorf("asked for %s", got)
		}
	})
}

// TestLocator: it looks once, whoever asks; a failure is not for ever.
func TestLocator(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &transport{takes: time.Second, answer: always(scripted{status: 500, header: []string{"Metadata-Flavor", "Google"}})}
		l := NewLocator(FederationConfig{Project: "shop-1", ClusterLocation: "europe-west1", MetadataHTTPClient: &http.Client{Transport: s}})
		everybody := func() int32 {
			var failed atomic.Int32
			var pods sync.WaitGroup
			for range 20 {
				pods.Go(func() {
					if f, err := l.Federation(t.Context()); err != nil {
						failed.Add(1)
					} else if f.Audience != gke().Audience {
						t.Errorf("federation %v", f)
					}
				})
			}
			pods.Wait()
			return failed.Load()
		}
		impatient, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := l.Federation(impatient); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		if failed := everybody(); failed != 20 || s.count() != 2 {
			t.Errorf("%d failures, %d requests; want 20, and that of the impatient and one", failed, s.count())
		}
		s.become(always(scripted{status: 200, body: "prod", header: []string{"Metadata-Flavor", "Google"}}))
		if failed := everybody(); failed != 20 || s.count() != 2 {
			t.Errorf("%d failures, %d requests", failed, s.count())
		}
		pass(failurePause)
		if failed := everybody(); failed != 0 || s.count() != 3 {
			t.Errorf("%d failures, %d requests", failed, s.count())
		}
		pass(24 * time.Hour)
		if failed := everybody(); failed != 0 || s.count() != 3 {
			t.Errorf("%d failures, %d requests", failed, s.count())
		}
	})
}

// TestLocatorIsBusy: who waits for another's look leaves alone.
func TestLocatorIsBusy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := NewLocator(FederationConfig{MetadataHTTPClient: &http.Client{Transport: &transport{takes: time.Hour, answer: always(scripted{err: errors.New("at last")})}}})
		var pods sync.WaitGroup
		pods.Go(func() { _, _ = l.Federation(t.Context()) })
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		if _, err := l.Federation(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("error %v after %v", err, time.Since(began))
		}
		pods.Wait()
	})
}
