package gcp_test

import (
	"encoding/json"
	"net/http"
	"testing"

	"cloud.google.com/go/compute/metadata"

	"github.com/postern-dev/postern/test/gcp"
	"github.com/postern-dev/postern/test/gcp/control"
)

// Google's client finds the server by a variable of the whole process, so this test
// is alone.
func TestMetadata(t *testing.T) {
	d := start(t, gcp.Config{})
	t.Setenv("GCE_METADATA_HOST", d.server.Addresses.Metadata)
	d.apply(t, control.Document{
		Secrets:  []control.Secret{secret(db, "x")},
		Metadata: &control.Metadata{Project: "shop", ClusterName: "one", ClusterLocation: "europe-west1", Zone: "europe-west1-b", ServiceAccount: app},
	})
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	c := metadata.NewClient(&http.Client{Transport: transport})
	for path, want := range map[string]string{
		"project/project-id": "shop", "project/numeric-project-id": number,
		"instance/attributes/cluster-name": "one", "instance/attributes/cluster-location": "europe-west1",
		"instance/zone": "projects/" + number + "/zones/europe-west1-b", "universe/universe-domain": "googleapis.com",
		"instance/service-accounts/default/email": app, "instance/service-accounts/" + app + "/scopes": platform + "\n",
	} {
		if got, err := c.GetWithContext(t.Context(), path); err != nil || got != want {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
	raw, err := c.GetWithContext(t.Context(), "instance/service-accounts/default/token?scopes="+platform)
	var issued struct {
		AccessToken string `json:"access_token"`
		ExpiresIn   int    `json:"expires_in"`
	}
	if json.Unmarshal([]byte(raw), &issued) != nil || err != nil || issued.ExpiresIn != 3600 {
		t.Fatalf("%v: %d seconds", err, issued.ExpiresIn)
	}
	if _, err := access(t, d.secretsAt(t, globalHost, bearer(issued.AccessToken)), db+"/versions/1"); err != nil {
		t.Error(err)
	}
	d.apply(t, control.Document{Metadata: &control.Metadata{UniverseDomain: "example.goog"}})
	for _, path := range []string{"project/project-id", "project/numeric-project-id", "instance/attributes/cluster-name", "instance/zone", "instance/service-accounts/default/token", "instance/x"} {
		if got, err := c.GetWithContext(t.Context(), path); err == nil {
			t.Errorf("%s: %q", path, got)
		}
	}
	if got, err := c.GetWithContext(t.Context(), "universe/universe-domain"); err != nil || got != "example.goog" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestWhatTheMetadataServerRefuses(t *testing.T) {
	t.Parallel()
	d := startUnchecked(t, gcp.Config{})
	d.apply(t, control.Document{Metadata: &control.Metadata{Project: "shop"}})
	url := "http://" + d.server.Addresses.Metadata + "/computeMetadata/v1/project/project-id"
	google := func(more ...string) http.Header {
		h := http.Header{"Metadata-Flavor": {"Google"}}
		if len(more) == 2 {
			h.Set(more[0], more[1])
		}
		return h
	}
	for name, test := range map[string]struct {
		method    string
		header    http.Header
		status    int
		violation string
	}{
		"no flavor": {http.MethodGet, nil, http.StatusForbidden, "no header"},
		"forwarded": {http.MethodGet, google("X-Forwarded-For", "1.2.3.4"), http.StatusForbidden, "a header"},
		"bearer":    {http.MethodGet, google("Authorization", "Bearer x"), http.StatusForbidden, "a header"},
		"put":       {http.MethodPut, google(), http.StatusMethodNotAllowed, "PUT"},
	} {
		if status, _ := d.send(t, test.method, url, "", test.header); status != test.status {
			t.Errorf("%s: status %d", name, status)
		}
		d.wantViolation(t, test.violation)
	}
	if status, answer := d.send(t, http.MethodGet, url, "", google()); status != http.StatusOK || answer != "shop" {
		t.Errorf("%d %s", status, answer)
	}
	if status, _ := d.send(t, http.MethodGet, "http://"+d.server.Addresses.Metadata+"/", "", nil); status != http.StatusOK {
		t.Errorf("status %d: nobody finds the server", status)
	}
}
